"""Hermite coefficients against their definition, their closed forms and NT's kernels."""

import itertools
import math

import closed_forms
import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp
from marks import others_slow
from scipy import integrate, stats

from ntk_sketch import stax
from ntk_sketch.series import derivative_coefficients, hermite_coefficients

CLOSED_FORMS = {
    "ABRelu": (closed_forms.ab_relu_coefficients, (-0.3, 0.9)),
    "Abs": (closed_forms.ab_relu_coefficients, (-1.0, 1.0)),
    "Cos": (closed_forms.cos_coefficients, (0.8, 1.1, 0.3)),
    "Erf": (closed_forms.erf_coefficients, (0.9, 1.2, 0.1)),
    "Exp": (closed_forms.exp_coefficients, (0.5, 0.4)),
    "Gabor": (closed_forms.gabor_coefficients, ()),
    "Gaussian": (closed_forms.gaussian_coefficients, (1.0, -0.5)),
    "Gelu": (closed_forms.gelu_coefficients, ()),
    "LeakyRelu": (closed_forms.ab_relu_coefficients, (0.1, 1.0)),
    "Monomial(0)": (closed_forms.monomial_coefficients, (0,)),
    "Monomial(3)": (closed_forms.monomial_coefficients, (3,)),
    "Polynomial": (closed_forms.polynomial_coefficients, ([0.3, 1.0, -0.2, 0.1],)),
    "Rbf": (closed_forms.rbf_coefficients, (0.7,)),
    "RectifiedMonomial(0)": (closed_forms.rectified_monomial_coefficients, (0,)),
    "RectifiedMonomial(2)": (closed_forms.rectified_monomial_coefficients, (2,)),
    "Relu": (closed_forms.ab_relu_coefficients, (0.0, 1.0)),
    "Sign": (closed_forms.sign_coefficients, ()),
    "Sin": (closed_forms.sin_coefficients, (1.1, 0.9, 0.2)),
}


def dual_of(name):
    return NONLINEARITIES[name]().rule.dual


def hermite(l, g):
    return np.polynomial.hermite_e.hermeval(g, np.eye(l + 1)[l]) / math.sqrt(math.factorial(l))


def naive(f, breaks=()):
    """`E[f(g)]` of a function that is smooth between `breaks`."""
    edges = sorted({-12.0, -4.0, -1.0, 0.0, 1.0, 4.0, 12.0, *(b for b in breaks if abs(b) < 12)})
    density = lambda g: f(g) * stats.norm.pdf(g)  # noqa: E731
    return sum(
        integrate.fixed_quad(density, low, high, n=100)[0]
        for low, high in itertools.pairwise(edges)
    )


def alone(name):
    """The kernels of a nonlinearity as a user would write them, without their function."""
    dual = dual_of(name)
    layer = stax.Elementwise(None, lambda *k: dual(*k)[0], lambda *k: dual(*k)[1])
    return layer.rule.dual


@pytest.mark.parametrize("derivative", [False, True])
@pytest.mark.parametrize("name", others_slow(["Erf", "Relu", "Polynomial"], "Erf", "Relu"))
def test_of_kernels_alone(name, derivative):
    """Equal products at every pair of norms, to the error that is stated. Of the polynomial
    `c_0(r) = 0.3 - 0.2 r²` changes its sign.
    """
    r = np.array([1e-3, 0.3, 1.0, 2.0, 40.0])
    found = hermite_coefficients(alone(name), r, 8, derivative=derivative)
    right = hermite_coefficients(dual_of(name), r, 8, derivative=derivative)
    scale = np.sqrt(right.second_moment)[:, None]
    values, error, right_values = found.values / scale, found.error / scale, right.values / scale
    products, right_products = (v[:, None] * v for v in (values, right_values))
    largest = np.maximum(np.abs(values), error)
    bound = largest[:, None] * error + error[:, None] * largest
    assert np.all(np.abs(products - right_products) <= bound)
    assert np.all(bound[..., :5] < 1e-7)
    if name == "Relu":  # every other one is 0, not what rounding makes of it
        assert not found.values[:, 2:][:, derivative ^ 1 :: 2].any()
    np.testing.assert_allclose(found.second_moment, right.second_moment, rtol=1e-10)


FUNCTIONS = {
    "smooth": (lambda x: np.log1p(np.exp(x)), ()),
    "kinks": (lambda x: np.clip(x, -0.3, 0.77), (-0.3, 0.77)),
    "jump": (lambda x: np.cos(x) * (x > 0.3), (0.3,)),
    "root": (lambda x: np.sign(x) * x**2 + np.minimum(x, -1.0), (-1.0,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_definition(name):
    sigma, breaks = FUNCTIONS[name]
    radii = [0.3, 1.0, 5.0]
    found = hermite_coefficients(sigma, radii, 20)
    assert found.values.shape == found.error.shape == (3, 21)
    for i, r in enumerate(radii):
        at = [b / r for b in breaks]
        second = naive(lambda g, r=r: sigma(r * g) ** 2, at)
        assert found.second_moment[i] == pytest.approx(second, rel=1e-11)
        for l in (0, 1, 2, 7, 20):
            expected = naive(lambda g, r=r, l=l: sigma(r * g) * hermite(l, g), at)
            assert abs(found.values[i, l] - expected) < 1e-12 * np.sqrt(second)
            assert found.error[i, l] < 1e-11 * np.sqrt(second)
    kept = np.sum(found.values**2, axis=1)
    np.testing.assert_allclose(found.tail, 1 - kept / found.second_moment, atol=1e-15)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms_are_the_integrals(name):
    """And the error of the quadrature is no larger than it says."""
    function, parameters = CLOSED_FORMS[name]
    radii = np.geomspace(0.1, 10, 5)
    closed = function(radii, 20, *parameters)
    found = hermite_coefficients(dual_of(name), radii, 20)
    rms = np.sqrt(found.second_moment)[:, None]
    assert np.max(np.abs(closed - found.values) / rms) < 1e-13
    assert np.all(np.abs(closed - found.values) <= found.error)
    assert np.max(found.error / rms) < 1e-12
    for degree in (0, 1):  # cut, not another series
        short = function(radii, degree, *parameters)
        np.testing.assert_allclose(short, closed[:, : degree + 1], rtol=1e-15)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms_at_extremes(name):
    """Neither overflow nor more mass than there is, at tiny and huge norms and at high degrees."""
    function, parameters = CLOSED_FORMS[name]
    values = function([1e-6, 30.0 if name == "Exp" else 1e3], 200, *parameters)
    assert np.isfinite(values).all()
    if name in ("Sin", "Cos", "Rbf", "Erf", "Sign", "Gabor", "Gaussian"):
        bound = {"Sin": 1.21, "Cos": 0.64, "Rbf": 2.0}.get(name, 1.0)  # the square of max |σ|
        assert np.sum(values**2, axis=1).max() <= bound * (1 + 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [n for n in CLOSED_FORMS if n != "Monomial(0)"] + ["Sigmoid_like"])
def test_mehler(name):
    """The series is NT's kernel at any pair of norms; the derivative's, where σ jumps too."""
    dual = dual_of(name)
    pairs = np.array([(0.5, 0.3), (1.0, 1.0), (0.7, 2.0)])
    rho = np.array([-0.8, 0.0, 0.5, 0.75])
    r, other = (pairs[:, i, None] for i in range(2))
    kernels = dual(*map(jnp.asarray, (rho * r * other, r**2, other**2)))
    powers = rho[:, None] ** np.arange(151)  # 0.8^151 is 2e-15
    for kernel, derivative in zip(kernels, (False, True), strict=True):
        c = hermite_coefficients(dual, pairs, 150, derivative=derivative)
        series = np.einsum("kl,kl,jl->kj", c.values[:, 0], c.values[:, 1], powers)
        scale = np.sqrt(np.prod(c.second_moment, axis=1))[:, None] + 1e-12
        assert np.max(np.abs(series - kernel) / scale) < 1e-10
        variance = dual(*(jnp.asarray(pairs[:, 0] ** 2),) * 3)[int(derivative)]
        if name.startswith("Rectified"):  # NT's formula is 0/0 at cosine one
            continue
        np.testing.assert_allclose(c.second_moment[:, 0], variance, rtol=1e-9, atol=1e-12)


def test_exp_normalized_has_a_series():
    """A kernel without a finite network: the closed form against NT's formula."""
    radii, rho = np.array([0.4, 3.0]), np.linspace(-1, 1, 7)
    c = closed_forms.exp_normalized_coefficients(radii, 30, 1.3, -0.8)
    expected = np.polynomial.polynomial.polyval(rho, c[0] * c[1])
    np.testing.assert_allclose(expected, 0.4 * 3 * np.exp(1.3 * (rho - 0.8)), rtol=1e-13)


@pytest.mark.parametrize("name", ["Gelu", "Erf", "Relu", "Cos", "Polynomial", "Gaussian"])
def test_derivative_of_a_continuous_function(name):
    radii = np.array([0.2, 1.0, 4.0])
    dual = dual_of(name)
    shifted = derivative_coefficients(hermite_coefficients(dual, radii, 11).values, radii)
    direct = hermite_coefficients(dual, radii, 10, derivative=True)
    np.testing.assert_allclose(shifted, direct.values, atol=1e-12, rtol=1e-12)


def test_derivative_of_a_jump():
    """`√(l+1) c_{l+1} = r c'_l + J h_l(x/r) φ(x/r)`, and `c'_l` is without the jump."""
    radii, at = np.array([0.4, 1.5]), 0.6
    c = hermite_coefficients(lambda x: np.sin(x) + 2.0 * (x > at), radii, 9).values
    rest = radii[:, None] * derivative_coefficients(c, radii)
    rest -= radii[:, None] * hermite_coefficients(np.cos, radii, 8).values
    for i, r in enumerate(radii):
        jump = [2 * hermite(l, at / r) * stats.norm.pdf(at / r) for l in range(9)]
        np.testing.assert_allclose(rest[i], jump, atol=1e-11)
    assert not hermite_coefficients(dual_of("Sign"), radii, 4, derivative=True).values.any()


def test_limits_of_small_norms():
    tiny = 1e-9
    found = hermite_coefficients(dual_of("Gelu"), tiny, 4, derivative=True).values
    np.testing.assert_allclose(found, [0.5, 0, 0, 0, 0], atol=2 * tiny)
    kink = hermite_coefficients(dual_of("Relu"), [tiny, 1.0], 4, derivative=True).values
    np.testing.assert_allclose(kink[0], kink[1], atol=1e-13)


@pytest.mark.parametrize("radius", [1e-4, 300.0, 1e4])
def test_functions_of_another_scale_than_the_norm(radius):
    """A bump near 0 is not missed, however wide the Gaussian."""
    bump = closed_forms.gaussian_coefficients(radius, 6)
    found = hermite_coefficients(lambda x: np.exp(-(x**2)), radius, 6)
    np.testing.assert_allclose(found.values, bump, atol=1e-13, rtol=1e-9)
    clipped = hermite_coefficients(lambda x: np.clip(x, -1, 1), radius, 1)
    expected = [0, radius * (1 - 2 * stats.norm.sf(1 / radius))]  # Stein: r P(|r g| < 1)
    np.testing.assert_allclose(clipped.values, expected, atol=1e-12)


def test_the_error_tells_of_a_rough_function():
    """Values of float32: the estimate covers what that costs."""
    rough = lambda x: np.sin(x.astype(np.float32)).astype(np.float64)  # noqa: E731
    found = hermite_coefficients(rough, 1.0, 8)
    wrong = np.abs(found.values - closed_forms.sin_coefficients(1.0, 8))
    assert np.all(wrong <= found.error)
    assert 1e-10 < found.error.max() < 1e-4


def test_the_precision_of_jax_does_not_matter():
    """Float64 on the host with 32-bit JAX, also while something else is traced."""
    assert not jax.config.jax_enable_x64
    dual, expected = dual_of("Erf"), CLOSED_FORMS["Erf"][0](1.3, 12, *CLOSED_FORMS["Erf"][1])
    inside = []

    @jax.jit
    def traced(x):
        inside.append(hermite_coefficients(dual, 1.3, 12).values)
        return x * jnp.asarray(inside[0])[0]

    assert traced(jnp.ones(2)).dtype == jnp.float32
    np.testing.assert_allclose(inside[0], expected, atol=1e-14)
    assert not jax.config.jax_enable_x64


def test_shapes():
    radii = np.array([[0.5, 1.0, 2.0]])
    found = hermite_coefficients(np.tanh, radii, 3)
    assert found.values.shape == (1, 3, 4)
    assert found.second_moment.shape == found.tail.shape == (1, 3)
    alone = hermite_coefficients(np.tanh, 2.0, 3)
    assert alone.values.shape == (4,)
    np.testing.assert_allclose(alone.values, found.values[0, 2], atol=1e-14)
    constant = hermite_coefficients(lambda x: np.float64(2), 1.0, 2)
    np.testing.assert_allclose(constant.values, [2, 0, 0], atol=1e-14)
    assert constant.tail < 1e-14
    zero = hermite_coefficients(np.zeros_like, 1.0, 2)
    assert not zero.values.any()
    assert zero.tail == 0


NAN = float("nan")


@pytest.mark.parametrize(
    ("sigma", "radius", "degree", "error", "message"),
    [
        (np.sin, 1.0, -1, ValueError, "degree must be an integer from 0 to 200, got -1"),
        (np.sin, 1.0, 201, ValueError, "degree must be an integer from 0 to 200"),
        (np.sin, 1.0, 2.0, TypeError, "degree must be an integer"),
        (np.sin, 0.0, 2, ValueError, "radius must be positive and finite, got 0.0"),
        (np.sin, [1.0, -2.0], 2, ValueError, "radius must be positive and finite, got -2.0"),
        (np.sin, NAN, 2, ValueError, "radius must be positive and finite, got nan"),
        (np.sin, 1j, 2, TypeError, "radius must be real"),
        (lambda x: x * 1j, 1.0, 2, TypeError, "must be real, got complex128"),
        (np.log, 1.0, 2, ValueError, "log is nan at -"),
        (np.exp, 30.0, 2, ValueError, "not converge at norm 30 .*exp is inf at"),
        (lambda x: np.exp(x**2), [0.3, 0.52], 2, ValueError, "does not converge at norm 0.52"),
        (lambda x: x[:3], 1.0, 2, ValueError, "must act elementwise"),
    ],
)
def test_refusals(sigma, radius, degree, error, message):
    with pytest.raises(error, match=message):
        hermite_coefficients(sigma, radius, degree)


def test_refusals_of_series():
    with pytest.raises(ValueError, match=r"not converged at norm 2: degree 3 leaves out 0\.463"):
        hermite_coefficients(np.sin, [0.5, 2.0], 3, max_tail=0.01)
    assert hermite_coefficients(np.sin, 0.5, 3, max_tail=0.01).tail < 0.01
    with pytest.raises(TypeError, match="pass that function itself"):
        hermite_coefficients(np.sin, 1.0, 3, derivative=True)
    kernel_alone = stax.Elementwise(None, lambda c, q, r: c, lambda c, q, r: 1.0).rule.dual
    with pytest.raises(
        ValueError, match=r"Elementwise.* has no function.* above degree 8 .*got degree 9"
    ):
        hermite_coefficients(kernel_alone, 1.0, 9)
    no_kernel = stax.Elementwise(None, lambda c, q, r: 2 * q * r - c**2, lambda c, q, r: -2 * c)
    with pytest.raises(ValueError, match=r"not positive semidefinite.* has a coefficient -1"):
        hermite_coefficients(no_kernel.rule.dual, 1.0, 3)
    negative = stax.Elementwise(None, lambda c, q, r: c - 2 * r, lambda c, q, r: 1.0)
    with pytest.raises(ValueError, match=r"not positive semidefinite: k\(x, x\) is negative"):
        hermite_coefficients(negative.rule.dual, 1.0, 3)
    pole = stax.Elementwise(None, lambda c, q, r: jnp.log(r - 1), lambda c, q, r: 0 * c)
    with pytest.raises(ValueError, match=r"is not finite at norms from 1 to 1\.41"):
        hermite_coefficients(pole.rule.dual, [1.0, 2**0.5], 3)
    with pytest.raises(ValueError, match=r"infinite from norm 0\.5 on"):
        closed_forms.gaussian_coefficients([0.1, 0.6], 3, b=1.0)
    with pytest.raises(ValueError, match="overflow float64 at norm 50"):
        closed_forms.exp_coefficients([1.0, 50.0], 3)
    with pytest.raises(ValueError, match="power must be an integer"):
        closed_forms.monomial_coefficients(1.0, 3, -1)
    with pytest.raises(ValueError, match="gamma must be 0 or more"):
        closed_forms.exp_normalized_coefficients(1.0, 3, -1.0)
