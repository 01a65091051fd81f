"""Inputs of any scale: right for homogeneous networks, a warning for others."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import NONLINEARITIES, conv
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.numerics._precision import float64

DEGREES = {
    "ABRelu": 1,
    "Abs": 1,
    "ExpNormalized": 1,
    "LeakyRelu": 1,
    "Monomial(0)": 0,
    "Monomial(2)": 2,
    "Monomial(3)": 3,
    "RectifiedMonomial(0)": 0,
    "RectifiedMonomial(1)": 1,
    "RectifiedMonomial(2)": 2,
    "Relu": 1,
    "Relu stabilised": 1,
    "Sign": 0,
}
KEY = jax.random.key(0)
METHODS = {
    "random": ns.RandomFeatures(32),
    "leverage score": ns.LeverageScore(32),
    "nystroem": ns.Nystroem(12),
    "nystroem, residual": ns.Nystroem(12, residual=0.5),
    "poly sketch": ns.PolySketch(4, 32),
    "gegenbauer": ns.Gegenbauer(4, 32),
}


def pairs(n, dtype):
    """Covariances and variances of Gaussian pairs, equal, opposite and orthogonal ones too."""
    rng = np.random.default_rng(0)
    q, r = rng.uniform(0.2, 3, (2, n))
    cosine = np.r_[1, -1, 0, rng.uniform(-1, 1, n - 3)]
    r[:2] = q[:2]
    return [np.asarray(a, dtype) for a in (cosine * np.sqrt(q * r), q, r)]


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_degree(name):
    """Said of those nonlinearities that are homogeneous, and of no other."""
    rule = NONLINEARITIES[name]().rule
    p = rule.dual.degree
    assert p == DEGREES.get(name)
    if name == "ExpNormalized":  # a kernel without a function
        return
    u = np.r_[-3.0, -0.4, 0.1, 0.7, 2.0]
    once, thrice = (
        np.asarray(rule.dual.value_and_derivative(jnp.asarray(v))[0]) for v in (u, 3 * u)
    )
    if p is not None:
        np.testing.assert_allclose(thrice, 3.0**p * once, rtol=1e-5)
    else:
        assert not any(np.allclose(thrice, 3.0**q * once, rtol=1e-3) for q in range(6))


@pytest.mark.parametrize("scale", [2.0**-50, 2.0**-20, 2.0**20, 2.0**50])
@pytest.mark.parametrize("name", DEGREES)
def test_kernels_of_homogeneous_nonlinearities(name, scale):
    """`k(s² c, s² q, s² q') = s^2p k(c, q, q')`, also where variances are of two scales."""
    dual = NONLINEARITIES[name]().rule.dual
    p = dual.degree
    if scale ** (2 * p) > 1e37 or scale ** (2 * p) < 1e-37:
        pytest.skip("no number of float32")
    c, q, r = pairs(40, np.float32)
    one = dual(c, q, r)
    same = dual(c * scale**2, q * scale**2, r * scale**2)
    mixed = dual(c * scale, q * scale**2, r)
    for (a, b, d), power in zip(
        zip(one, same, mixed, strict=True), (p, max(p - 1, 0)), strict=True
    ):
        np.testing.assert_allclose(
            b, scale ** (2 * power) * a, rtol=1e-5, atol=1e-6 * scale ** (2 * power)
        )
        np.testing.assert_allclose(d, scale**power * a, rtol=1e-5, atol=1e-6 * scale**power)


@pytest.mark.parametrize("scale", [pytest.param(2.0**-56, marks=pytest.mark.slow), 2.0**56])
@pytest.mark.parametrize("method", others_slow(METHODS, "gegenbauer"))
def test_homogeneous_networks(method, scale):
    """Features of `s x` are `s` times those of `x`, from 1e-17 to 1e17 in float32, without a
    warning.
    """
    model = stax.serial(
        conv((3,), b_std=None),
        stax.Relu(),
        stax.AvgPool((2,)),
        conv((2,), b_std=None),
        stax.LeakyRelu(0.1),
        stax.Flatten(),
        stax.Dense(3),
        stax.Abs(),
        stax.Dense(1),
    )
    x = np.random.default_rng(1).normal(size=(30, 6, 2)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, scaled = (
            ns.feature_map(model, a, METHODS[method], key=KEY)(a[:5])
            for a in (x, x * np.float32(scale))
        )
    exact = model[2](x[:5], None, ("nngp", "ntk"))
    for name in ("nngp", "ntk"):
        a, b, k = (np.asarray(getattr(z, name)) for z in (ours, scaled, exact))
        if METHODS[method].looks_at_data:  # rounding may choose other landmarks, as good ones
            a, b = (np.linalg.norm(z @ z.T - k) / np.linalg.norm(k) for z in (a, b / scale))
            assert b < 1.5 * a + 1e-3
        else:
            np.testing.assert_allclose(b / scale, a, atol=2e-3 * np.abs(a).max())


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_bias(scale):
    """The exact kernel of the same numbers in float64, with a bias of another scale."""
    model = stax.serial(
        stax.Dense(1, 1.4, 0.3), stax.Relu(), stax.Dense(1, 1.4, 0.3), stax.Relu(), stax.Dense(1)
    )
    x = (scale * np.random.default_rng(2).normal(size=(40, 3))).astype(np.float32)
    z = ns.feature_map(model, x, ns.Nystroem(40), key=KEY)(x)
    with float64():
        exact = model[2](x.astype(np.float64), None, ("nngp", "ntk"))
    for name in ("nngp", "ntk"):
        found = np.asarray(getattr(z, name), np.float64)
        error = found @ found.T - np.asarray(getattr(exact, name))
        assert np.linalg.norm(error) <= 1e-3 * np.linalg.norm(getattr(exact, name))


STANDARDISE = r"Standardise the inputs, or give float64 examples"
OTHERS = [(stax.Sin(), 300.0), (stax.Erf(), 300.0), (stax.Sigmoid_like(), 1e3), (stax.Sin(), 1e-6)]
OVERFLOWS = [(stax.Gelu(), 1e6), (stax.Gelu(), 1e10), (stax.Erf(), 1e12), (stax.Exp(), 300.0)]


def other_network(layer, scale):
    x = np.random.default_rng(2).normal(size=(30, 3)).astype(np.float32)
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1), layer, stax.Dense(1))
    return model, x, np.float32(scale) * x


@pytest.mark.parametrize("method", ["random", "nystroem"])
@pytest.mark.parametrize(("layer", "scale"), OTHERS)
def test_lost_digits(layer, scale, method):
    model, x, scaled = other_network(layer, scale)
    with pytest.warns(RuntimeWarning, match=f"in float32 at the model's output.*{STANDARDISE}"):
        ns.feature_map(model, scaled, METHODS[method], key=KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        ns.feature_map(model, x, METHODS[method], key=KEY)
        ns.feature_map(model, scaled / 10 / np.float32(scale), METHODS[method], key=KEY)


@pytest.mark.parametrize("scale", [1000.0, 1e-6])
def test_lost_digits_of_one_example(scale):
    """Beside one of zeros, which loses none."""
    model, x, _ = other_network(stax.Sin(), 1.0)
    x[7] *= np.float32(scale)
    x[3] = 0
    with pytest.warns(RuntimeWarning, match=f"in float32 at the model's output.*{STANDARDISE}"):
        ns.feature_map(model, x, METHODS["random"], key=KEY)


@pytest.mark.parametrize("method", ["random", "nystroem"])
@pytest.mark.parametrize(("layer", "scale"), OVERFLOWS)
def test_overflow(layer, scale, method):
    model, _, scaled = other_network(layer, scale)
    with pytest.raises(ValueError, match=f"overflows float32.*{STANDARDISE}"):
        ns.feature_map(model, scaled, METHODS[method], key=KEY)


def test_kernel_that_is_nan_at_a_few_positions():
    """Which two examples alone, those of largest and smallest norm, do not show."""

    def dual(c, q, r):
        return jnp.where(jnp.abs(c) > 2, jnp.nan, c)

    layer = stax.Elementwise(lambda u: u, dual, lambda c, q, r: jnp.ones_like(c))
    model = stax.serial(stax.Dense(1), layer, stax.Dense(1))
    x = np.random.default_rng(2).normal(size=(30, 3)).astype(np.float32)
    for sampling in ("leverage", "uniform"):
        with pytest.raises(ValueError, match=r"the kernel of Elementwise.* is NaN or infinite"):
            ns.feature_map(model, 3 * x, ns.Nystroem(8, sampling=sampling), key=KEY)


@pytest.mark.parametrize("degree", [-1, True, np.inf, "1"])
def test_a_degree_is_a_number(degree):
    with pytest.raises(ValueError, match="degree is a number, 0 or more"):
        stax.homogeneous(degree)
