"""Dense sketches against naive loops, and the limits in which they are exact."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from naive_hadamard import naive_hadamard, naive_rows

from ntk_sketch import sketches as sk
from ntk_sketch.sketches import _hadamard


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("d", [1, 2, 32, 64, 2048])
def test_the_transform(d):
    x = np.random.default_rng(0).standard_normal((3, d))
    z = np.asarray(_hadamard.hadamard_transform(jnp.asarray(x)))
    np.testing.assert_allclose(z, x @ naive_hadamard(d), rtol=0, atol=1e-12 * d**0.5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("d", "m"), [(1, 1), (5, 3), (8, 8), (5, 11)])
def test_srht(d, m):
    sketch = sk.SRHT(d, m, key=jax.random.key(0))
    x = np.random.default_rng(0).standard_normal(d)
    expected = naive_rows(sketch.transform, x) / m**0.5
    np.testing.assert_allclose(sketch(x), expected, rtol=0, atol=1e-14)
    counts = np.bincount(np.asarray(sketch.transform.rows), minlength=len(x))
    padded = 1 << (d - 1).bit_length()
    assert counts.max() == -(-m // padded)  # without replacement, or as often as the others
    assert len(counts) <= padded


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("d1", "d2", "m"), [(5, 3, 7), (2, 7, 16), (7, 2, 13), (3, 3, 16)])
def test_tensor_srht(d1, d2, m):
    sketch = sk.TensorSRHT(d1, d2, m, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(d1), rng.standard_normal(d2)
    expected = naive_rows(sketch.first, x) * naive_rows(sketch.second, y) / m**0.5
    np.testing.assert_allclose(sketch(x, y), expected, rtol=0, atol=1e-13)
    pairs = set(zip(*np.asarray((sketch.first.rows, sketch.second.rows)), strict=True))
    assert len(pairs) == m


@pytest.mark.usefixtures("float64")
def test_all_pairs_of_rows_are_exact():
    sketch = sk.TensorSRHT(3, 7, 32, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((4, 7))
    z = sketch(x, y)
    np.testing.assert_allclose(z @ z.T, (x @ x.T) * (y @ y.T), rtol=0, atol=1e-12)


def test_pairs_broadcast():
    sketch = sk.TensorSRHT(3, 4, 8, key=jax.random.key(0))
    x, y = jnp.ones((5, 1, 3)), jnp.ones((2, 4))
    assert sketch(x, y).shape == (5, 2, 8)


def test_chunks(monkeypatch):
    """Whole chunks and a rest, as one."""
    monkeypatch.setattr(_hadamard, "_CHUNK", 16)
    x = jnp.arange(21.0).reshape(7, 3)
    for numbers in (1, 8, 16, 100):
        double = _hadamard.in_chunks(lambda v: 2 * v[:, None], x, numbers)
        np.testing.assert_array_equal(double, 2 * x[:, None])


@pytest.mark.parametrize(
    "make", [sk.GaussianSketch, sk.SRHT, lambda d, m, **k: sk.TensorSRHT(d, d, m, **k)]
)
@pytest.mark.parametrize(
    ("d", "m", "error"), [(0, 4, ValueError), (4, -1, ValueError), (2.0, 4, TypeError)]
)
def test_sizes_are_checked(make, d, m, error):
    with pytest.raises(error, match="must be a positive integer"):
        make(d, m, key=jax.random.key(0))
