"""Gradients with respect to inputs: those of the exact kernels, on average over maps."""

import functools

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp
from marks import crossed, others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.activations import DualActivation
from ntk_sketch.activations._jumps import Jumps, jumps_of

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
X, OTHERS, SAMPLE = (RNG.normal(size=(n, 6)) for n in (4, 8, 300))


def model(make):
    return stax.serial(stax.Dense(5, 1.2, 0.3), make(), stax.Dense(1))


def hard_tanh():
    return stax.ElementwiseNumerical(lambda u: jnp.clip(u, -1, 1), 25)


def jacobian(kernel, x):
    """Of `kernel(x_i, y_j)` with respect to x_i: (i, j, d)."""
    return jnp.moveaxis(jax.jacrev(lambda x: jnp.sum(kernel(x), axis=0))(x), 0, 1)


def exact(net, kind, x):
    return np.asarray(jax.jit(functools.partial(jacobian, lambda x: net[2](x, OTHERS, kind)))(x))


def approximate(feature_map, kind, x):
    z = getattr(feature_map(OTHERS), kind)
    return jacobian(lambda x: getattr(feature_map(x), kind) @ z.T, x)


def over_keys(net, method, kind, keys):
    """Gradients of random maps: (keys, i, j, d)."""
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)

    def of(key):
        return approximate(ns.feature_map(net, shape, method, key=key), kind, X)

    return np.asarray(jax.jit(jax.vmap(of))(jax.random.split(jax.random.key(0), keys)))


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


UNSCALED = functools.partial(ns.RandomFeatures, normalize=False)
CASES = [
    pytest.param("Relu", ns.RandomFeatures, marks=pytest.mark.slow),
    pytest.param("Sign", ns.RandomFeatures, marks=pytest.mark.slow),
    ("Sign", UNSCALED),
    ("Relu", ns.LeverageScore),
    pytest.param("Abs", ns.RandomFeatures, marks=pytest.mark.slow),
    pytest.param("LeakyRelu", ns.RandomFeatures, marks=pytest.mark.slow),
    pytest.param("Relu", UNSCALED, marks=pytest.mark.slow),
    pytest.param("Sign", ns.LeverageScore, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_random_features(name, method, record_property):
    """One map's error falls as m^(-4/9), and the mean of maps is far nearer than one.

    Without the jumps' part the mean of maps keeps an error of 0.14 to 1.
    """
    net = model(NONLINEARITIES[name])
    kind = "nngp" if name == "Sign" else "ntk"
    truth = exact(net, kind, X)
    errors = []
    for width, keys in ((64, 64), (1024, 24)):
        draws = over_keys(net, method(width), kind, keys)
        errors.append(np.sqrt(np.mean([relative(draw, truth) ** 2 for draw in draws])))
    mean = relative(draws.mean(0), truth)
    record_property("errors", [*map(float, errors), float(mean)])
    assert errors[1] < 1.3 * errors[0] * 16 ** (-4 / 9)
    # The mean's own noise, and the bias of smoothing.
    assert mean < errors[1] / 24**0.5 + 0.03


@pytest.mark.parametrize("name", [n for n in NONLINEARITIES if n != "ExpNormalized"])
def test_declared_jumps_are_those_that_a_search_finds(name):
    """Of Neural Tangents' nonlinearities it is known whether they are smooth, or homogeneous."""
    layer = NONLINEARITIES[name]()
    searched = DualActivation(layer)
    assert not searched.smooth
    assert searched.degree is None
    for known, found in zip(jumps_of(layer.rule.dual), jumps_of(searched), strict=True):
        assert (known is None) == (found is None)
        if known is not None:
            np.testing.assert_array_equal(known.at, found.at)
            np.testing.assert_allclose(known.by, found.by, rtol=1e-5)


def staircase(u):
    return jnp.floor(u) + jnp.where(u > 2.3, 0.2 * (u - 2.3), 0.0)


@pytest.mark.parametrize(
    ("make", "value", "derivative"),
    [
        (stax.Relu, {}, {0: 1}),
        (stax.Abs, {}, {0: 2}),
        (lambda: stax.LeakyRelu(0.1), {}, {0: 0.9}),
        (lambda: stax.ABRelu(-0.3, 0.9), {}, {0: 1.2}),
        (stax.Sign, {0: 2}, {}),
        (lambda: stax.RectifiedMonomial(0), {0: 1}, {}),
        (hard_tanh, {}, {-1: 1, 1: -1}),
        (
            lambda: stax.ElementwiseNumerical(lambda u: 1e-9 * staircase(u), 25),
            dict.fromkeys(range(-31, 33), 1e-09),
            {2.3: 2e-10},
        ),
        # Steep, of infinite slope, or underflowing, and no jump.
        (lambda: stax.ElementwiseNumerical(lambda u: jnp.tanh(1e3 * u), 25), {}, {}),
        (lambda: stax.ElementwiseNumerical(lambda u: jnp.cbrt(u), 25), {}, {}),
        (lambda: stax.Exp(), {}, {}),
    ],
)
def test_jumps(make, value, derivative):
    for jumps, expected in zip(jumps_of(make().rule.dual), (value, derivative), strict=True):
        found = (
            {} if jumps is None else dict(zip(jumps.at.tolist(), jumps.by.tolist(), strict=True))
        )
        assert len(found) == len(expected)
        for t, height in found.items():
            nearest = min(expected, key=lambda s, t=t: abs(s - t))
            assert abs(nearest - t) < 1e-9
            assert height == pytest.approx(expected[nearest], rel=1e-4)


def test_slope():
    """A `δ`: against a smooth function of u its integral is that at the jump, to fourth order."""
    jumps, m, points = Jumps(jnp.array([0.4]), jnp.array([3.0])), 100_001, 8.0
    u = jnp.linspace(-points, points, m)
    slope = np.asarray(jumps.slope(u), np.float64)
    moments = [np.trapezoid(slope * (np.asarray(u) - 0.4) ** k, u) for k in range(4)]
    np.testing.assert_allclose(moments, [3, 0, 0, 0], atol=1e-6)
    assert not jumps.slope(jnp.zeros((2, 5))).any()
    # Projections scale, and a jump at 0 has no scale of its own.
    kink = Jumps(jnp.zeros(1), jnp.ones(1))
    u = u[::5000]
    for scale in (1e-150, 1e200):
        np.testing.assert_allclose(scale * kink.slope(scale * u), kink.slope(u), rtol=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
def test_hyperparameters(normalize):
    """Through the making of the map, with the directions that its key draws."""

    def norm(w_std):
        net = stax.serial(stax.Dense(5, w_std, 0.3), stax.Relu(), stax.Dense(1))
        method = ns.RandomFeatures(64, normalize=normalize)
        return jnp.sum(ns.feature_map(net, X, method, key=jax.random.key(0))(X).nngp ** 2)

    difference = (norm(1.2 + 1e-6) - norm(1.2 - 1e-6)) / 2e-6
    assert float(jax.grad(norm)(1.2)) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize("trace", [jax.jit, jax.value_and_grad])
def test_jumps_of_traced_nonlinearities(trace):
    """Known heights at 0, which hold in derivatives with respect to the slope."""

    def height(slope):
        _, jumps = jumps_of(stax.LeakyRelu(slope).rule.dual)
        return jumps.by[0] + jumps.at[0]

    found = trace(height)(0.1)
    assert np.allclose(found, 0.9 if trace is jax.jit else (0.9, 0.0))


def landmark_examples(feature_map):
    [found] = [
        node.examples
        for node in jax.tree.leaves(feature_map, is_leaf=lambda node: hasattr(node, "examples"))
        if hasattr(node, "examples")
    ]
    return np.asarray(found)


@pytest.mark.parametrize("kind", others_slow(["nngp", "ntk"], "ntk"))
def test_residual_features_near_landmarks(kind, record_property):
    """As right at a landmark, where what it misses vanishes with its norm, as far from it; and half
    as far off again where residual features begin to be differentiated as they are rescaled.
    """
    net = model(NONLINEARITIES["Relu"])
    towards = np.random.default_rng(1).normal(size=X.shape)
    distances, keys = (0.0, 1e-6, 1e-2, 0.1, 0.2, 1.0), 8
    differences, truths = [], []
    of = jax.jit(approximate, static_argnums=1)
    for key in jax.random.split(jax.random.key(0), keys):
        feature_map = ns.feature_map(net, SAMPLE, ns.Nystroem(264, residual=0.97), key=key)
        landmarks = SAMPLE[landmark_examples(feature_map)[:4]]
        x = np.concatenate([landmarks + distance * towards for distance in distances])
        truths.append(exact(net, kind, x))
        differences.append(np.asarray(of(feature_map, kind, x)) - truths[-1])
    shape = (keys, len(distances), -1)
    differences, truths = np.reshape(differences, shape), np.reshape(truths, shape)
    norms = np.linalg.norm(truths, axis=-1).mean(0)
    errors = np.linalg.norm(differences, axis=-1).mean(0) / norms
    means = np.linalg.norm(differences.mean(0), axis=-1) / norms
    record_property("errors", [errors.tolist(), means.tolist()])
    between = np.isin(distances, (0.1, 0.2))
    assert (errors < np.where(between, 1.5, 1.2) * errors[-1]).all(), errors
    # Unbiased: the mean has the noise of a mean.
    assert (means < 1.25 * errors / keys**0.5)[~between].all(), (means, errors)


@pytest.mark.parametrize(
    ("name", "kind"), crossed(["Relu", "Gelu", "Abs"], ["nngp", "ntk"], row="Gelu", column="ntk")
)
def test_landmarks(name, kind):
    """Between any example and those of the sample they are exact, at the sample itself too."""
    net = model(NONLINEARITIES[name])
    feature_map = ns.feature_map(net, OTHERS, ns.Exact(), key=jax.random.key(0))
    x = np.concatenate([OTHERS, X])
    found, truth = np.asarray(approximate(feature_map, kind, x)), np.array(exact(net, kind, x))
    # Of an example with itself: Neural Tangents' derivative depends on rounding there.
    which = ("nngp", "ntk").index(kind)
    own = jax.grad(lambda x: jnp.sum(feature_map.diagonals(x)[which]) / 2)(OTHERS)
    i = np.arange(len(OTHERS))
    truth[i, i] = own
    np.testing.assert_allclose(found, truth, atol=1e-11 * np.abs(truth).max())
