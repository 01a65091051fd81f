"""Greedy subsets against determinants of every candidate."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.subset import FeatureRows, Selection, batched_greedy_map, greedy_map

KEY = jax.random.key(0)


def brute_force(z, k):
    """The item with the largest determinant of all, k times over."""
    chosen = []
    for _ in range(k):
        sets = [[*chosen, i] for i in range(len(z))]
        logs = [
            -np.inf if len(set(s)) < len(s) else np.linalg.slogdet(z[s] @ z[s].T)[1] for s in sets
        ]
        chosen.append(int(np.argmax(logs)))
    return chosen


def fast_greedy(z, k):
    """As published: Chen, Zhang and Zhou 2018, algorithm 1, with one row of c for each item."""
    squares, c, chosen = np.sum(z**2, axis=1), np.zeros((len(z), 0)), []
    for _ in range(k):
        j = int(np.argmax(squares))
        e = (z @ z[j] - c @ c[j]) / squares[j] ** 0.5
        c, squares = np.column_stack([c, e]), squares - e**2
        squares[j] = -np.inf
        chosen.append(j)
    return chosen


def log_determinant(z, indices):
    return np.linalg.slogdet(z[indices] @ z[indices].T)[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["normal", "decaying", "unit norm"])
def test_equal_to_brute_force(kind, dtype):
    z = np.random.default_rng(0).normal(size=(25, 8))
    if kind == "decaying":
        z *= 0.3 ** np.arange(8)
    if kind == "unit norm":
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    z = z.astype(dtype)
    found = greedy_map(z, 7)
    wide = z.astype(np.float64)
    expected = brute_force(wide, 7)
    if kind == "unit norm":  # all first items are as good, up to the rounding of their norms
        expected = expected if found.indices[0] == expected[0] else fast_greedy_from(wide, found)
    assert found.indices.tolist() == expected
    assert np.log(found.gains).sum() == pytest.approx(log_determinant(wide, found.indices))
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(7), atol=1e-13)
    span = wide[found.indices] @ found.basis.T @ found.basis
    np.testing.assert_allclose(span, wide[found.indices], atol=1e-12)
    left = np.sum((wide - wide @ found.basis.T @ found.basis) ** 2)
    assert found.residual == pytest.approx(left, rel=1e-10)


def fast_greedy_from(z, found):
    """Brute force behind the first item."""
    chosen = [int(found.indices[0])]
    for _ in range(len(found.indices) - 1):
        logs = [
            -np.inf if i in chosen else np.linalg.slogdet(z[[*chosen, i]] @ z[[*chosen, i]].T)[1]
            for i in range(len(z))
        ]
        chosen.append(int(np.argmax(logs)))
    return chosen


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_equal_to_the_published_algorithm(spread):
    """With more items than are looked at between two passes, in blocks."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(9000, 40)) * np.exp(spread * rng.normal(size=(9000, 1)))
    assert greedy_map(z, 30).indices.tolist() == fast_greedy(z, 30)


def test_slack():
    """Distances no less than a share of the best, in fewer passes."""
    z = np.random.default_rng(0).normal(size=(3000, 30))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    exact, loose = greedy_map(z, 20), greedy_map(z, 20, slack=0.2)
    passes = []
    for slack in (0.0, 0.2):
        rows = _Counting(z)
        greedy_map(rows, 20, slack=slack)
        passes.append(rows.passes)
    assert passes[1] <= passes[0] / 2
    for selection, share in ((exact, 1 - 1e-9), (loose, 0.8)):
        basis = np.zeros((0, 30))
        for i, gain in zip(selection.indices, selection.gains, strict=True):
            squares = np.sum((z - z @ basis.T @ basis) ** 2, axis=1)
            assert gain == pytest.approx(squares[i], rel=1e-9)
            assert gain >= share * squares.max()
            direction = z[i] - z[i] @ basis.T @ basis
            basis = np.vstack([basis, direction / np.linalg.norm(direction)])


class _Counting(FeatureRows):
    """An array as items, whose passes are counted."""

    def __init__(self, z):
        self.z, self.shape, self.passes = z, z.shape, 0

    def blocks(self):
        self.passes += 1
        yield 0, len(self.z), self.z

    def take(self, index):
        return self.z[index]


# ------------------------------------------------------------------ batches


def test_batches():
    """Of one sample the batch is drawn blindly; more samples come closer to the greedy choice."""
    z = np.random.default_rng(0).normal(size=(300, 24)) * 0.9 ** np.arange(24)
    best = np.log(greedy_map(z, 12).gains).sum()
    mean = []
    for samples in (1, 10, 200):
        values = []
        for seed in range(10):
            found = batched_greedy_map(z, 12, key=jax.random.key(seed), batch=5, samples=samples)
            assert len(set(found.indices)) == 12
            value = np.log(found.gains).sum()
            assert value == pytest.approx(log_determinant(z, found.indices))
            assert found.residual is None
            values.append(value)
        mean.append(np.mean(values))
    assert mean[0] < mean[1] < mean[2] < best


def test_the_best_of_all_batches():
    """Of 6 items and many samples, the pair of largest determinant is found."""
    z = np.random.default_rng(3).normal(size=(6, 4))
    pairs = {(i, j): log_determinant(z, [i, j]) for i in range(6) for j in range(i)}
    found = batched_greedy_map(z, 2, key=KEY, batch=2, samples=400).indices
    assert (max(found), min(found)) == max(pairs, key=pairs.__getitem__)


# ------------------------------------------------------------------ streamed features, bad input


def test_streamed(make_map, make_data, tmp_path):
    """Features batch by batch, computed again or from a file: the choice of the array."""
    feature_map, (x, _) = make_map(), make_data(90)
    z = feature_map(x).ntk
    expected = greedy_map(z, 12)
    for cache in (None, tmp_path / "z.safetensors"):
        rows = FeatureRows(feature_map, x, batch_size=16, cache=cache)
        assert rows.shape == (90, 20)
        found = greedy_map(rows, 12)
        assert isinstance(found, Selection)
        assert np.array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.gains, expected.gains, rtol=1e-4)
    assert (tmp_path / "z.safetensors").exists()
    found = batched_greedy_map(rows, 12, key=KEY, samples=3)
    assert np.array_equal(found.indices, batched_greedy_map(z, 12, key=KEY, samples=3).indices)


Z = np.random.default_rng(0).normal(size=(8, 5))


@pytest.mark.parametrize("function", [greedy_map, batched_greedy_map])
def test_refused(function, make_map, make_data):
    options = {} if function is greedy_map else {"key": KEY, "batch": 2}
    for z, k, error, message in [
        (Z, 9, ValueError, "k=9 of 8 items: at most 8"),
        (Z, 6, ValueError, "k=6 items with 5 features each are linearly dependent"),
        (Z, 0, ValueError, "k must be a positive integer"),
        (Z, 2.0, TypeError, "k must be a positive integer"),
        (Z[:, 0], 2, ValueError, r"z has shape \(8,\); needed: \(n, p\)"),
        (Z[:0], 2, ValueError, r"z has shape \(0, 5\)"),
        (Z * np.nan, 2, ValueError, "z is not finite .40 entries"),
        (jnp.asarray(Z).at[3, 1].set(jnp.inf), 2, ValueError, "first in row 3"),
        (Z.astype(int), 2, TypeError, r"dtype int64; needed: real floating point"),
        ("items", 2, TypeError, "z must be one array"),
        (make_map()(make_data(5)[0]), 2, TypeError, "two kernels: give one array of them, z.ntk"),
    ]:
        with pytest.raises(error, match=message):
            function(z, k, **options)
    low = Z[:, :2] @ np.random.default_rng(1).normal(size=(2, 5))
    with pytest.raises(ValueError, match=r"numerical rank 2, below k=4: .* Choose 2 at most"):
        function(low, 4, **options)


def test_refused_sizes():
    for z, message in [(1e-200 * Z, "Scale them up"), (0 * Z, "all features are 0")]:
        with pytest.raises(ValueError, match=message):
            greedy_map(z, 2)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="scale them down"):
        greedy_map(1e170 * Z, 2)
    assert np.array_equal(greedy_map(1e120 * Z, 3).indices, greedy_map(Z, 3).indices)


def test_refused_options():
    for slack in (1.0, -0.1, "no", True):
        with pytest.raises(ValueError, match="needed: a share, 0 <= slack < 1"):
            greedy_map(Z, 2, slack=slack)
    with pytest.raises(ValueError, match="samples must be a positive integer"):
        batched_greedy_map(Z, 2, key=KEY, samples=0)
    with pytest.raises(TypeError, match="key must be a key of"):
        batched_greedy_map(Z, 2, key=0)
