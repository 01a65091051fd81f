"""`Nystroem(scope="network")`: landmark examples and the exact kernels of a whole net."""

import copy
import json
import pickle
import re

import equinox as eqx
import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES
from jax import numpy as jnp
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.features._variances import Variances
from ntk_sketch.methods._sampling import SAMPLINGS
from ntk_sketch.numerics._memory import subjaxprs

KEY = jax.random.key(0)
KINDS = ("nngp", "ntk")
DENSE = [name for name, row in ARCHITECTURES.items() if len(row.shape) == 1]


def relative(close, exact):
    return np.linalg.norm(np.asarray(close) - exact) / np.linalg.norm(exact)


def exact_kernel(model, x1, x2=None, **options):
    """Neural Tangents' own."""
    return jax.jit(lambda a, b: model[2](a, b, KINDS, **options))(x1, x2)


def inputs(n, d=5, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def made(model, x, width, **options):
    return ns.feature_map(model, x, ns.Nystroem(width, scope="network", **options), key=KEY)


def relu_net(depth, b_std=0.1):
    layers = [stax.Dense(1, 2**0.5, b_std), stax.Relu()] * depth
    return stax.serial(*layers, stax.Dense(1, 1.1, b_std))


def branched_net():
    """Branches of different depth, summed and concatenated, `LayerNorm`, Θ of 'standard'."""

    def dense(size):
        return stax.Dense(size, 1.2, 0.3, parameterization="standard")

    one = stax.serial(stax.Relu(), dense(3))
    two = stax.serial(stax.Gelu(), dense(4), stax.Erf(), dense(3))
    return stax.serial(
        dense(5),
        stax.FanOut(2),
        stax.parallel(one, two),
        stax.FanInSum(),
        stax.LayerNorm(),
        stax.Relu(),
        stax.FanOut(3),
        stax.parallel(dense(2), stax.serial(stax.Identity(), dense(3)), dense(1)),
        stax.FanInConcat(-1),
        dense(3),
        stax.Relu(),
        dense(1),
    )


# ------------------------------------------------------------------ against Neural Tangents


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name",
    others_slow(
        [*DENSE, "branches"],
        *("dense Relu", "dense standard"),
    ),
)
def test_every_example_is_a_landmark(name):
    """Then both kernels on the sample are Neural Tangents'."""
    row = ARCHITECTURES.get(name)
    model, shape, across, options = row or (branched_net, (5,), False, ())
    model, x = model(), inputs(6, *shape)
    rows, columns = (x[:3], x[3:]) if across else (x, None)
    kernel = exact_kernel(model, rows, columns, **dict(options))
    close = made(model, x, 6).kernel_fn(x)
    for kind in KINDS:
        gram, exact = np.asarray(getattr(close, kind)), np.asarray(getattr(kernel, kind))
        gram = gram[:3, 3:] if across else gram
        if not exact.any():  # Θ of a net whose nonlinearities have no derivative
            assert not gram.any()
        else:
            assert relative(gram, exact) < 1e-8


@pytest.mark.usefixtures("float64")
def test_landmarks_of_zeros():
    """With a bias an example of zeros is one like any other; without, its kernels are 0."""
    x = inputs(6)
    x[2] = 0
    for model, width in ((relu_net(2), 6), (relu_net(2, b_std=None), 5)):
        feature_map = made(model, x, width)
        for kind in KINDS:
            exact = np.asarray(getattr(exact_kernel(model, x), kind))
            assert relative(getattr(feature_map.kernel_fn(x), kind), exact) < 1e-8
        assert feature_map.is_landmark(x).sum() == width


@pytest.mark.usefixtures("float64")
def test_the_nystroem_approximation():
    """From NT's kernels: `K(x, Z) K(Z, Z)⁻¹ K(Z, x')`, and nothing missed at the landmarks."""
    model, x, other = branched_net(), inputs(40), inputs(9, seed=1)
    feature_map = made(model, x, 12, calibrate=False)
    z = x[feature_map.is_landmark(x)]
    assert len(z) == 12
    for kind in KINDS:
        cross, inner = (np.asarray(getattr(exact_kernel(model, a, z), kind)) for a in (other, z))
        found = getattr(feature_map.kernel_fn(other), kind)
        assert relative(found, cross @ np.linalg.solve(inner, cross.T)) < 1e-8
        assert relative(getattr(feature_map.kernel_fn(other, z), kind), cross) < 1e-8


@pytest.mark.usefixtures("float64")
def test_dropout():
    """Kernels of two passes with independent masks, as NT has them between different inputs."""
    layers = [stax.Dense(4, 1.2, 0.3), stax.Relu(), stax.Dropout(0.7)] * 2
    model = stax.serial(*layers, stax.Dense(1))
    x, other = inputs(6), inputs(3, seed=1)
    feature_map = made(model, x, 6)
    for kind in KINDS:
        exact = np.asarray(getattr(exact_kernel(model, other, x), kind))
        assert relative(getattr(feature_map.kernel_fn(other, x), kind), exact) < 1e-8


@pytest.mark.usefixtures("float64")
def test_exact_diagonals():
    model, x, other = relu_net(2), inputs(30), inputs(7, seed=1)
    feature_map = made(model, x, 4)
    for kind, diagonal in zip(KINDS, feature_map.diagonals(other), strict=True):
        exact = np.diag(getattr(exact_kernel(model, other), kind))
        np.testing.assert_allclose(diagonal, exact, rtol=1e-7)  # NT: the root of rounding
        gram = feature_map.kernel_fn(other, None, kind, exact_diagonal=True)
        np.testing.assert_array_equal(np.diag(gram), diagonal)
        assert np.all(np.diag(feature_map.kernel_fn(other, None, kind)) < 0.999 * exact)


# ------------------------------------------------------------------ accuracy


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("calibrate", [True, False])
@pytest.mark.slow
def test_less_error_than_layer_by_layer(calibrate):
    """With as many features of the NTK: layer by layer φ' and ψ' share them. At 3 keys and more
    examples the errors are 1.3 to 2 times as large.
    """
    x, other, model = inputs(600), inputs(60, seed=1), relu_net(3)
    exact = np.asarray(exact_kernel(model, other).ntk)
    errors = {}
    for scope, width in (("network", 32), ("layer", 16)):
        method = ns.Nystroem(width, scope=scope, calibrate=calibrate)
        feature_map = ns.feature_map(model, x, method, key=KEY, get="ntk")
        assert feature_map.n_features["ntk"] == (32 if scope == "network" else 33)  # a bias
        errors[scope] = relative(feature_map.kernel_fn(other).ntk, exact)
    assert errors["network"] < errors["layer"] / 1.2


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_error_falls_with_the_width():
    x, other, model = inputs(300, 3), inputs(40, 3, seed=1), relu_net(2)
    exact = np.asarray(exact_kernel(model, other).ntk)
    errors = [relative(made(model, x, m).kernel_fn(other).ntk, exact) for m in (8, 32, 128)]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


@pytest.mark.usefixtures("float64")
def test_calibration():
    """Fitted to the kernel at other examples: a smaller error on new ones."""
    x, other, model = inputs(400), inputs(60, seed=1), relu_net(2)
    exact = exact_kernel(model, other)
    for kind in KINDS:
        kernel = np.asarray(getattr(exact, kind))
        errors = [
            relative(getattr(made(model, x, 16, calibrate=c).kernel_fn(other), kind), kernel)
            for c in (True, False)
        ]
        assert errors[0] < errors[1] / 1.2


@pytest.mark.parametrize(
    "depth",
    [1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)],
)
def test_kernel_values_in_float32(depth):
    """Against float64, examples next to landmarks and landmarks themselves among them."""
    x = inputs(20, dtype=np.float32)
    steps = np.repeat(np.float32([0, 1e-6, 1e-4, 1e-2]), 5)[:, None]
    near = (x + steps * inputs(20, seed=1, dtype=np.float32)).astype(np.float32)
    model = relu_net(depth)
    feature_map = made(model, x, 20, rcond=0.0)
    with jax.enable_x64(True):
        exact = exact_kernel(model, near.astype(np.float64), x.astype(np.float64))
        exact = [np.asarray(getattr(exact, kind)) for kind in KINDS]
    dual = feature_map.transform.expansion.dual
    c, q, q_other = near @ x.T / 5, np.mean(near**2, axis=1), np.mean(x**2, axis=1)
    found = dual(*map(jnp.asarray, (c, q[:, None], q_other)))
    # K is smooth at cosine 1 and Θ has a root: of a rounding of some eps.
    eps = float(jnp.finfo(jnp.float32).eps)
    for kernel, wanted, tolerance in zip(found, exact, (16 * eps, 4 * eps**0.5), strict=True):
        assert np.abs(kernel - wanted).max() < tolerance * np.abs(wanted).max()


# ------------------------------------------------------------------ cost


def largest_array(jaxpr):
    sizes = [np.prod(v.aval.shape, dtype=int) for e in jaxpr.eqns for v in e.outvars]
    inner = [largest_array(sub) for equation in jaxpr.eqns for sub in subjaxprs(equation)]
    return max([*sizes, *inner], default=0)


def test_cost():
    """Kernels of n examples with m landmarks and nothing of n², whatever the depth."""
    m, d, n = 8, 3, 400
    x = inputs(50, d, dtype=np.float32)
    for depth in (1, 4):
        feature_map = made(relu_net(depth), x, m, rcond=0.0)
        # Inner products with landmarks, Θ = 1 of the inputs, and a root for either kernel.
        products = 2 * n * d * m + 2 * n * m
        ranks = feature_map.n_features.values()
        assert feature_map.cost((n, d)).flops == products + sum(2 * n * m * r for r in ranks)
        jaxpr = jax.make_jaxpr(feature_map)(jnp.zeros((n, d), np.float32)).jaxpr
        assert largest_array(jaxpr) <= 2 * n * m
    assert feature_map.batch_size(2**20, np.float32) >= 64


# ------------------------------------------------------------------ derivatives, copies, regression


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_derivatives():
    """Finite at landmarks, at zero and next to landmarks; and right."""
    x = inputs(12)
    feature_map = made(relu_net(3), x, 6)
    near = x + 1e-9 * inputs(12, seed=1)
    for at in (x, near, np.zeros((2, 5))):
        for kind in KINDS:
            slope = jax.jacrev(lambda x, kind=kind: jnp.sum(getattr(feature_map(x), kind), axis=0))
            assert np.isfinite(slope(at)).all()
    other, towards = inputs(4, seed=2), inputs(4, seed=3)
    value = lambda x: jnp.sum(feature_map(x).ntk ** 2)  # noqa: E731
    slope = np.sum(jax.grad(value)(other) * towards)
    h = 1e-6
    difference = (value(other + h * towards) - value(other - h * towards)) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


@pytest.mark.slow
def test_copies():
    x = inputs(20, dtype=np.float32)
    feature_map = made(branched_net(), x, 6)
    text = json.dumps(feature_map.specification)
    for other in (
        pickle.loads(pickle.dumps(feature_map)),
        copy.deepcopy(feature_map),
        ns.FeatureMap.from_specification(json.loads(text), feature_map.arrays),
    ):
        assert bool(eqx.tree_equal(other, feature_map))
        assert other.fingerprint == feature_map.fingerprint
        np.testing.assert_array_equal(other(x).ntk, feature_map(x).ntk)
    layerwise = ns.feature_map(branched_net(), x, ns.Nystroem(6), key=KEY)
    assert layerwise.fingerprint.method != feature_map.fingerprint.method


def test_same_key_same_map():
    x, model = inputs(40, dtype=np.float32), relu_net(2)
    one, again = made(model, x, 8), made(model, x, 8)
    np.testing.assert_array_equal(one(x).ntk, again(x).ntk)
    other = ns.feature_map(
        model, x, ns.Nystroem(8, scope="network"), key=jax.random.key(1)
    ).is_landmark(x)
    assert not np.array_equal(other, one.is_landmark(x))


@pytest.mark.parametrize("sampling", others_slow(SAMPLINGS, "leverage"))
def test_regression(sampling):
    """Landmarks are told from other examples, in batches; the scores are those of the others."""
    x = inputs(600, 4, dtype=np.float32)
    y = np.abs(x[:, 0]) + x[:, 1] * x[:, 2]
    train, test, model = x[:400], x[400:], relu_net(2)
    feature_map = made(model, train, 100, sampling=sampling)
    assert feature_map.is_landmark(train).sum() == 100
    assert not feature_map.is_landmark(test).any()
    solution = ns.ridge(
        feature_map, train, y[:400], diag_reg=[1e-5, 1e-3], select="loo", batch_size=64
    )
    error = np.mean((solution.predict(test) - y[400:]) ** 2)
    assert error < 0.1 * y.var()
    np.testing.assert_allclose(solution.scores.min(), error, rtol=0.5)


# ------------------------------------------------------------------ what is refused


class Anew(stax.Rule):
    """A rule that makes variances of its own."""

    def fit(self, features, *, method, offsets, key):
        def transform(features, **kwargs):
            return features.replace(variances=Variances(features.variances.same, None, (), ()))

        return transform


class Asking(stax.Rule):
    call_arguments = frozenset({"shift"})

    def fit(self, features, *, method, offsets, key, shift=None):
        return lambda features, **kwargs: features


class TestRefused:
    def refuse(self, error, message, model, x=None, **kwargs):
        x = inputs(8, dtype=np.float32) if x is None else x
        with pytest.raises(error, match=message) as caught:
            ns.feature_map(model, x, ns.Nystroem(4, scope="network"), key=KEY, **kwargs)
        return caught.value

    def test_positions(self):
        model = stax.serial(stax.Conv(1, (3,)), stax.Relu(), stax.Flatten(), stax.Dense(1))
        message = r"takes inputs \(n, d\).*got shape \(8, 6, 2\).*all pairs.*scope=\"layer\""
        self.refuse(ValueError, message, model, np.zeros((8, 6, 2), np.float32))

    def test_a_method_of_one_layer(self):
        own = stax.with_method(stax.Relu(), ns.Nystroem(3))
        model = stax.serial(stax.Dense(2), stax.serial(own, stax.Dense(1)))
        error = self.refuse(NotImplementedError, r"with_method.*scope=\"layer\"", model)
        assert any("layer 1 of 2, Relu()" in note for note in error.__notes__)
        with pytest.raises(ValueError, match="expands a whole model at once"):
            stax.with_method(stax.Relu(), ns.Nystroem(3, scope="network"))

    def test_settings(self):
        for residual in (0.5, (0.0, 0.5)):
            with pytest.raises(ValueError, match=r"residual=.*scope=\"network\".*Leave residual"):
                ns.Nystroem(4, scope="network", residual=residual)
        ns.Nystroem(4, scope="network", residual=0.0)
        with pytest.raises(ValueError, match=r"one expansion, got width=\(4, 8\): give one integ"):
            ns.Nystroem((4, 8), scope="network")
        with pytest.raises(ValueError, match="scope must be one of layer, network, got 'net'"):
            ns.Nystroem(4, scope="net")  # pyright: ignore[reportArgumentType]

    def test_shapes_alone(self):
        shapes = jax.ShapeDtypeStruct((8, 5), np.float32)
        message = "^Nystroem at the whole network takes its sample from the data.*Pass example"
        self.refuse(TypeError, message, relu_net(1), shapes)

    def test_under_jit(self):
        x, model = inputs(8, dtype=np.float32), relu_net(1)
        with pytest.raises(TypeError, match=r"at the whole network .*cannot be made under jax.jit"):
            jax.jit(lambda x: made(model, x, 4)(x).ntk)(x)

    def test_zeros_alone(self):
        message = r"at the whole network: all positions of the sample have variance 0"
        self.refuse(ValueError, message, relu_net(1, None), np.zeros((8, 5), np.float32))

    def test_layers_without_a_rule(self):
        model = stax.serial(stax.Dense(2), stax.layer(tuple(stax.Relu())), stax.Dense(1))
        self.refuse(NotImplementedError, "has no feature rule", model)

    def test_rules_that_make_variances_anew(self):
        mine = stax.layer(tuple(stax.Identity()), Anew())
        model = stax.serial(stax.Dense(2), mine, stax.Relu())
        self.refuse(NotImplementedError, "makes new variances", model)

    def test_call_time_arguments(self):
        mine = stax.layer(tuple(stax.Identity()), Asking())
        model = stax.serial(stax.Dense(2), mine, stax.Relu())
        self.refuse(NotImplementedError, "no call-time arguments, got shift", model, shift=2.0)


def test_more_width_than_examples():
    """All of them, equal ones once, and one warning."""
    x = inputs(8, dtype=np.float32)
    x[5] = x[0]
    with pytest.warns(UserWarning, match="Fewer features") as caught:
        feature_map = made(relu_net(2), x, 9)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    assert re.search(r"the whole network.*width 9 asked for, 7 used", message)
    assert "schedule" not in message
    assert feature_map.is_landmark(x).all()
