"""The table of Hermite coefficients over the logarithm of the norm."""

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp

from ntk_sketch import stax
from ntk_sketch.activations._dual import DualActivation
from ntk_sketch.series import HermiteTable, _table, hermite_coefficients
from ntk_sketch.series._spline import LogSpline

DEGREE = 16


def scaled(dual, radii, derivative):
    found = hermite_coefficients(dual, radii, DEGREE, derivative=derivative)
    return found.values / np.sqrt(np.where(found.second_moment, found.second_moment, 1))[:, None]


@pytest.mark.parametrize(
    ("name", "derivative"),
    [("Gelu", False), ("Sin", True), ("Erf", False), ("Relu", False), ("Sign", True)],
)
def test_interpolation(name, derivative):
    dual = NONLINEARITIES[name]().rule.dual
    table = HermiteTable(dual, DEGREE, derivative=derivative, radii=(0.01, 30.0))
    radii = np.exp(np.random.default_rng(0).uniform(np.log(0.01), np.log(30), 100))
    found = jax.jit(lambda r: table(r))(jnp.asarray(radii, jnp.float32))
    assert found.dtype == jnp.float32
    assert table.error <= 1e-7
    # 1e-7 of the spline; rounding of log r and of the cell, times a slope of up to about 10.
    assert np.max(np.abs(found - scaled(dual, radii, derivative))) < 3e-6


@pytest.mark.usefixtures("float64")
def test_ends_shapes_and_gradients():
    table = HermiteTable(np.tanh, DEGREE, radii=(0.1, 10.0))
    call = jax.jit(lambda r: table(r))
    found = call(jnp.array([[0.1, 10.0], [0.0, 1e6]]))
    assert found.shape == (2, 2, DEGREE + 1)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found[0], scaled(np.tanh, np.array([0.1, 10.0]), False), atol=1e-12)
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)  # the nearest end
    step = 1e-5
    values, slope = jax.jit(jax.vmap(lambda r: jax.jvp(table, (r,), (jnp.ones_like(r),))))(
        jnp.array([1.3 - step, 1.3, 1.3 + step, 0.0])
    )
    np.testing.assert_allclose(slope[1], (values[2] - values[0]) / (2 * step), atol=1e-6)
    assert np.isfinite(slope).all()


def test_tangents_beyond_the_ends():
    """Of a cubic polynomial in log r, which the spline is."""
    u = np.linspace(0, 8, 9)
    spline = LogSpline(1.0, np.exp(8.0), u**3 + u, beyond="linear")
    found = spline(jnp.exp(jnp.array([-2.0, 3.5, 10.0])))
    np.testing.assert_allclose(found, [-2.0, 3.5**3 + 3.5, 520 + 2 * 193], rtol=1e-5)


def test_a_coarse_table_says_so():
    steep = HermiteTable(lambda x: np.sin(50 * x), 3, radii=(0.01, 1.0), tolerance=0.0)
    assert 0 < steep.error < 1e-6
    with pytest.raises(ValueError, match="least and the largest norm"):
        HermiteTable(np.sin, 3, radii=(2.0, 1.0))


def test_equal_duals_have_one_table(monkeypatch):
    """Functions alone, whose values may change, are evaluated anew."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return hermite_coefficients(*args, **kwargs)

    monkeypatch.setattr(_table, "hermite_coefficients", counted)
    one = HermiteTable(DualActivation(stax.Erf(0.7, 1.3)), 3)
    made = len(calls)
    assert made > 0
    other = HermiteTable(DualActivation(stax.Erf(0.7, 1.3)), 3)
    assert len(calls) == made
    np.testing.assert_array_equal(one.spline.coefficients, other.spline.coefficients)
    changed = HermiteTable(DualActivation(stax.Erf(0.7, 1.4)), 3)
    assert len(calls) > made
    assert not np.array_equal(one.spline.coefficients, changed.spline.coefficients)
    made = len(calls)
    HermiteTable(np.tanh, 3), HermiteTable(np.tanh, 3)
    assert len(calls) >= made + 4
