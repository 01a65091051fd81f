"""Gegenbauer series in any dimension."""

import math

import jax
import numpy as np
import pytest
from closed_forms import arc_cosine_coefficients
from jax import numpy as jnp
from scipy import integrate, special

from ntk_sketch.series import (
    gegenbauer_coefficients,
    gegenbauer_from_powers,
    gegenbauer_polynomials,
    hermite_coefficients,
)
from ntk_sketch.series._gegenbauer import log_harmonic_dimension

DIMENSIONS = [2, 3, 5, 64, 10_000]


def polynomial(l, d, t):
    if d == 2:
        return np.cos(l * np.arccos(t))
    index = (d - 2) / 2
    return special.eval_gegenbauer(l, index, t) / special.eval_gegenbauer(l, index, 1.0)


def harmonics(l, d):
    """Homogeneous polynomials of degree l less those of degree l - 2: a count, in integers."""
    lower = math.comb(d + l - 3, d - 1) if l >= 2 else 0
    return math.comb(d + l - 1, d - 1) - lower


@pytest.mark.parametrize("d", [2, 3, 5, 64])
def test_polynomials(d):
    t = np.linspace(-1, 1, 41)
    found = gegenbauer_polynomials(t, d, 20)
    expected = np.stack([polynomial(l, d, t) for l in range(21)], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    in_jax = jax.jit(lambda t: gegenbauer_polynomials(t, d, 20))(jnp.asarray(t, jnp.float32))
    assert in_jax.dtype == jnp.float32
    # Rounding of t, times the slope at the ends, l (l + d - 2) / (d - 1) at most.
    np.testing.assert_allclose(in_jax, expected, atol=2e-7 * 20 * 20)


@pytest.mark.parametrize("d", [*DIMENSIONS, 10**6])
def test_number_of_harmonics(d):
    expected = [math.log(harmonics(l, d)) for l in range(41)]
    np.testing.assert_allclose(log_harmonic_dimension(d, 40), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("d", [3, 5, 12])
def test_coefficients_from_their_definition(d):
    f = lambda t: np.exp(t) / (1.5 - t)  # noqa: E731
    found = gegenbauer_coefficients(f, d, 8)
    density = lambda t: (1 - t**2) ** ((d - 3) / 2)  # noqa: E731
    mass = integrate.quad(density, -1, 1)[0]
    for l in range(9):
        moment = integrate.quad(
            lambda t, l=l: f(t) * polynomial(l, d, t) * density(t), -1, 1, epsabs=1e-14
        )[0]
        value = harmonics(l, d) * moment / mass
        assert found.values[l] == pytest.approx(value, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_powers(d):
    """`t^n` is its own series; the columns are non-negative and sum to 1."""
    matrix = gegenbauer_from_powers(d, 12)
    t = np.linspace(-1, 1, 21)
    values = gegenbauer_polynomials(t, d, 12) @ matrix
    np.testing.assert_allclose(values, t[:, None] ** np.arange(13), atol=1e-14)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(0), 1, rtol=1e-14)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_quadrature_against_powers(d):
    """Errors are as estimated, in high dimensions too, where they are large for high degrees."""
    found = gegenbauer_coefficients(np.exp, d, 8)
    truth = gegenbauer_from_powers(d, 30) @ (1 / special.factorial(np.arange(31)))
    assert np.all(np.abs(found.values - truth[:9]) <= found.error)
    # Rounding of a rule of at most 256 nodes, in integrals of p_l = √α_l P_l.
    roots = np.sqrt([float(harmonics(l, d)) for l in range(9)])
    assert np.all(found.error < 256 * np.finfo(float).eps * np.e * roots)


@pytest.mark.parametrize("d", [2, 3, 40])
def test_a_kernel_with_a_singular_end(d):
    """The arc-cosine kernel of order 0 has an infinite slope at t = 1."""
    found = gegenbauer_coefficients(lambda t: 1 - np.arccos(t) / np.pi, d, 6)
    powers = arc_cosine_coefficients(0, 200)
    matrix = gegenbauer_from_powers(d, 200)
    truth = (matrix @ powers)[:7]
    # What the power series leaves out is spread over all degrees, each at most this.
    tail = 1 - powers.sum()
    assert np.all(np.abs(found.values - truth) <= found.error + tail)
    if d == 40:
        np.testing.assert_allclose(found.values, truth, atol=1e-6)


@pytest.mark.parametrize("d", [3, 100])
def test_a_dual_kernel_of_two_norms(d):
    """`f_l(r, r') = Σ_n M[l, n] c_n(r) c_n(r')` against quadrature of the kernel itself."""
    r, other, scale = 0.7, 1.9, 0.8
    c = hermite_coefficients(lambda x: np.sin(scale * x), [r, other], 40).values
    found = gegenbauer_from_powers(d, 40) @ (c[0] * c[1])

    def kernel(rho):  # E[sin(u) sin(v)]
        q, q_other, k = (scale * r) ** 2, (scale * other) ** 2, scale**2 * r * other * rho
        return np.exp(-(q + q_other) / 2) * np.sinh(k)

    expected = gegenbauer_coefficients(kernel, d, 6)
    assert np.all(np.abs(found[:7] - expected.values) <= expected.error + 1e-15)
    np.testing.assert_allclose(found.sum(), kernel(1.0), rtol=1e-12)


def test_no_overflow_in_a_million_dimensions():
    found = gegenbauer_coefficients(lambda t: 3 * t + 2, 10**6, 200)
    np.testing.assert_allclose(found.values[:2], [2, 3], rtol=1e-9)
    assert np.isfinite(found.values).all()
    assert np.isfinite(gegenbauer_from_powers(10**6, 200)).all()
    assert np.isfinite(gegenbauer_polynomials(np.array([-1.0, 0.2, 1.0]), 10**6, 200)).all()


@pytest.mark.parametrize(
    ("f", "dimension", "degree", "error", "message"),
    [
        (np.exp, 1, 3, ValueError, "dimension must be an integer of 2 or more, got 1"),
        (np.exp, 2.5, 3, TypeError, "dimension must be an integer"),
        (np.exp, 3, -1, ValueError, "degree must be an integer from 0"),
        (np.log, 3, 2, ValueError, "f is nan at -"),
        (lambda t: 1j * t, 3, 2, TypeError, "must be real"),
    ],
)
def test_refusals(f, dimension, degree, error, message):
    with pytest.raises(error, match=message):
        gegenbauer_coefficients(f, dimension, degree)
