"""`PolySketch` and `Gegenbauer`: unbiased for their series, at every norm and degree."""

import functools

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from entering import entering
from jax import numpy as jnp
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.features import HiddenFeatures
from ntk_sketch.methods._harmonics import (
    Directions,
    HarmonicFeatures,
    _most_energetic,
    harmonic_features,
)
from ntk_sketch.methods._poly_sketch import Powers
from ntk_sketch.series import (
    gegenbauer_from_powers,
    gegenbauer_polynomials,
    hermite_coefficients,
    input_series,
)
from ntk_sketch.sketches import PowerTree

pytestmark = pytest.mark.usefixtures("float64")
KEYS = 1024
NORMS = np.array([0.5, 1.0, 1.0, 2.0])


def inputs(d=4, n=4):
    """Of root mean squares from 0.5 to 2."""
    x = np.random.default_rng(2).standard_normal((n, d))
    x *= (NORMS[:n] / np.sqrt(np.mean(x**2, axis=1)))[:, None]
    return jnp.asarray(x)


def kernels_over_keys(model, x, method, keys=KEYS):
    """K and Θ of independent maps: arrays (keys, n, n)."""

    def one(key):
        return ns.feature_map(model, x, method, key=key).kernel_fn(x)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), keys))


def deviations(draws, truth):
    """In standard errors of the mean."""
    draws = np.asarray(draws)
    error = np.abs(draws.mean(0) - truth)
    return (error / np.maximum(draws.std(0, ddof=1) / np.sqrt(len(draws)), 1e-12)).max()


def truncated(dual, x, degree, weight, bias):
    """K and Θ of Dense, nonlinearity, Dense(1) by series up to a degree, from the definition.

    What a series leaves out of its diagonal goes with its last power.
    """
    covariance = weight**2 * np.asarray(x @ x.T) / x.shape[1] + bias**2
    radius = np.sqrt(np.diag(covariance))
    rho = covariance / np.outer(radius, radius)
    kernels = []
    for derivative in (False, True):
        found = hermite_coefficients(dual, radius, degree, derivative=derivative)
        kernel = sum(np.outer(c, c) * rho**l for l, c in enumerate(found.values.T))
        left = np.sqrt(np.maximum(found.second_moment - np.sum(found.values**2, axis=1), 0))
        kernels.append(kernel + np.outer(left, left) * rho**degree)
    k, k_derivative = kernels
    return k, k + k_derivative * covariance


LAYERWISE = [
    pytest.param(method, name, degree, marks=() if name in kept else pytest.mark.slow)
    for method, kept in (("poly", ("Relu", "Polynomial")), ("gegenbauer", ("Gelu", "Sign")))
    for name, degree in (("Relu", 4), ("Gelu", 5), ("Polynomial", 3), ("Sign", 3))
]


@pytest.mark.parametrize(("method", "name", "degree"), LAYERWISE)
def test_unbiased_for_the_series(method, name, degree, record_property):
    layer, x = NONLINEARITIES[name](), inputs()
    model = stax.serial(stax.Dense(5, 0.9, 0.2), layer, stax.Dense(1))
    make = ns.PolySketch if method == "poly" else ns.Gegenbauer
    kernels = kernels_over_keys(model, x, make(degree, 16, normalize=False, radii=(0.1, 10.0)))
    truth = truncated(layer.rule.dual, x, degree, 0.9, 0.2)
    if name == "Polynomial":  # of degree 3: nothing is truncated
        exact = model[2](x, None, ("nngp", "ntk"))
        np.testing.assert_allclose(truth[0], exact.nngp, rtol=1e-6)
        np.testing.assert_allclose(truth[1], exact.ntk, rtol=1e-6)
    for kind, expected in zip(("nngp", "ntk"), truth, strict=True):
        found = deviations(getattr(kernels, kind), expected)
        record_property(kind, float(found))
        assert found < 4


@pytest.mark.parametrize(("d", "leaves"), [pytest.param(16, 16, marks=pytest.mark.slow), (20, 21)])
def test_poly_sketch_of_vectors_longer_than_its_width(d, leaves):
    """With a bias: one coordinate more than a power of two, which leaves do not have, or not."""
    layer, x = stax.Relu(), inputs(d)
    model = stax.serial(stax.Dense(5, 0.9, 0.7), layer, stax.Dense(1))
    method = ns.PolySketch(5, 16, normalize=False)
    feature_map = ns.feature_map(model, x, method, key=jax.random.key(0))
    values = jax.tree.leaves(feature_map, is_leaf=lambda value: isinstance(value, PowerTree))
    assert [value.d for value in values if isinstance(value, PowerTree)] == [leaves]
    kernels = kernels_over_keys(model, x, method)
    for kind, expected in zip(
        ("nngp", "ntk"), truncated(layer.rule.dual, x, 5, 0.9, 0.7), strict=True
    ):
        assert deviations(getattr(kernels, kind), expected) < 4


def powers_of(model, x, degree):
    [(_, features)] = entering(model, x)
    return Powers.draw(features, 8, degree, "full", jax.random.key(0)), features


def test_the_first_power_is_a_projection():
    """Not the vector itself padded with zeros, which would leave products with ψ few numbers."""
    x = inputs()
    powers, features = powers_of(stax.serial(stax.Dense(1), stax.Relu()), x, 3)
    radius = jnp.linalg.norm(x, axis=1) / 2
    found, _ = powers(features, None, radius)
    np.testing.assert_allclose(found[:, 1], x / 2 @ powers.w / radius[:, None], rtol=1e-12)


def test_a_bias_is_spread_over_the_leaves():
    """With signs of its own in each, and the norm that it has."""
    x = inputs(16)
    powers, features = powers_of(stax.serial(stax.Dense(1, 0.9, 0.7), stax.Relu()), x, 3)
    leaves = powers._leaves(features.nngp_vectors())
    assert leaves.shape == (4, 3, 16)
    bias = leaves - 0.9 * x[:, None] / 4
    np.testing.assert_allclose(np.abs(bias), 0.7 / 4, rtol=1e-12)
    assert len(np.unique(np.sign(bias[0]), axis=0)) == 3


def test_leaves_behind_a_convolution_are_independent():
    model = stax.serial(stax.Conv(1, (2,)), stax.Relu())
    powers, _ = powers_of(model, np.random.default_rng(0).normal(size=(3, 5, 2)), 3)
    assert len(np.unique(np.split(powers.w, 3, axis=1), axis=0)) == 3


@pytest.mark.slow
def test_unbiased_behind_a_convolution():
    layer = NONLINEARITIES["Polynomial"]()
    model = stax.serial(
        stax.Conv(4, (2, 2), W_std=0.8, b_std=0.2, padding="SAME"),
        layer,
        stax.AvgPool((2, 1)),
        stax.Flatten(),
        stax.Dense(1),
    )
    x = 0.7 * jax.random.normal(jax.random.key(1), (3, 3, 2, 2))
    truth = model[2](x, None, ("nngp", "ntk"))
    for make in (ns.PolySketch, ns.Gegenbauer):
        kernels = kernels_over_keys(model, x, make(3, 16, normalize=False, radii=(0.05, 10.0)))
        for kind in ("nngp", "ntk"):
            assert deviations(getattr(kernels, kind), np.asarray(getattr(truth, kind))) < 4


@pytest.mark.parametrize("degree", others_slow([1, 2, 3, 7, 8, 17], 2))
def test_every_degree(degree):
    """Odd and even ones, powers of two or not: real, finite, with the exact diagonal."""
    model = stax.serial(stax.Dense(5, 1.1, 0.2), stax.Relu(), stax.Dense(1))
    x = inputs()
    exact = np.diag(model[2](x, None, "ntk"))
    for method in (ns.PolySketch(degree, 32), ns.PolySketch(degree, 32, scope="network")):
        z = ns.feature_map(model, x, method, key=jax.random.key(0))(x).ntk
        assert z.dtype == jnp.float64
        np.testing.assert_allclose(np.sum(z**2, axis=1), exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "scope"),
    [
        pytest.param(ns.PolySketch, "layer", marks=pytest.mark.slow),
        pytest.param(ns.Gegenbauer, "network", marks=pytest.mark.slow),
        pytest.param(ns.PolySketch, "network", marks=pytest.mark.slow),
        pytest.param(ns.Gegenbauer, "layer", marks=pytest.mark.slow),
    ],
)
def test_error_falls_with_the_width(make, scope):
    layers = [stax.Dense(1, 1.3, 0.2), stax.Gelu()] * 2
    model = stax.serial(*layers, stax.Dense(1))
    x = jax.random.normal(jax.random.key(3), (12, 6))
    exact = np.asarray(model[2](x, None, "ntk"))
    errors = []
    for width in (16, 256):
        found = [
            ns.feature_map(
                model, x, make(10, width, scope=scope), key=jax.random.key(k), get="ntk"
            ).kernel_fn(x, None, "ntk")
            for k in range(2)
        ]
        errors.append(np.mean([np.linalg.norm(k - exact) for k in found]) / np.linalg.norm(exact))
    assert errors[1] < errors[0] / 2.5  # √16 is 4
    assert errors[1] < 0.3


def test_poly_sketch_of_a_network_is_unbiased():
    """Against the series of the whole kernel, of which the last power stands for the rest."""
    layers = [stax.Dense(1, 1.2, 0.3), stax.Relu()] * 2
    model, x, degree = stax.serial(*layers, stax.Dense(1)), inputs(), 5
    method = ns.PolySketch(degree, 16, scope="network", normalize=False)
    kernels = kernels_over_keys(model, x, method)
    norms = np.sqrt(np.mean(np.asarray(x) ** 2, axis=1))
    series = model.rule.series(input_series(norms, 64, ntk=True, channels=x.shape[1]))
    rho = np.asarray(x @ x.T) / x.shape[1] / np.outer(norms, norms)
    for (coefficients, _), kind in zip(series.kernels(), ("nngp", "ntk"), strict=True):
        powers = rho[..., None] ** np.minimum(np.arange(65), degree)
        expected = np.sum(coefficients * powers, axis=-1)
        assert deviations(getattr(kernels, kind), expected) < 4


def sphere(n, d):
    x = np.random.default_rng(0).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_networks_of_low_degree_are_exact(d):
    """All harmonics up to the degree of a polynomial net fit in: the kernel, at every norm."""
    act = stax.Polynomial([0.3, 1.0, -0.2, 0.1])
    model = stax.serial(stax.Dense(4, 0.9, 0.2), act, stax.Dense(1, 1.1, 0.1))
    x = 1.5 * jax.random.normal(jax.random.key(1), (20, d))
    exact = model[2](x, None, ("nngp", "ntk"))
    feature_map = ns.feature_map(
        model, x, ns.Gegenbauer(3, 200, scope="network"), key=jax.random.key(0)
    )
    close = feature_map.kernel_fn(x)
    for kind in ("nngp", "ntk"):
        truth = np.asarray(getattr(exact, kind))
        error = np.linalg.norm(getattr(close, kind) - truth) / np.linalg.norm(truth)
        assert error < 1e-5  # components of less than 1e-8 of the energy are left out
    assert feature_map(x).ntk.shape[1] <= 200


@pytest.mark.slow
def test_sampled_harmonics_are_unbiased():
    """What exact degrees leave, over keys, with and without an exact part."""
    model = stax.serial(stax.Dense(1, 2**0.5), stax.Relu(), stax.Dense(1))
    x, degree = jnp.asarray(sphere(4, 5)), 6
    grid = np.geomspace(0.3, 0.6, 13)
    series = model.rule.series(input_series(grid, 64, ntk=True, channels=5))
    features = HiddenFeatures(nngp=(x * 5**-0.5,), ntk=())
    matrix = gegenbauer_from_powers(5, 64)[: degree + 1]
    one = model.rule.series(input_series(np.array([5**-0.5]), 64, ntk=True, channels=5))
    expected = gegenbauer_polynomials(np.asarray(x @ x.T), 5, degree) @ (matrix @ one.ntk[0, 0])
    for width in (1, 30):
        method = ns.Gegenbauer(degree, width, scope="network", normalize=False)
        draws = []
        for key in jax.random.split(jax.random.key(width), 150):
            kernel = (series.ntk, series.ntk_variances)
            part = harmonic_features(method, kernel, (0.3, 0.6), features, key)
            z = part(features)
            assert z.shape == (4, width)
            draws.append(z @ z.T)
        assert bool(part.exact) == (width == 30)
        assert deviations(np.stack(draws), expected) < 4


@pytest.mark.slow
def test_harmonics_beat_arc_cosine_features_on_the_sphere():
    """Kernel of one hidden ReLU layer on S⁹, at equal width and half as many features."""
    model = stax.serial(stax.Dense(1, 2**0.5), stax.Relu(), stax.Dense(1))
    x = jnp.asarray(sphere(100, 10))
    exact = np.asarray(model[2](x, None, "ntk"))
    errors = {}
    for method in (ns.Gegenbauer(12, 1024, scope="network"), ns.RandomFeatures(1024)):
        feature_map = ns.feature_map(model, x, method, key=jax.random.key(0), get="ntk")
        close = feature_map.kernel_fn(x, None, "ntk")
        errors[type(method)] = np.linalg.norm(close - exact) / np.linalg.norm(exact)
    assert errors[ns.Gegenbauer] < errors[ns.RandomFeatures] / 2


def test_what_is_exact_is_what_pays():
    energy = np.array([[0.5, 0.1], [0.3, 0.0], [0.05, 0.0]])
    sizes = np.array([1.0, 10.0, 100.0])
    chosen, left = _most_energetic(energy, sizes, 40)
    assert chosen == [(0, 0), (0, 1), (1, 0)]
    assert left == 28
    assert _most_energetic(energy, sizes, 4) == ([(0, 0), (0, 1)], 2)
    energy[1, 0] = 0.4  # nothing left after it, but for what the degree leaves out
    energy[2, 0] = 0
    assert _most_energetic(energy, sizes, 40) == ([(0, 0), (0, 1), (1, 0)], 0)
    assert _most_energetic(energy, sizes, 12) == ([(0, 0), (0, 1), (1, 0)], 0)  # all are used


def test_what_is_exact_is_not_sampled():
    """Of each component alone: there are several of a degree where σ is not homogeneous."""
    method = ns.Gegenbauer(6, 40, scope="network")
    key = jax.random.key(0)
    made = ns.feature_map(net(stax.Gelu()), inputs(3), method, key=key, get="nngp")
    leaves = jax.tree.leaves(made, is_leaf=lambda value: isinstance(value, HarmonicFeatures))
    for part in [leaf for leaf in leaves if isinstance(leaf, HarmonicFeatures)]:
        assert any(i for _, i in part.exact)
        exact = np.all(np.asarray(part.sampled.signs) == 0, axis=-1)
        assert set(map(tuple, np.argwhere(exact))) == set(part.exact)


@pytest.mark.parametrize("d", [2, 3])
def test_directions_on_a_sphere_of_more_dimensions(d):
    """Vectors of two numbers are on the sphere of three: directions lose their last coordinate."""
    features = HiddenFeatures(nngp=(inputs(d),), ntk=())
    drawn = Directions.draw(features, 3, "full", jax.random.key(0))
    assert drawn.dimension == 3
    np.testing.assert_allclose(drawn.w @ drawn.w.T, np.eye(d), atol=1e-9)


@pytest.mark.parametrize("make", [ns.PolySketch, ns.Gegenbauer])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"degree": -1}, ValueError, "degree must be a positive integer, got -1"),
        ({"degree": 0}, ValueError, "degree must be a positive integer"),
        ({"degree": 2.5}, TypeError, "degree must be a positive integer"),
        ({"degree": 201}, ValueError, "degree must be an integer from 0 to 200"),
        ({"width": 0}, ValueError, "width must be a positive integer"),
        ({"scope": "net"}, ValueError, "scope must be one of layer, network, got 'net'"),
        ({"scope": "network", "width": (4, 4)}, ValueError, "give one integer"),
        ({"radii": (2.0, 1.0)}, ValueError, "least and the largest norm"),
        ({"max_tail": -0.1}, ValueError, "max_tail is a share"),
    ],
)
def test_bad_settings(make, arguments, error, message):
    with pytest.raises(error, match=message):
        make(**({"degree": 3, "width": 8} | arguments))


def net(layer):
    return stax.serial(stax.Dense(4), layer, stax.Dense(1))


@pytest.mark.parametrize("make", [ns.PolySketch, ns.Gegenbauer])
def test_bad_cases(make):
    x = inputs()
    build = functools.partial(ns.feature_map, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"of Exp\(\) does not converge at norm \d+"):
        build(net(stax.Exp()), x, make(4, 8))
    build(net(stax.Exp()), x, make(4, 8, radii=(0.01, 3.0)))
    with pytest.raises(ValueError, match=r"not converged at norm .*leaves out 0\.\d+ of its mass"):
        build(net(stax.Gaussian()), x, make(4, 8, radii=(0.1, 10), max_tail=0.01))
    kernel_alone = stax.Elementwise(None, lambda c, q, r: c, lambda c, q, r: 1.0)
    with pytest.raises(ValueError, match="lost in their rounding; got degree 9"):
        build(net(kernel_alone), x, make(9, 8))
    network = make(4, 8, scope="network")
    strict = functools.partial(make, 4, 8, scope="network", max_tail=0.01)
    with pytest.raises(ValueError, match=r"network has not converged at norm .*leaves out 0\.\d+"):
        build(net(stax.Gaussian()), x, strict(radii=(0.1, 10)))
    build(net(stax.Gaussian()), x, strict(radii=(0.1, 0.2)))
    with pytest.raises(ValueError, match=r"takes inputs \(n, d\)"):
        build(stax.serial(stax.Conv(1, (1,)), stax.Relu()), x[:, None], network)
    with pytest.raises(NotImplementedError, match="no power series"):
        build(stax.serial(net(stax.Relu()), stax.Dropout(0.5)), x, network)
    with pytest.raises(ValueError, match="all example inputs are 0"):
        build(net(stax.Relu()), 0 * x, network)
    with pytest.raises(ValueError, match="expands a whole model at once"):
        stax.with_method(stax.Relu(), network)


@pytest.mark.parametrize("make", [ns.PolySketch, ns.Gegenbauer])
def test_a_polynomial_leaves_nothing_out(make):
    """The kernels of a cubic nonlinearity have degree 3: that is the one that is needed."""
    exactly = {"width": 8, "scope": "network", "max_tail": 1e-9}
    model, key = net(stax.Monomial(3)), jax.random.key(0)
    ns.feature_map(model, inputs(), make(3, **exactly), key=key)
    with pytest.raises(ValueError, match=r"degree 2 leaves out 0\.\d+ of the kernel"):
        ns.feature_map(model, inputs(), make(2, **exactly), key=key)


def test_a_tree_needs_width():
    with pytest.raises(ValueError, match=r"m=4 is too small for degree=9"):
        ns.feature_map(net(stax.Relu()), inputs(), ns.PolySketch(9, 4), key=jax.random.key(0))


@pytest.mark.parametrize(
    "make", [ns.PolySketch, pytest.param(ns.Gegenbauer, marks=pytest.mark.slow)]
)
def test_networks_without_examples_and_zero_inputs(make):
    """From the shape alone; a zero input, and norms beyond the table, are finite."""
    model = net(stax.Relu())
    shape = jax.ShapeDtypeStruct((4, 6), jnp.float64)
    for method in (make(4, 16, scope="network"), make(4, 16)):
        feature_map = ns.feature_map(model, shape, method, key=jax.random.key(0))
        x = jnp.stack([jnp.zeros(6), 1e4 * jnp.ones(6), jnp.arange(6.0)])
        z = feature_map(x)
        exact = np.diag(model[2](x, None, "ntk"))
        np.testing.assert_allclose(np.sum(z.ntk**2, axis=1), exact, rtol=1e-5, atol=1e-10)
        slope = jax.grad(lambda x, f=feature_map: jnp.sum(f(x).ntk ** 3))(x)
        assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    "make", [pytest.param(ns.PolySketch, marks=pytest.mark.slow), ns.Gegenbauer]
)
def test_radii_of_a_network(make):
    """Norms far from those of the examples are right where `radii` hold them."""
    model, x = net(stax.Gelu()), inputs()
    far = jnp.concatenate([20 * x, x / 20])
    method = make(6, 32, scope="network", radii=(0.01, 50.0))
    z = ns.feature_map(model, x, method, key=jax.random.key(0))(far).ntk
    exact = np.diag(model[2](far, None, "ntk"))
    np.testing.assert_allclose(np.sum(z**2, axis=1), exact, rtol=1e-4)
