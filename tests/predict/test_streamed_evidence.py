"""Gradients of the evidence batch by batch, against those with all features in memory."""

import equinox as eqx
import jax
import numpy as np
import pytest
from counting import compiled
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.numerics._precision import float64
from ntk_sketch.predict import log_evidence
from ntk_sketch.predict._traced_evidence import traced_log_evidence

WHOLE = 1 << 12  # a batch of all examples


def objective(make_map, x, y, *, size, weights=(1.0,), absolute=False, get="ntk", **options):
    """Of the projection of a map and of log λ, and where to take its gradient."""
    feature_map = make_map(dtype=x.dtype)

    def of(w, log_reg):
        path = jnp.exp(log_reg) * jnp.asarray([1.0, 4.0][: len(weights)], log_reg.dtype)
        found = log_evidence(
            eqx.tree_at(lambda made: made.w, feature_map, w),
            x,
            y,
            diag_reg=path,
            diag_reg_absolute_scale=absolute,
            get=get,
            batch_size=size,
            **options,
        )
        return found @ jnp.asarray(weights, found.dtype)

    return of, (feature_map.w, jnp.asarray(np.log(1e-2), x.dtype))


def gradients(*args, **options):
    of, at = objective(*args, **options)
    return jax.value_and_grad(of, argnums=(0, 1))(*at)


@pytest.mark.parametrize(
    ("get", "absolute", "weights", "outputs", "size"),
    [
        ("ntk", False, (1.0,), 3, 16),
        ("nngp", True, (1.0,), 1, 89),
        ("ntk", False, (0.3, -2.0), 2, 7),
        ("nngp", True, (0.3, -2.0), 0, 90),
    ],
)
@pytest.mark.usefixtures("float64")
def test_equal_to_those_in_memory(make_map, make_data, get, absolute, weights, outputs, size):
    """Of both kernels, both scales, a path, and a last batch of fewer examples."""
    x, y = make_data(91, np.float64)
    y = y[:, :outputs] if outputs else y[:, 0]
    options = {"weights": weights, "absolute": absolute, "get": get}
    expected = gradients(make_map, x, y, size=WHOLE, **options)
    found = gradients(make_map, x, y, size=size, **options)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max())


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_numbers_of_a_model(make_data):
    """`W_std` and `b_std` through landmarks and their roots; later steps compile nothing new."""
    x, y = make_data(70, np.float64)

    def of(numbers, size):
        w, b, log_reg = numbers
        net = stax.serial(stax.Dense(1, w, b), stax.Erf(), stax.Dense(1))
        made = ns.feature_map(net, x[:40], ns.Nystroem(12), key=jax.random.key(0))
        return log_evidence(made, x, y, diag_reg=jnp.exp(log_reg), batch_size=size)

    at = jnp.array([1.2, 0.3, -5.0])
    expected = jax.value_and_grad(of)(at, WHOLE)
    found = jax.value_and_grad(of)(at, 32)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-8)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-8)
    later = at + 0.1
    with compiled() as programs:
        jax.value_and_grad(of)(later, 32)
    assert programs.count == 0


@pytest.mark.usefixtures("float64")
def test_memory_is_that_of_a_batch(make_map, make_data):
    """Arrays that are alive while batches come, and the largest batch that a map is given: the
    same for four times as many examples."""
    rows = []

    class Watched(eqx.Module):
        inner: eqx.Module
        w: jax.Array

        def __call__(self, x):
            rows.append(len(x))
            return eqx.tree_at(lambda made: made.w, self.inner, self.w)(x)

    def largest(n):
        x, y = make_data(n, np.float64)
        made, alive = make_map(p=40, dtype=np.float64), []

        def look(count):
            alive.append(sum(array.nbytes for array in jax.live_arrays()))

        def of(w):
            watched = Watched(made, w)
            return log_evidence(watched, x, y, diag_reg=0.1, batch_size=512, progress=look)

        before = sum(array.nbytes for array in jax.live_arrays())
        jax.grad(of)(made.w)
        assert len(alive) == 2 * n // 512  # a pass for the value and one for the gradient
        return max(alive) - before

    few, many = largest(4096), largest(16384)
    batch = 512 * (40 + 6) * 8  # bytes of features and inputs: two may wait in threads, or not
    assert many <= few + 2 * batch  # features of all would be 24 batches more
    assert max(rows) == 512
    # a block of a sum is up to 2,048 examples on a CPU
    assert many < 8 * (2 * 2048 * 40 + 8 * 40**2) < 8 * 16384 * 40 / 2


def test_float32_is_decomposed_in_float64(make_map, make_data):
    """λ below float32's resolution of the largest eigenvalue, where the factor of a float32 Gram
    matrix does not exist or means nothing."""
    x, y = make_data(4000)
    x[:, 0] += 20.0  # one eigenvalue far above the others
    options = {"diag_reg": 1e-6, "get": "ntk"}

    def slope(dtype, evidence):
        made = make_map()
        w = made.w.astype(dtype)

        def of(w):
            return evidence(eqx.tree_at(lambda made: made.w, made, w), dtype)

        return np.asarray(jax.grad(of)(w))

    def streamed(made, dtype):
        return log_evidence(made, x.astype(dtype), y.astype(dtype), batch_size=512, **options)

    def in_memory(made, dtype):
        return traced_log_evidence(made, x, y, 1e-6, False, "ntk")

    found, whole = slope(np.float32, streamed), slope(np.float32, in_memory)
    with float64():
        expected = slope(np.float64, streamed)
    scale = np.abs(expected).max()
    error = np.abs(found - expected).max() / scale
    assert error < 1e-3
    assert not np.abs(whole - expected).max() / scale < 20 * error


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_other_transformations(make_map, make_data):
    """A Jacobian batch by batch; `jit`, `vmap` and second derivatives with all in memory."""
    x, y = make_data(90, np.float64)
    made = make_map(dtype=np.float64)

    def of(path, size=16):
        return log_evidence(made, x, y, diag_reg=path, get="ntk", batch_size=size)

    path = jnp.array([1e-3, 1e-2])
    expected = jax.jacrev(jax.jit(of))(path)
    np.testing.assert_allclose(jax.jacrev(of)(path), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(jax.vmap(jax.grad(of))(path), np.diag(expected), rtol=1e-8)
    found = jax.hessian(lambda d: of(d, WHOLE))(path[0])
    h = 1e-6
    slope = (jax.grad(of)(path[0] + h) - jax.grad(of)(path[0] - h)) / (2 * h)
    np.testing.assert_allclose(found, slope, rtol=1e-4)


def test_refusals(make_map, make_data):
    """Those of untraced calls."""
    x, y = make_data(90)
    with pytest.raises(ValueError, match="90 examples but 89 rows of y"):
        gradients(make_map, x, y[1:], size=16)
    with pytest.raises(ValueError, match="90 examples with 20 features have a singular kernel"):
        jax.grad(lambda d: log_evidence(make_map(), x, y, diag_reg=d, get="ntk", batch_size=16))(
            0.0
        )
    x[40] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        gradients(make_map, x, y, size=16)
