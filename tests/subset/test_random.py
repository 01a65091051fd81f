"""Random subsets: their distributions, written out for few items, and the error of landmarks."""

import itertools
from collections import Counter

import jax
import numpy as np
import pytest
from marks import others_slow
from scipy import stats
from scipy.special import gammaln

from ntk_sketch.numerics._pivoted_cholesky import accepted, randomly_pivoted
from ntk_sketch.subset import FeatureRows, greedy_map, k_dpp, randomly_pivoted_cholesky
from ntk_sketch.subset._k_dpp import _eigenvectors, log_elementary
from ntk_sketch.subset._random_pivots import random_pivots
from ntk_sketch.subset._rows import checked_rows

KEY = jax.random.key(0)


def few_items(n=6, p=4):
    """No subset is so rare that it does not come a few times."""
    rng = np.random.default_rng(44)
    return rng.normal(size=(n, p)) * np.linspace(0.9, 1.3, n)[:, None]


def chi_square(found, probabilities):
    """The probability of so large a difference, by chance, between counts and probabilities."""
    draws = sum(found.values())
    assert set(found) <= {s for s, p in probabilities.items() if p > 0}
    counts = np.array([found.get(s, 0) for s in probabilities])
    expected = draws * np.array(list(probabilities.values()))
    assert expected.min() > 5  # of the approximation
    return stats.chisquare(counts, expected).pvalue


# ------------------------------------------------------------------ k-DPP


@pytest.mark.parametrize("k", others_slow([1, 2, 3], 2))
def test_probabilities_of_all_subsets(k):
    """P(S) = det(Z_S Z_Sᵀ) / e_k(λ) of 6 items, by 3,000 samples."""
    z = few_items()
    sets = list(itertools.combinations(range(6), k))
    determinants = np.array([np.linalg.det(z[list(s)] @ z[list(s)].T) for s in sets])
    elementary = np.exp(log_elementary(np.linalg.eigvalsh(z.T @ z), k)[-1, k])
    assert determinants.sum() == pytest.approx(elementary)
    probabilities = dict(zip(sets, determinants / elementary, strict=True))
    keys = jax.random.split(jax.random.key(k), 3000)
    found = Counter(tuple(k_dpp(z, k, key=key).tolist()) for key in keys)
    assert chi_square(found, probabilities) > 1e-3


def test_elementary_symmetric_polynomials():
    """By sums over subsets, and where they overflow."""
    values = np.array([0.5, 2.0, 3.0, 0.1, 7.0])
    found = np.exp(log_elementary(values, 4))
    for j in range(6):
        for k in range(5):
            sets = itertools.combinations(values[:j], k)
            assert found[j, k] == pytest.approx(sum(map(np.prod, sets)), rel=1e-12, abs=0)
    many = log_elementary(np.full(600, 1e8), 300)[-1, 300]
    binomial = gammaln(601) - 2 * gammaln(301)
    assert many == pytest.approx(300 * np.log(1e8) + binomial, rel=1e-12)


def test_eigenvectors():
    """As many as were asked for, those of tiny eigenvalues hardly ever, all if all are needed."""
    values, rng = np.array([1e-9, 1.0, 2.0, 3.0]), np.random.default_rng(0)
    drawn = Counter(tuple(sorted(_eigenvectors(values, 2, rng))) for _ in range(3000))
    probabilities = {(1, 2): 2 / 11, (1, 3): 3 / 11, (2, 3): 6 / 11}
    assert chi_square(drawn, probabilities) > 1e-3
    assert sorted(_eigenvectors(values, 4, rng)) == [0, 1, 2, 3]


def test_all_items_and_large_sets():
    z = few_items(4, 7)
    assert k_dpp(z, 4, key=KEY).tolist() == [0, 1, 2, 3]
    z = np.random.default_rng(0).normal(size=(700, 150))
    found = k_dpp(z, 140, key=KEY)
    assert len(set(found)) == 140
    assert np.array_equal(found, k_dpp(z, 140, key=KEY))
    assert not np.array_equal(found, k_dpp(z, 140, key=jax.random.key(1)))
    # more diverse than a uniform set, less than the greedy one
    logs = [
        np.linalg.slogdet(z[s] @ z[s].T)[1]
        for s in (np.arange(140), found, greedy_map(z, 140).indices)
    ]
    assert logs[0] < logs[1] < logs[2]


# ------------------------------------------------------------------ randomly pivoted Cholesky


def sequential(kernel, k):
    """The probability of every sequence of pivots, by the definition."""
    found = {}

    def go(chosen, left, probability):
        if len(chosen) == k:
            found[chosen] = probability
            return
        share = np.maximum(np.diag(left), 0) / np.trace(left)
        for i in range(len(left)):
            if i not in chosen:
                rest = left - np.outer(left[:, i], left[i]) / left[i, i]
                go((*chosen, i), rest, probability * share[i])

    go((), kernel, 1.0)
    return found


def test_pivots_of_rows():
    """Proposed in blocks of 16 and rejected: the order is that of one after the other."""
    z, rng = few_items(4, 3), np.random.default_rng(0)
    draws = [random_pivots(checked_rows(z), 2, rng).indices for _ in range(4000)]
    found = Counter(tuple(map(int, d)) for d in draws)
    assert chi_square(found, sequential(z @ z.T, 2)) > 1e-3


@pytest.mark.parametrize("block", [1, 3, 8])
def test_pivots_of_a_kernel(block):
    z, rng = few_items(4, 3), np.random.default_rng(0)
    kernel = z @ z.T

    def draw():
        return randomly_pivoted(
            lambda r, c: kernel[np.ix_(r, c)], np.diag(kernel), 2, block, 1e-16, rng
        )

    found = Counter(tuple(map(int, draw())) for _ in range(1000))
    assert chi_square(found, sequential(kernel, 2)) > 1e-3


def test_accepted():
    """A copy never, what is orthogonal always."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert accepted(np.ones((3, 3)), rng) == [0]
        assert accepted(np.diag([1.0, 2.0, 1e-8]), rng) == [0, 1, 2]
    gram = np.array([[1.0, 0.6], [0.6, 1.0]])
    share = np.mean([len(accepted(gram, rng)) - 1 for _ in range(4000)])
    assert share == pytest.approx(1 - 0.36, abs=4 * (0.36 * 0.64 / 4000) ** 0.5)


def test_kernel_of_low_rank():
    """No more pivots than the rank, in spite of the rounding of float32."""
    z = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    kernel = z @ z.T
    found = randomly_pivoted(
        lambda r, c: kernel[np.ix_(r, c)],
        np.diag(kernel).astype(np.float64),
        20,
        4,
        float(np.finfo(np.float32).eps),
        np.random.default_rng(0),
    )
    assert 5 <= len(found) <= 6
    assert len(set(found)) == len(found)


def outliers(n=400):
    """A decaying spectrum, and a few large items that have little to do with the others."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 60)) * 0.75 ** np.arange(60)
    z[:12] = 3 * np.eye(12, 60, 40)
    return z


def test_error_within_the_theorem():
    """E tr(K - Nyström) <= (1 + ε) Σ_{i>r} λ_i, which is below that of uniform landmarks, and of
    greedy ones where there are outliers."""
    z, r, epsilon = outliers(), 8, 0.5
    values = np.linalg.eigvalsh(z @ z.T)[::-1]
    tail = values[r:].sum()
    k = int(np.ceil(r / epsilon + r * np.log(values.sum() / (epsilon * tail))))
    assert k < 50
    errors, uniform = [], []
    for seed in range(30):
        found = randomly_pivoted_cholesky(z, k, key=jax.random.key(seed))
        assert len(set(found.indices)) == k
        low = z @ found.basis.T
        assert found.residual == pytest.approx(np.sum(z**2) - np.sum(low**2), rel=1e-8)
        errors.append(found.residual)
        chosen = np.random.default_rng(seed).choice(len(z), k, replace=False)
        q, _ = np.linalg.qr(z[chosen].T)
        uniform.append(np.sum(z**2) - np.sum((z @ q) ** 2))
    assert np.mean(errors) <= (1 + epsilon) * tail
    assert np.mean(errors) >= values[k:].sum()
    assert np.mean(errors) < 0.7 * np.mean(uniform)
    few = [randomly_pivoted_cholesky(z, 12, key=jax.random.key(s)).residual for s in range(30)]
    assert np.mean(few) < greedy_map(z, 12).residual


# ------------------------------------------------------------------ streamed features, bad input


def test_streamed(make_map, make_data):
    feature_map, (x, _) = make_map(), make_data(90)
    rows = FeatureRows(feature_map, x, batch_size=16)
    z = feature_map(x).ntk
    assert np.array_equal(k_dpp(rows, 8, key=KEY), k_dpp(z, 8, key=KEY))
    one, other = (randomly_pivoted_cholesky(a, 8, key=KEY).indices for a in (rows, z))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("function", [k_dpp, randomly_pivoted_cholesky])
def test_refused(function):
    z = few_items(8, 5)
    for items, k, error, message in [
        (z, 9, ValueError, "k=9 of 8 items"),
        (z, 6, ValueError, "k=6 items with 5 features each"),
        (z * np.nan, 2, ValueError, "z is not finite"),
        (z[:, :2] @ z[:2], 3, ValueError, "numerical rank 2, below k=3: .* Choose 2 at most"),
    ]:
        with pytest.raises(error, match=message):
            function(items, k, key=KEY)
    with pytest.raises(TypeError, match="key must be a key of"):
        function(z, 2, key=0)
