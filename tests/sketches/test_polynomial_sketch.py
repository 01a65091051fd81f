"""The tree of all powers: against loops over its nodes, at every degree, and its limits."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from marks import others_slow
from naive_hadamard import naive_hadamard, naive_rows

from ntk_sketch import sketches as sk
from ntk_sketch.sketches._power_tree import _used

KEYS = 1024


def of(transforms, i):
    return jax.tree.map(lambda leaf: leaf[i], transforms)


def naive_power(tree, leaves, l):
    """The power l of leaves (degree, d): a recursion over the nodes, in loops."""

    def transformed(start, stop):
        if stop - start == 1:
            return naive_rows(of(tree._leaves, start), leaves[start])
        place = _used(range(tree.degree + 1)).index((start, stop))
        return naive_rows(of(tree._nodes, place), node(start, stop))

    def node(start, stop):
        sizes = [2**j for j in range(8) if stop % 2**j == 0]
        last = sizes[-1] if start == 0 and sizes[-1] < stop else (stop - start) // 2
        a, b = transformed(start, stop - last), transformed(stop - last, stop)
        return a * b / tree.m**0.5

    return node(0, l)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("degree", [2, 7, 8])
def test_against_loops(degree):
    """Leaves of another length than the sketch, all different."""
    tree = sk.PowerTree(8, degree, key=jax.random.key(0), d=5)
    leaves = np.random.default_rng(0).standard_normal((degree, 5))
    powers = tree(leaves)
    for l in range(2, degree + 1):
        np.testing.assert_allclose(powers[l], naive_power(tree, leaves, l), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("d", "m"), [(3, 8), (11, 8)])
def test_degrees_one_and_two(d, m):
    """Degree 2 is its matrix on `x ⊗ x`; degree 1 is x itself where it has room, else its SRHT."""
    sketch = sk.PolynomialSketch(d, m, 2, key=jax.random.key(0))
    x = np.random.default_rng(0).standard_normal(d)
    h = naive_hadamard(1 << (d - 1).bit_length())
    signs, rows = np.asarray(sketch.tree._leaves.signs), np.asarray(sketch.tree._leaves.rows)
    one, two = ([h[i][:d] * signs[leaf] for i in rows[leaf]] for leaf in (0, 1))
    matrix = np.array([np.kron(a, b) for a, b in zip(one, two, strict=True)]) / m**0.5
    np.testing.assert_allclose(sketch(x), matrix @ np.kron(x, x), rtol=0, atol=1e-12)
    first = np.r_[x, np.zeros(m - d)] if d <= m else np.array(one) @ x / m**0.5
    np.testing.assert_allclose(sketch.powers(x)[1], first, rtol=0, atol=1e-14)
    single = sk.PolynomialSketch(d, m, 1, key=jax.random.key(0))
    np.testing.assert_allclose(np.linalg.norm(single.powers(x)[0]), 1, rtol=1e-14)
    if d <= m:
        np.testing.assert_array_equal(single(x), first)


@pytest.mark.parametrize("degree", others_slow([*range(1, 10), 11, 13, 16, 17], 1, 3, 13))
def test_every_degree(degree):
    """Real, finite, unbiased."""
    x = jax.random.normal(jax.random.key(1), (3, 20))
    x = x.at[2].add(2 * x[0])
    x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def kernel(key):
        z = sk.PolynomialSketch(20, 128, degree, key=key)(x)
        return z @ z.T

    kernels = jax.jit(jax.vmap(kernel))(jax.random.split(jax.random.key(2), KEYS))
    assert kernels.dtype == jnp.float32
    draws = np.asarray(kernels, np.float64)
    assert np.isfinite(draws).all()
    error = np.abs(draws.mean(0) - np.asarray(x @ x.T, np.float64) ** degree)
    rounding = 10 * degree * np.finfo(np.float32).eps
    assert (error <= 4 * draws.std(0) / KEYS**0.5 + rounding).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("degree", [1, 4, 7, 12])
def test_a_call_is_the_last_power(degree):
    sketch = sk.PolynomialSketch(5, 16, degree, key=jax.random.key(0))
    x = np.random.default_rng(0).standard_normal((2, 5))
    np.testing.assert_allclose(sketch(x), sketch.powers(x)[..., -1, :], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_variance_grows_linearly_with_the_degree():
    """Relative variance of squared norms over `4 l / m`: no more than its bound, and no slope."""
    m, degree, keys = 256, 16, 2048
    x = jax.random.normal(jax.random.key(1), (30,))
    x = x / jnp.linalg.norm(x)

    def squared_norms(key):
        return jnp.sum(sk.PolynomialSketch(30, m, degree, key=key).powers(x) ** 2, axis=-1)

    draws = jax.jit(jax.vmap(squared_norms))(jax.random.split(jax.random.key(2), keys))
    variance = np.asarray(draws, np.float64).var(0)
    l = np.arange(2, degree + 1)
    assert (variance[2:] <= (1 + 4 / (m - 1)) ** (l - 1) - 1).all()
    slope = np.polyfit(np.log(l - 1), np.log(variance[2:]), 1)[0]
    assert slope == pytest.approx(1, abs=0.15)
    assert variance[:2].max() < 1e-10  # exact


@pytest.mark.usefixtures("float64")
def test_all_pairs_of_rows_are_exact():
    """d² divides m: degree 2 has no variance."""
    sketch = sk.PolynomialSketch(4, 32, 2, key=jax.random.key(0))
    x = np.random.default_rng(0).standard_normal((3, 4))
    z = sketch(x)
    np.testing.assert_allclose(z @ z.T, (x @ x.T) ** 2, rtol=0, atol=1e-12)


def test_degree_zero():
    tree = sk.PowerTree(16, 0, key=jax.random.key(0))
    powers = tree(jnp.ones((3, 0, 16)))
    assert powers.shape == (3, 1, 16)
    np.testing.assert_allclose(jnp.linalg.norm(powers, axis=-1), 1, rtol=1e-6)


def test_chunks_of_a_large_batch():
    """A batch that a CPU takes in parts has the rows of a small one."""
    sketch = sk.PolynomialSketch(6, 16, 3, key=jax.random.key(0))
    n = 2**19 // (3 * 16) + 5
    x = jax.random.normal(jax.random.key(1), (n, 6))
    powers = sketch.powers(x)
    assert powers.shape == (n, 4, 16)
    close = jnp.abs(powers[jnp.array([0, n - 1])] - sketch.powers(x[jnp.array([0, n - 1])]))
    assert close.max() <= 10 * jnp.finfo(powers.dtype).eps * jnp.abs(powers).max()


@pytest.mark.parametrize(
    ("m", "degree", "error", "message"),
    [
        (16, 0, ValueError, "degree must be a positive integer"),
        (16, -2, ValueError, "degree must be a positive integer"),
        (16, 1.5, TypeError, "degree must be a positive integer"),
        (7, 8, ValueError, "m=7 is too small for degree=8.*Take m=8"),
    ],
)
def test_sizes_are_checked(m, degree, error, message):
    with pytest.raises(error, match=message):
        sk.PolynomialSketch(4, m, degree, key=jax.random.key(0))


def test_leaves_are_checked():
    with pytest.raises(ValueError, match="degree must be an integer of 0 or more"):
        sk.PowerTree(4, -1, key=jax.random.key(0))
    tree = sk.PowerTree(4, 3, key=jax.random.key(0))
    with pytest.raises(ValueError, match="one sketch for each degree"):
        tree(jnp.ones((2, 4)))
