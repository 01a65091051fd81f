"""Taylor series of homogeneous duals against the kernels' formulas."""

import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp

from ntk_sketch.series import ab_relu_dual, arc_cosine_coefficients, homogeneous_dual

RHO = np.linspace(-0.8, 0.8, 9)  # 0.8^151 is 2e-15


def kappa(order, rho):
    angle = np.arccos(rho)
    if order == 0:
        return (np.pi - angle) / np.pi
    return (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi


@pytest.mark.parametrize("order", [0, 1])
def test_arc_cosine_kernels(order):
    series = np.polynomial.polynomial.polyval(RHO, arc_cosine_coefficients(order, 150))
    np.testing.assert_allclose(series, kappa(order, RHO), atol=1e-14)
    for degree in (0, 1, 2, 3):
        short = arc_cosine_coefficients(order, degree)
        np.testing.assert_array_equal(short, arc_cosine_coefficients(order, 9)[: degree + 1])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "power"),
    [("ABRelu", 1), ("Relu", 1), ("Sign", 0), ("RectifiedMonomial(2)", 2), ("Monomial(3)", 3)],
)
def test_series_of_layers(name, power):
    dual = NONLINEARITIES[name]().rule.dual
    found = homogeneous_dual(dual, 150)
    assert found.power == power
    assert (found.values >= 0).all()
    assert (found.derivative >= 0).all()
    r, other = 0.6, 1.7
    q, q_other = jnp.full(RHO.shape, r**2), jnp.full(RHO.shape, other**2)
    value, derivative = dual(jnp.asarray(RHO * r * other), q, q_other)
    series = (r * other) ** power * np.polynomial.polynomial.polyval(RHO, found.values)
    np.testing.assert_allclose(series, value, atol=1e-10)
    series = (r * other) ** (power - 1) * np.polynomial.polynomial.polyval(RHO, found.derivative)
    np.testing.assert_allclose(series, derivative, atol=1e-10)


@pytest.mark.parametrize("degree", [0, 1, 2, 17, 200])
@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (-1.0, 1.0), (0.2, 1.0), (-0.3, 0.9)])
def test_closed_form_of_rectifiers(a, b, degree):
    closed = ab_relu_dual(degree, a, b)
    found = homogeneous_dual(lambda x: a * np.minimum(x, 0) + b * np.maximum(x, 0), degree)
    np.testing.assert_allclose(closed.values, found.values, atol=1e-14)
    np.testing.assert_allclose(closed.derivative, found.derivative, atol=1e-13)
    assert closed.tail == pytest.approx(found.tail, abs=1e-14)
    assert closed.tail == pytest.approx((a**2 + b**2) / 2 - closed.values.sum(), abs=1e-14)


def test_refusals():
    with pytest.raises(ValueError, match="sin is not homogeneous"):
        homogeneous_dual(np.sin, 3)
    with pytest.raises(ValueError, match="is not homogeneous"):
        homogeneous_dual(lambda x: np.clip(x, 0, 6), 3)
    with pytest.raises(ValueError, match="order must be 0 or 1"):
        arc_cosine_coefficients(2, 3)
    with pytest.raises(ValueError, match="degree must be from 0"):
        ab_relu_dual(-1, 0, 1)
