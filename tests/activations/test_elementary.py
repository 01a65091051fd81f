"""Inverse trigonometric functions in plain arithmetic: to the last places of float32, with the
derivatives of what they replace.
"""

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp

from ntk_sketch.activations._elementary import atan2
from ntk_sketch.activations._entrywise import entrywise

EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).tiny)


# In halves of eps: a root of rounded squares 2, the sum under the quotient 1, the quotient 1, the
# polynomial and the last sum 2, and π minus that (with the rounding of π) 1.
PLACES = 3.5


def places(close, exact):
    """Relative error in eps; below the normal numbers, which may be flushed to 0, in the least."""
    assert close.dtype == np.float32
    error = np.abs(np.asarray(close, np.float64) - exact)
    return error / np.where(np.abs(exact) < TINY, TINY, EPS * np.abs(exact))


# ------------------------------------------------------------------ values


def test_atan2_in_all_directions(record_property):
    angles = np.linspace(-np.pi, np.pi, 200_003)
    rng = np.random.default_rng(0)
    radius = 10 ** rng.uniform(-15, 15, angles.shape)
    y, x = (radius * np.sin(angles)).astype(np.float32), (radius * np.cos(angles)).astype("f4")
    error = places(jax.jit(atan2)(y, x), np.arctan2(y.astype(float), x.astype(float)))
    record_property("places", float(error.max()))
    assert error.max() <= PLACES


def test_atan2_at_huge_ratios(record_property):
    """Where one side is nothing beside the other, down to quotients that underflow. The square of
    the larger side is a float32 number, and so is what it rounds off.
    """
    large, small = np.meshgrid(10 ** np.arange(-15, 19.0), 10 ** np.arange(-37, 1.0, 0.5))
    rise = np.concatenate([large, large * small]).clip(TINY)
    run = np.concatenate([large * small, large]).clip(TINY)
    worst = 0.0
    for up, right in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        y, x = (up * rise).astype(np.float32), (right * run).astype(np.float32)
        exact = np.arctan2(y.astype(float), x.astype(float))
        worst = max(worst, places(jax.jit(atan2)(y, x), exact).max())
    record_property("places", float(worst))
    assert worst <= PLACES


def test_atan2_on_the_axes():
    y = np.array([0, 0, 0, 1, -1, 1e-15, -1e18, 1, 1, -1, -1], np.float32)
    x = np.array([0, 1, -1, 0, 0, 0, 0, 1, -1, 1, -1], np.float32)
    exact = np.arctan2(y.astype(float), x.astype(float))
    assert places(atan2(jnp.asarray(y), jnp.asarray(x)), exact).max() <= 1


@pytest.mark.parametrize("name", ["arcsin", "arccos"])
def test_inverse_sine_and_cosine(name, record_property):
    """On all of [-1, 1], denser at its ends and at 0."""
    grid = np.linspace(0, 1, 50_001)
    near = 10 ** np.linspace(-7, -1, 5_001)
    x = np.concatenate([grid, near, 1 - near, [1.0]]).astype(np.float32)
    x = np.concatenate([x, -x])
    close = jax.jit(lambda x: entrywise(lambda x: [getattr(jnp, name)(x)])(x)[0])(x)
    error = places(close, getattr(np, name)(x.astype(float)))
    record_property("places", float(error.max()))
    # 1 - x, 1 + x, their product and its root are rounded: at most 5/4 eps more.
    assert error.max() <= PLACES + 1.25


# ------------------------------------------------------------------ the function around them


def twisted(x, y):
    """All three, behind a nested jit and a function with derivatives of its own."""

    @jax.custom_jvp
    def angle(x, y):
        return jnp.arctan2(x, y)

    @angle.defjvp
    def _(primals, tangents):
        return angle(*primals), 3.0 * tangents[0] - tangents[1]

    @jax.jit
    def inner(x, y):
        return angle(x, y) + jnp.arcsin(0.9 * jnp.tanh(x))

    return [inner(x, y) * y, jnp.arccos(0.9 * jnp.tanh(x * y)), jnp.exp(x)]


X = np.random.default_rng(0).normal(size=(40, 2))


def test_nested_functions_are_followed():
    x, y = X.T.astype(np.float32)
    fast, plain = jax.jit(entrywise(twisted)), jax.jit(twisted)
    assert "atan2" in plain.lower(x, y).as_text()
    for name in ("atan2", "asin", "acos"):
        assert name not in fast.lower(x, y).as_text()
    for ours, theirs in zip(fast(x, y), plain(x, y), strict=True):
        # Angles below π, each to a few places.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=16 * EPS * np.abs(y).max())


@pytest.mark.usefixtures("float64")
def test_float64_is_left_alone():
    x, y = jnp.asarray(X.T)
    fast, plain = jax.jit(entrywise(twisted)), jax.jit(twisted)
    for ours, theirs in zip(fast(x, y), plain(x, y), strict=True):
        assert ours.dtype == np.float64
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("float64")
def test_derivatives_are_those_of_the_function(dtype):
    """Custom ones too, forwards and backwards."""
    x, y = jnp.asarray(X.T, dtype)

    def total(fn):
        return lambda x, y: sum(jnp.sum(value) for value in fn(x, y))

    ours, theirs = (
        jax.jit(jax.grad(total(fn), (0, 1)))(x, y) for fn in (entrywise(twisted), twisted)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=32 * float(jnp.finfo(dtype).eps))
    tangents = jnp.cos(x), jnp.sin(y)
    ours, theirs = (
        jax.jit(lambda x, y, fn=fn: jax.jvp(fn, (x, y), tangents)[1])(x, y)
        for fn in (entrywise(twisted), twisted)
    )
    for a, b in zip(ours, theirs, strict=True):
        # Sums of two terms of either sign.
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * float(jnp.finfo(dtype).eps))


# ------------------------------------------------------------------ the duals


@pytest.mark.parametrize("name", ["Relu", "Erf", "Gelu"])
@pytest.mark.usefixtures("float64")
def test_float32_duals(name):
    rng = np.random.default_rng(1)
    q, r = 10 ** rng.uniform(-2, 1, (2, 4000)).astype(np.float32)
    cosine = np.concatenate([rng.uniform(-0.9, 0.9, 2000), 1 - 10 ** rng.uniform(-7, -1, 1000)])
    cosine = np.concatenate([cosine, -cosine[2000:]])
    c = (cosine * np.sqrt(q.astype(float) * r)).astype(np.float32)
    dual = NONLINEARITIES[name]().rule.dual
    close = [np.asarray(k, float) for k in jax.jit(dual)(c, q, r)]
    exact = jax.jit(dual)(*(jnp.asarray(a, jnp.float64) for a in (c, q, r)))
    inside = np.abs(cosine) < 0.9
    for k, truth, scale in zip(close, exact, (np.sqrt(q * r), 1.0), strict=True):
        error = np.abs(k - truth) / scale
        assert k.shape == c.shape
        # A dozen roundings, and 1 / (1 - cosine²) < 6 where angles are computed from sines.
        assert error[inside].max() < 12 * 6 * EPS
        # Near ±1 the rounding of q r - c² becomes its root; cosines within 32 eps of 1 are 1.
        assert error.max() < np.sqrt(2 * 32 * EPS)
