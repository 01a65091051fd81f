"""Vectors rescaled to given norms, also where the formula is not defined."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.methods._norms import safe_sqrt, unit_scale, with_norm, with_small_norm

Z = np.array([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [3e-30, 4e-30]], np.float32)
NORMS = np.array([4.0, 4.0, 0.0, -1e-9, 4.0], np.float32)  # rounding may leave one below 0
SCALED = np.array([[1.2, 1.6], [0, 0], [0, 0], [0, 0], [1.2, 1.6]])


@pytest.mark.parametrize("rescale", [with_norm, lambda z, s: with_small_norm(z, s, 9 * s)])
def test_norms(rescale):
    np.testing.assert_allclose(rescale(Z, NORMS), SCALED, rtol=1e-6)
    assert np.isnan(rescale(np.full((1, 2), np.nan, np.float32), NORMS[:1])).all()


def test_derivatives_are_finite():
    """Where the result is 0 they are 0."""
    by_vector, by_norm = jax.jacobian(lambda z, s: with_norm(z, s).sum(), (0, 1))(Z, NORMS)
    zero = ~SCALED.any(axis=1)
    assert np.isfinite(by_vector).all()
    assert np.isfinite(by_norm).all()
    assert not np.any(by_vector[zero])
    assert not np.any(by_norm[zero])
    # z √(s / z·z), by s: half of it over s.
    np.testing.assert_allclose(by_norm[0], SCALED[0].sum() / 2 / 4, rtol=1e-6)


def test_a_small_norm_has_the_derivatives_of_the_vector():
    tangent = jnp.ones_like(Z)
    primals, tangents = (Z, NORMS, 100 * abs(NORMS)), (tangent, jnp.ones_like(NORMS))
    value, derivative = jax.jvp(with_small_norm, primals, (*tangents, jnp.zeros_like(NORMS)))
    np.testing.assert_allclose(value, SCALED, rtol=1e-6)
    np.testing.assert_array_equal(derivative[NORMS != 0], tangent[NORMS != 0])
    # A part that is not small: as any other vector.
    primals = (Z, NORMS, 20 * abs(NORMS))
    _, derivative = jax.jvp(with_small_norm, primals, (*tangents, jnp.zeros_like(NORMS)))
    _, expected = jax.jvp(with_norm, (Z, NORMS), tangents)
    np.testing.assert_array_equal(derivative[NORMS > 0], expected[NORMS > 0])


def test_roots():
    q = jnp.array([4.0, 0.0, -1.0])
    np.testing.assert_array_equal(safe_sqrt(q), [2, 0, 0])
    np.testing.assert_array_equal(jax.grad(lambda v: safe_sqrt(v).sum())(q), [0.25, 0, 0])
    np.testing.assert_array_equal(unit_scale(q), [0.25, 0, 0])
    assert np.isnan(safe_sqrt(jnp.array([np.nan]))).all()
