"""The dual kernels against their definition, integrals over two Gaussians."""

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp
from marks import others_slow

from ntk_sketch import stax
from ntk_sketch.activations import DualActivation

pytestmark = pytest.mark.usefixtures("float64")

# (c, q, q'): ordinary, independent, opposite; Hermite's formula is for unit variances alone.
CASES = [(0.3, 1.0, 0.5), (0.0, 0.7, 0.2), (-0.4, 0.6, 0.8)]
UNIT = [(0.3, 1.0, 1.0), (0.0, 1.0, 1.0), (-0.6, 1.0, 1.0)]
WITH_NETWORK = [name for name in NONLINEARITIES if name != "ExpNormalized"]


def dual_of(name):
    return NONLINEARITIES[name]().rule.dual


def half_line_rule(nodes=96, end=12.0):
    """Gauss-Legendre on either half of the Gaussian's line: kinks and jumps at 0 cost nothing."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = (x + 1) * end / 2, w * end / 2 * 2
    x = np.concatenate([-x[::-1], x])
    w = np.concatenate([w[::-1], w]) / 2
    return x, w * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def naive(f, c, q, r):
    """`E[f(u) f(v)]`, `u = √q g`, `v = √r (ρ g + √(1 - ρ²) h)`; h on either side of v's kink."""
    rho = c / np.sqrt(q * r)
    g, weights = half_line_rule()
    kink = -rho * g / np.sqrt(1 - rho**2)
    x, w = np.polynomial.legendre.leggauss(96)
    inner = 0.0
    for low, high in ((-12.0, kink), (kink, 12.0)):
        half = (np.asarray(high - low) / 2)[:, None]
        h = np.reshape(low, (-1, 1)) + (x + 1) * half
        density = np.exp(-(h**2) / 2) / np.sqrt(2 * np.pi)
        v = np.sqrt(r) * (rho * g[:, None] + np.sqrt(1 - rho**2) * h)
        inner = inner + np.sum(w * half * density * f(v), axis=1)
    return np.sum(weights * f(np.sqrt(q) * g) * inner)


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_kernels_are_gaussian_integrals(name):
    dual = dual_of(name)
    value = jax.jit(lambda u: dual.value_and_derivative(u)[0])
    derivative = jax.jit(lambda u: dual.value_and_derivative(u)[1])
    for case in UNIT if name == "Hermite" else CASES:
        c, q, r = (jnp.array([v]) for v in case)
        k, k_derivative = dual(c, q, r)
        # Quadrature of 96 points a panel; the tails beyond 12 deviations are below 1e-30.
        np.testing.assert_allclose(
            k[0], naive(lambda u: np.asarray(value(u)), *case), atol=1e-9, rtol=1e-9
        )
        np.testing.assert_allclose(
            k_derivative[0], naive(lambda u: np.asarray(derivative(u)), *case), atol=1e-9, rtol=1e-9
        )


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_derivative_of_the_nonlinearity(name):
    dual = dual_of(name)
    u, step = jnp.array([-1.3, -0.2, 0.4, 2.1]), 1e-6
    value, derivative = dual.value_and_derivative(u)
    up, _ = dual.value_and_derivative(u + step)
    down, _ = dual.value_and_derivative(u - step)
    assert value.shape == u.shape
    # Central differences: step² for truncation, eps / step for rounding.
    np.testing.assert_allclose(derivative, (up - down) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("name", NONLINEARITIES)
@pytest.mark.parametrize("dtype", others_slow([jnp.float32, jnp.float64], jnp.float32))
def test_finite_at_the_edges(name, dtype):
    """Zero variance, equal positions, opposite positions; and the gradient there."""
    dual = dual_of(name)
    c = jnp.array([0.0, 0.0, 0.8, -0.8, 2.0], dtype)
    q = jnp.array([0.0, 0.0, 0.8, 0.8, 4.0], dtype)
    r = jnp.array([0.0, 1.0, 0.8, 0.8, 1.0], dtype)
    k, k_derivative = jax.jit(dual)(c, q, r)
    assert k.dtype == k_derivative.dtype == dtype
    assert jnp.isfinite(k).all()
    assert jnp.isfinite(k_derivative).all()
    gradient = jax.jit(jax.grad(lambda c, q: sum(jnp.sum(k) for k in dual(c, q, r)), (0, 1)))(c, q)
    assert all(jnp.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_cosine_one_is_the_diagonal(name):
    """`k_σ(q, q, q) = E[σ(√q g)²]`, and likewise for `σ'`."""
    dual = dual_of(name)
    q = 1.0 if name == "Hermite" else 0.6
    g, weights = half_line_rule()
    value, derivative = dual.value_and_derivative(jnp.asarray(np.sqrt(q) * g))
    k, k_derivative = dual(jnp.array(q), jnp.array(q), jnp.array(q))
    # Where the formula has to be kept off cosine one the error is the square root of eps.
    tolerance = 1e-7 if "Rectified" in name or name == "Elementwise" else 1e-9
    np.testing.assert_allclose(k, np.sum(weights * value**2), rtol=tolerance)
    np.testing.assert_allclose(
        k_derivative, np.sum(weights * derivative**2), rtol=tolerance, atol=1e-12
    )


def test_no_finite_network():
    with pytest.raises(NotImplementedError, match=r"ExpNormalized\(\) has no finite network"):
        dual_of("ExpNormalized").value_and_derivative(jnp.zeros(3))


def test_repr_names_the_layer():
    assert repr(DualActivation(NONLINEARITIES["Gelu"]())) == "DualActivation(Gelu())"


@pytest.mark.parametrize("degree", [1, None])
def test_what_counts_as_the_same_vector(degree):
    """Cosines within 32 eps of one, of vectors of one norm; the angle of others is their root."""
    dual, q = DualActivation(stax.Relu(), degree=degree), 0.7
    eps = float(jnp.finfo(jnp.float64).eps)
    same, near, parallel = (
        dual(*map(jnp.asarray, ((1 - away * eps) * np.sqrt(q * r), q, r)))[1]
        for away, r in ((20, q * (1 + 10 * eps)), (64, q), (20, 2 * q))
    )
    assert same == dual(*map(jnp.asarray, (q, q, q)))[1] == 0.5
    np.testing.assert_allclose(0.5 - near, np.sqrt(2 * 64 * eps) / (2 * np.pi), rtol=0.1)
    np.testing.assert_allclose(0.5 - parallel, np.sqrt(2 * 20 * eps) / (2 * np.pi), rtol=0.2)


@pytest.mark.parametrize("degree", [None, 1])
def test_nearly_parallel_vectors_of_other_norms_are_no_copies(degree):
    """On a line many cosines are within rounding of one; equal variances tell copies."""
    eps = float(jnp.finfo(np.float32).eps)
    q, cosine = np.float32(2.0), 1 - 10 * eps
    dual = DualActivation(stax.Relu(), degree=degree)
    for factor, is_copy in ((1 + 1e-4, False), (1 - 1e-4, False), (1.0, True)):
        other = np.float32(q * factor**2)
        c = np.float32(cosine * np.sqrt(np.float64(q) * np.float64(other)))
        _, derivative = dual(*(jnp.asarray(v)[None] for v in (c, q, other)))
        angle = 0.0 if is_copy else np.arccos(np.float64(c) / np.sqrt(np.float64(q) * other))
        expected = (np.pi - angle) / (2 * np.pi)
        np.testing.assert_allclose(derivative, expected, rtol=0, atol=4e-5)
        assert is_copy or expected < 0.5 - 2e-4
