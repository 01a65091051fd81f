"""`kernel_fn` of every elementwise layer against E[f(u) f(v)] computed from the definition.

(u, v) is the Gaussian pair at the nonlinearity; the NTK of `Dense, f, Dense` is
E[f(u) f(v)] + E[f'(u) f'(v)] E[u v].
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from marks import others_slow
from neural_tangents import stax

# The oracle's own error is far below, and what remains is float64 rounding in formulas with
# cancellation (arccos, erf, exp): some hundred eps.
RTOL = 1e-11


def normal_cdf(x):
    return scipy.special.ndtr(x)


def normal_pdf(x):
    return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def gauss_hermite(f, g, k11, k12, k22, nodes=220):
    """E[f(u) g(v)] for entire functions, by a product rule in two independent normals."""
    z, w = scipy.special.roots_hermitenorm(nodes)
    w = w / w.sum()
    u = math.sqrt(k11) * z[:, None]
    v = k12 / math.sqrt(k11) * z[:, None] + math.sqrt(k22 - k12**2 / k11) * z[None, :]
    return float(np.sum(w[:, None] * w[None, :] * f(u) * g(v)))


def polar(f, degree, k11, k12, k22):
    """E[f(u) f(v)] for f(t x) = t^degree f(x), t > 0: only the angle is left to integrate."""
    angle = math.acos(k12 / math.sqrt(k11 * k22))

    def integrand(t):
        return f(math.cos(t)) * f(math.cos(t - angle))

    kinks = sorted((base + k * math.pi / 2) % (2 * math.pi) for base in (0, angle) for k in (1, 3))
    edges = [0.0, *kinks, 2 * math.pi]
    total = sum(
        scipy.integrate.quad(integrand, a, b, epsabs=1e-14, epsrel=1e-13)[0]
        for a, b in itertools.pairwise(edges)
    )
    radial = 2**degree * math.factorial(degree)  # E[r^(2 degree)], r^2 = chi square of 2
    return radial * total / (2 * math.pi) * (k11 * k22) ** (degree / 2)


SIGMOID = 2.4020563531719796
ROOT2, ROOT_PI = math.sqrt(2), math.sqrt(math.pi)


def d_erf(x):
    return 2 / ROOT_PI * np.exp(-(x**2))


# name: (layer, f, f') of entire functions.
SMOOTH = {
    "Erf": (
        lambda: stax.Erf(1.3, 0.7, 0.2),
        lambda x: 1.3 * scipy.special.erf(0.7 * x) + 0.2,
        lambda x: 1.3 * 0.7 * d_erf(0.7 * x),
    ),
    "Sigmoid_like": (
        stax.Sigmoid_like,
        lambda x: (scipy.special.erf(x / SIGMOID) + 1) / 2,
        lambda x: d_erf(x / SIGMOID) / SIGMOID / 2,
    ),
    "Gelu": (
        stax.Gelu,
        lambda x: x * normal_cdf(x),
        lambda x: normal_cdf(x) + x * normal_pdf(x),
    ),
    "Gabor": (
        stax.Gabor,
        lambda x: np.exp(-(x**2)) * np.sin(x),
        lambda x: np.exp(-(x**2)) * (np.cos(x) - 2 * x * np.sin(x)),
    ),
    "Gaussian": (
        lambda: stax.Gaussian(1.2, -0.6),
        lambda x: 1.2 * np.exp(-0.6 * x**2),
        lambda x: -1.2 * 1.2 * x * np.exp(-0.6 * x**2),
    ),
    "Exp": (
        lambda: stax.Exp(0.8, 0.6),
        lambda x: 0.8 * np.exp(0.6 * x),
        lambda x: 0.48 * np.exp(0.6 * x),
    ),
    "Sin": (
        lambda: stax.Sin(1.2, 0.9, 0.3),
        lambda x: 1.2 * np.sin(0.9 * x + 0.3),
        lambda x: 1.08 * np.cos(0.9 * x + 0.3),
    ),
    "Cos": (
        lambda: stax.Cos(1.2, 0.9, 0.3),
        lambda x: 1.2 * np.cos(0.9 * x + 0.3),
        lambda x: -1.08 * np.sin(0.9 * x + 0.3),
    ),
    "Rbf": (
        lambda: stax.Rbf(0.7),
        lambda x: ROOT2 * np.sin(math.sqrt(1.4) * x + math.pi / 4),
        lambda x: ROOT2 * math.sqrt(1.4) * np.cos(math.sqrt(1.4) * x + math.pi / 4),
    ),
    "Monomial": (lambda: stax.Monomial(3), lambda x: x**3, lambda x: 3 * x**2),
    "Polynomial": (
        lambda: stax.Polynomial([0.3, -1.0, 0.5, 0.2]),
        lambda x: 0.3 - x + 0.5 * x**2 + 0.2 * x**3,
        lambda x: -1 + x + 0.6 * x**2,
    ),
    "Elementwise": (
        # Only the kernel is given: the derivative kernel comes from its derivative.
        lambda: stax.Elementwise(jnp.sin, lambda c, q1, q2: jnp.exp(-(q1 + q2) / 2) * jnp.sinh(c)),
        np.sin,
        np.cos,
    ),
    "ElementwiseNumerical": (
        lambda: stax.ElementwiseNumerical(jnp.sin, deg=40),
        np.sin,
        np.cos,
    ),
}

# name: (layer, f, f', degree of homogeneity). A jump contributes nothing to the NTK.
HOMOGENEOUS = {
    "Relu": (stax.Relu, lambda x: max(x, 0), lambda x: float(x > 0), 1),
    "Relu-stable": (lambda: stax.Relu(True), lambda x: max(x, 0), lambda x: float(x > 0), 1),
    "LeakyRelu": (
        lambda: stax.LeakyRelu(0.2),
        lambda x: max(x, 0) + 0.2 * min(x, 0),
        lambda x: 1.0 if x > 0 else 0.2,
        1,
    ),
    "ABRelu": (
        lambda: stax.ABRelu(-0.4, 1.3),
        lambda x: 1.3 * max(x, 0) - 0.4 * min(x, 0),
        lambda x: 1.3 if x > 0 else -0.4,
        1,
    ),
    "Abs": (stax.Abs, abs, np.sign, 1),
    "Sign": (stax.Sign, np.sign, lambda x: 0.0, 0),
    "RectifiedMonomial": (
        lambda: stax.RectifiedMonomial(2),
        lambda x: max(x, 0) ** 2,
        lambda x: 2 * max(x, 0),
        2,
    ),
}

X1 = np.array([[0.9, -0.4, 0.3], [0.2, 1.1, -0.7], [1.3, 0.5, 0.8]])
X2 = np.array([[-0.6, 0.7, 0.4], [0.8, 0.1, -1.2]])
W_STD, B_STD = 1.1, 0.3


def covariances():
    def inner(a, b):
        return W_STD**2 * a @ b.T / 3 + B_STD**2

    return np.diag(inner(X1, X1)), inner(X1, X2), np.diag(inner(X2, X2))


def expectation(rule):
    q1, c, q2 = covariances()
    return np.array([[rule(q1[i], c[i, j], q2[j]) for j in range(2)] for i in range(3)])


def kernels(layer):
    _, _, kernel_fn = stax.serial(stax.Dense(1, W_STD, B_STD), layer, stax.Dense(1))
    return kernel_fn(X1, X2, ("nngp", "ntk"))


@pytest.mark.parametrize("name", others_slow(SMOOTH, *list(SMOOTH)[:5]))
def test_smooth(name):
    make, f, df = SMOOTH[name]
    nngp = expectation(lambda *k: gauss_hermite(f, f, *k))
    dnngp = expectation(lambda *k: gauss_hermite(df, df, *k))
    got = kernels(make())
    np.testing.assert_allclose(got.nngp, nngp, rtol=RTOL)
    np.testing.assert_allclose(got.ntk, nngp + dnngp * covariances()[1], rtol=RTOL)


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_homogeneous(name):
    make, f, df, degree = HOMOGENEOUS[name]
    nngp = expectation(lambda *k: polar(f, degree, *k))
    dnngp = expectation(lambda *k: polar(df, max(degree - 1, 0), *k))
    got = kernels(make())
    # An integral that cancels to 0 is accurate to its terms, which are of order 1.
    np.testing.assert_allclose(got.nngp, nngp, rtol=RTOL, atol=1e-13)
    np.testing.assert_allclose(got.ntk, nngp + dnngp * covariances()[1], rtol=RTOL, atol=1e-13)


@pytest.mark.parametrize("name", SMOOTH | HOMOGENEOUS)
def test_finite_layer(name):
    """`apply_fn` is the function whose kernel it is."""
    make, f = (SMOOTH | HOMOGENEOUS)[name][:2]
    x = np.linspace(-2, 2, 40)
    _, apply_fn, _ = make()
    np.testing.assert_allclose(apply_fn((), x), [f(t) for t in x], rtol=RTOL, atol=1e-13)


def test_relu_is_the_arc_cosine_kernel():
    """Cho & Saul (2009), eq. 6, halved: E[relu(u) relu(v)] and E[step(u) step(v)]."""
    q1, c, q2 = covariances()
    norms = np.sqrt(np.outer(q1, q2))
    angle = np.arccos(c / norms)
    k1 = norms * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    k0 = (np.pi - angle) / (2 * np.pi)
    got = kernels(stax.Relu())
    np.testing.assert_allclose(got.nngp, k1, rtol=RTOL)
    np.testing.assert_allclose(got.ntk, k1 + c * k0, rtol=RTOL)


@pytest.mark.parametrize("degree", range(5))
def test_hermite(degree):
    """Normalised Hermite polynomials: E[h(u) h(v)] = c^degree for unit variances."""
    x = X1 / np.linalg.norm(X1, axis=1, keepdims=True) * math.sqrt(3)
    cosine = x @ x.T / 3
    layer = stax.serial(stax.Dense(1), stax.Hermite(degree), stax.Dense(1))
    with pytest.warns(UserWarning, match="unit norm"):
        got = layer[2](x, None, ("nngp", "ntk"))
    slope = degree * cosine ** max(degree - 1, 0)
    np.testing.assert_allclose(got.nngp, cosine**degree, rtol=RTOL)
    np.testing.assert_allclose(got.ntk, cosine**degree + slope * cosine, rtol=RTOL)
    u, w = scipy.special.roots_hermitenorm(20)
    h = np.asarray(stax.Hermite(degree)[1]((), u))
    np.testing.assert_allclose(w @ h**2 / w.sum(), 1, rtol=RTOL)


def test_exp_normalized():
    """A kernel without a network: |u| |v| exp(gamma (cosine + shift))."""
    q1, c, q2 = covariances()
    norms = np.sqrt(np.outer(q1, q2))
    nngp = norms * np.exp(0.9 * (c / norms - 0.8))
    got = kernels(stax.ExpNormalized(gamma=0.9, shift=-0.8))
    np.testing.assert_allclose(got.nngp, nngp, rtol=RTOL)
    np.testing.assert_allclose(got.ntk, nngp + 0.9 * nngp / norms * c, rtol=RTOL)


def test_approximate_gelu():
    """The kernel is that of the exact function, the finite layer is the tanh form."""
    np.testing.assert_array_equal(kernels(stax.Gelu(True)).ntk, kernels(stax.Gelu()).ntk)
    x = jnp.linspace(-3, 3, 20)
    expected = 0.5 * x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(stax.Gelu(True)[1]((), x), expected, rtol=RTOL)


def test_kernel_is_differentiable():
    """Against central differences: error h^2 f'''/6 + eps/h, about 1e-10 at h = 1e-5."""
    kernel_fn = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))[2]

    def entry(x):
        return kernel_fn(x, X2, "ntk")[1, 0]

    step, direction = 1e-5, np.array([[0, 0, 0], [0.3, -0.5, 0.8], [0, 0, 0]])
    slope = (entry(X1 + step * direction) - entry(X1 - step * direction)) / (2 * step)
    _, tangent = jax.jvp(entry, (jnp.asarray(X1),), (jnp.asarray(direction),))
    np.testing.assert_allclose(tangent, slope, rtol=1e-8)
