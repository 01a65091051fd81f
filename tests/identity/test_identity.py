"""Specifications of layers, maps and solutions: equality, copies, JSON and fingerprints."""

import copy
import dataclasses
import functools
import itertools
import json
import pickle
import warnings

import cloudpickle
import equinox as eqx
import jax
import jax.numpy as jnp
import joblib
import neural_tangents as nt
import numpy as np
import pytest
from architectures import ARCHITECTURES, NONLINEARITIES
from counting import compiled
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.activations import DualActivation
from ntk_sketch.identity._function import digest_of_function
from ntk_sketch.identity._specification import Specification
from ntk_sketch.identity._structure import once_per_structure
from ntk_sketch.maps import _checks
from ntk_sketch.numerics._precision import x64

KEY = jax.random.key(0)
METHODS = {
    "random": ns.RandomFeatures(8),
    "leverage score": ns.LeverageScore(8),
    "nystroem": ns.Nystroem(4, residual=0.5),
    "poly sketch": ns.PolySketch(3, 8),
    "gegenbauer": ns.Gegenbauer(3, 8),
    "exact": ns.Exact(),
}


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def small_net(slope=0.1, w_std=1.4, b_std=0.1):
    return stax.serial(
        stax.Conv(4, (3, 3), W_std=w_std, b_std=b_std, padding="SAME"),
        stax.LeakyRelu(slope),
        stax.AvgPool((2, 2)),
        stax.FanOut(2),
        stax.parallel(stax.Dense(4, w_std), stax.with_method(stax.Dense(4), METHODS["random"])),
        stax.FanInSum(),
        stax.LayerNorm(),
        stax.RectifiedMonomial(2),
        stax.Flatten(),
        stax.Dense(1, w_std, b_std),
    )


def test_abstract_arrays_have_the_dtype_in_which_jax_holds_them():
    """Those of NumPy too: JAX 0.12 warns of shapes in float64 where it has 32 bits."""
    arrays = {"numpy": np.zeros(2), "jax": jnp.zeros(2, "bfloat16"), "key": KEY}

    @once_per_structure
    def shapes(tree):
        return tree

    for wide, dtype in ((False, np.float32), (True, np.float64)):
        with x64(wide), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = {name: leaf.dtype for name, leaf in shapes(arrays).items()}
        assert found == {"numpy": dtype, "jax": jnp.bfloat16, "key": KEY.dtype}


# ------------------------------------------------------------------ equality


@dataclasses.dataclass
class WithoutHash:
    degree: int = 1


def test_an_argument_without_hash_is_named():
    def Mine(options):
        return nt.stax.Relu()

    layer = stax.register(Mine, stax.homogeneous(1))(WithoutHash())
    model = stax.serial(stax.Dense(1), layer, stax.Dense(1))
    with pytest.raises(TypeError, match=r"Mine\(.*an argument has no hash .*'WithoutHash'"):
        ns.feature_map(model, inputs(6, 3), METHODS["random"], key=KEY)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_made_alike_are_equal(name):
    """But for functions that are defined anew each time, all of the table can be compared."""
    a, b = ARCHITECTURES[name].model(), ARCHITECTURES[name].model()
    assert a == b
    assert hash(a) == hash(b)
    assert a.rule == b.rule
    assert hash(a.rule) == hash(b.rule)


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_duals_made_alike_are_equal(name):
    a, b = (DualActivation(NONLINEARITIES[name]()) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


def test_what_differs_is_not_equal():
    assert small_net() != small_net(slope=0.2)
    assert small_net() != small_net(w_std=1.3)
    assert stax.Dense(1) != stax.Dense(2)
    assert stax.Relu() != stax.Gelu()
    assert stax.Dense(1).rule != stax.Dense(1, 1.5).rule
    assert stax.with_method(stax.Relu(), ns.Nystroem(3)) != stax.with_method(
        stax.Relu(), ns.Nystroem(4)
    )
    assert DualActivation(stax.LeakyRelu(0.1)) != DualActivation(stax.LeakyRelu(0.2))
    shapes = [(2, 3), (3, 2)]  # of the same numbers
    first, second = (Specification.of(dict, {"rhs": np.ones(shape)}) for shape in shapes)
    assert first != second


def test_calls_that_mean_the_same_are_equal():
    assert stax.Dense(1, 1.4) == stax.Dense(1, W_std=1.4, b_std=None)
    assert stax.Dense(1, 2) == stax.Dense(1, W_std=2.0)
    assert stax.Dense(1, np.float64(1.5)) == stax.Dense(1, jnp.asarray(1.5))
    assert stax.Conv(1, [3, 3]).rule == stax.Conv(1, (3, 3)).rule


# ------------------------------------------------------------------ numbers


REAL = {
    "Dense": lambda v: stax.Dense(2, v, v),
    "Conv": lambda v: stax.Conv(2, (2, 2), W_std=v, b_std=v),
    "ABRelu": lambda v: stax.ABRelu(-v, v),
    "Cos": lambda v: stax.Cos(v, v, v),
    "Erf": lambda v: stax.Erf(v, v, v),
    "Exp": lambda v: stax.Exp(v, v),
    "ExpNormalized": lambda v: stax.ExpNormalized(v),
    "Gaussian": lambda v: stax.Gaussian(v, -v),
    "LeakyRelu": lambda v: stax.LeakyRelu(v),
    "Polynomial": lambda v: stax.Polynomial([v, v]),
    "Rbf": lambda v: stax.Rbf(v),
    "Sin": lambda v: stax.Sin(v, v, v),
    "LayerNorm": lambda v: stax.LayerNorm(-1, v),
    "Dropout": lambda v: stax.Dropout(v),
    "ConvLocal": lambda v: stax.ConvLocal(2, (2, 2), W_std=v, b_std=v),
    "ConvTranspose": lambda v: stax.ConvTranspose(2, (2, 2), W_std=v, b_std=v),
    "GlobalSelfAttention": lambda v: stax.GlobalSelfAttention(
        2, 2, 2, 1, W_key_std=v, W_value_std=v, W_query_std=v, W_out_std=v, b_std=v
    ),
}
REAL_METHODS = {"random": METHODS["random"], "nystroem": ns.Nystroem(3), "exact": ns.Exact()}


@pytest.mark.parametrize("name", others_slow(REAL, "Dense", "Polynomial"))
@pytest.mark.parametrize("method", others_slow(REAL_METHODS, "nystroem"))
def test_numbers_of_any_kind(name, method):
    """Python, NumPy and JAX scalars, in every constructor that takes a real number."""
    method, x = REAL_METHODS[method], inputs(6, 4, 4, 2)
    found = []
    for value in (0.5, np.float32(0.5), jnp.asarray(0.5)):
        layer = REAL[name](value)
        after = (stax.Dense(2), stax.Relu(), stax.Flatten(), stax.Dense(1))
        model = stax.serial(stax.Dense(3, value, value), layer, *after)
        feature_map = ns.feature_map(model, x, method, key=KEY)
        found.append(feature_map(x))
        model[2](x, None, "ntk")
    for features in found[1:]:
        np.testing.assert_allclose(features.ntk, found[0].ntk, rtol=1e-5, atol=1e-6)


def joined(join):
    return stax.serial(stax.FanOut(2), stax.parallel(stax.Dense(2), stax.Dense(2)), join)


WHOLE = {
    "Dense": lambda v: stax.Dense(v, parameterization="standard", s=(v, v)),
    "Conv": lambda v: stax.Conv(v, (v, v), (v, v)),
    "ConvTranspose": lambda v: stax.ConvTranspose(v, (v, v), (v, v)),
    "AvgPool": lambda v: stax.AvgPool((v, v), (v, v)),
    "Monomial": lambda v: stax.Monomial(v),
    "Hermite": lambda v: stax.serial(stax.LayerNorm(), stax.Hermite(v)),
    "ElementwiseNumerical": lambda v: stax.ElementwiseNumerical(jnp.sin, v),
    "repeat": lambda v: stax.repeat(stax.Dense(3), v),
    "FanInConcat": lambda v: joined(stax.FanInConcat(v)),
    "LayerNorm": lambda v: stax.LayerNorm((v, 3)),
    "GlobalSelfAttention": lambda v: stax.GlobalSelfAttention(v, v, v, v),
    "ImageResize": lambda v: stax.ImageResize((-1, v, v, -1), "linear"),
    "Index": lambda v: stax.Index(stax.Slice[:, v:]),
}


@pytest.mark.parametrize("name", others_slow(WHOLE, "Conv", "Monomial"))
def test_integers_of_any_kind(name):
    """Of Python, NumPy and JAX, in every constructor that takes one."""
    x, found = inputs(4, 4, 4, 2), []
    for value in (2, np.int64(2), jnp.asarray(2)):
        layers = (WHOLE[name](value), stax.Dense(2), stax.Relu(), stax.Flatten(), stax.Dense(1))
        model = stax.serial(stax.Dense(3), *layers)
        found.append(ns.feature_map(model, x, METHODS["random"], key=KEY)(x))
        model[2](x, None, "ntk")
    for features in found[1:]:
        np.testing.assert_array_equal(features.ntk, found[0].ntk)


def gelu_net(w_std=1.3, b_std=0.1):
    blocks = (stax.serial(stax.Dense(4, w_std, b_std), stax.Gelu()) for _ in range(6))
    return stax.serial(*blocks, stax.Dense(1, w_std))


def two_convolutions(w_std=1.3, b_std=0.1):
    conv = functools.partial(stax.Conv, 4, (3, 3), W_std=w_std, b_std=b_std, padding="SAME")
    layers = (conv(), stax.Relu(), stax.AvgPool((2, 2)), conv(), stax.Gelu(), stax.GlobalAvgPool())
    return stax.serial(*layers, stax.Dense(1, w_std))


#: (method, model, shape of an example).
COMPILED_ONCE = {
    "random": (METHODS["random"], small_net, (6, 6, 2)),
    "leverage score": (METHODS["leverage score"], small_net, (6, 6, 2)),
    "poly sketch": (METHODS["poly sketch"], two_convolutions, (6, 6, 2)),
    "gegenbauer": (METHODS["gegenbauer"], two_convolutions, (6, 6, 2)),
    "nystroem": (ns.Nystroem(8), gelu_net, (5,)),
    "nystroem, convolutions": (ns.Nystroem(8), two_convolutions, (6, 6, 2)),
}


@pytest.mark.parametrize("name", others_slow(COMPILED_ONCE, "random", "nystroem"))
def test_the_same_architecture_with_other_numbers_compiles_nothing(name):
    """Where arrays keep their shapes: Gram matrices of full rank; tables of series may not."""
    method, net, shape = COMPILED_ONCE[name]
    sample = inputs(200 if method.looks_at_data else 6, *shape)
    ns.feature_map(net(), sample, method, key=KEY)(sample)
    other, other_key = net(w_std=1.1, b_std=np.float32(0.2)), jax.random.key(1)
    with compiled() as programs:
        ns.feature_map(other, sample, method, key=other_key)(sample)
    assert programs.count == 0


def test_neural_tangents_checks_equal_models_once(monkeypatch):
    """And every other model, shape and set of kernels; an error each time."""
    checks, check = [], _checks._check_with_nt

    def counted(*args):
        checks.append(args)
        return check(*args)

    monkeypatch.setattr(_checks, "_check_with_nt", counted)
    method = METHODS["random"]

    def make(net, x, get=("nngp", "ntk")):
        before = len(checks)
        ns.feature_map(net, x, method, key=KEY, get=get)
        return len(checks) - before

    x = inputs(6, 6, 6, 2)
    assert make(small_net(0.311), x) == 1
    assert make(small_net(0.311), x[:4]) == 0
    assert make(small_net(0.312), x) == 1
    assert make(small_net(0.311), x[:, :5]) == 1
    assert make(small_net(0.311), x, "nngp") == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="In layer Conv"):
            make(small_net(0.311), x[0])


def test_a_layer_in_six_places_is_compiled_once():
    """Six layers with one nonlinearity each compile no more than six uses of one object. Of
    examples enough to calibrate with."""
    x = inputs(100, 5)
    method = ns.Nystroem(8)

    def programs_of(layers):
        blocks = ((stax.Dense(8, 1.3, 0.1), own) for own in layers)
        net = stax.serial(*itertools.chain(*blocks), stax.Dense(1))
        jax.clear_caches()
        with compiled() as programs:
            ns.feature_map(net, x, method, key=KEY)(x)
        return programs.count

    shared = stax.Gelu()
    assert programs_of([stax.Gelu() for _ in range(6)]) == programs_of([shared] * 6) <= 12


def test_gradient_with_respect_to_a_number():
    """By finite differences of the features' kernel."""
    x = inputs(5, 4, 4, 2)

    def value(number):
        net = small_net(number, number + 1, number)
        return jnp.sum(
            ns.feature_map(net, x, METHODS["random"], key=KEY).kernel_fn(x, None, "nngp")
        )

    step = 1e-2
    difference = (value(0.3 + step) - value(0.3 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(value)(0.3), difference, rtol=2e-2)


# ------------------------------------------------------------------ copies


@pytest.mark.parametrize("method", others_slow(METHODS, "nystroem"))
def test_copies_of_maps(method):
    x = inputs(6, 5, 5, 2)
    feature_map = ns.feature_map(small_net(), x, METHODS[method], key=KEY)
    text = json.dumps(feature_map.specification)
    copies = {
        "pickle": pickle.loads(pickle.dumps(feature_map)),
        "cloudpickle": cloudpickle.loads(cloudpickle.dumps(feature_map)),
        "deepcopy": copy.deepcopy(feature_map),
        "json": ns.FeatureMap.from_specification(json.loads(text), feature_map.arrays),
    }
    features, exact = feature_map(x), feature_map.exact_kernel_fn(x, None, "ntk")
    for name, other in copies.items():
        assert bool(eqx.tree_equal(other, feature_map)), name
        assert other.fingerprint == feature_map.fingerprint, name
        np.testing.assert_array_equal(other(x).ntk, features.ntk)
        np.testing.assert_array_equal(other.exact_kernel_fn(x, None, "ntk"), exact)


def test_copies_of_solutions(tmp_path):
    x = inputs(30, 4)
    net = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(net, x, METHODS["nystroem"], key=KEY)
    solution = ns.ridge(feature_map, x, x[:, 0], diag_reg=[1e-2, 1e-1], select="gcv")
    joblib.dump(solution, tmp_path / "solution")
    copies = [pickle.loads(pickle.dumps(solution)), cloudpickle.loads(cloudpickle.dumps(solution))]
    copies += [copy.deepcopy(solution), joblib.load(tmp_path / "solution")]
    for other in copies:
        assert bool(eqx.tree_equal(other, solution))
        np.testing.assert_array_equal(other.predict(x), solution.predict(x))


def test_a_function_that_cannot_be_imported_is_named():
    layer = stax.ElementwiseNumerical(lambda x: x, 25)
    net = stax.serial(stax.Dense(4), layer, stax.Dense(1))
    feature_map = ns.feature_map(net, inputs(4, 3), METHODS["random"], key=KEY)
    with pytest.raises(TypeError, match="cannot be imported") as error:
        _ = feature_map.specification
    assert any("ElementwiseNumerical" in note for note in error.value.__notes__)
    feature_map.fingerprint  # noqa: B018 - it does not need to be read again
    triple = stax.layer(tuple(stax.Relu()), stax.Relu().rule)
    net = stax.serial(stax.Dense(4), triple, stax.Dense(1))
    with pytest.raises(TypeError):
        _ = ns.feature_map(net, inputs(4, 3), METHODS["random"], key=KEY).specification


def test_functions_of_users_are_written_by_their_import_path():
    net = stax.serial(stax.Dense(4), NONLINEARITIES["Elementwise"](), stax.Dense(1))
    x = inputs(4, 3)
    feature_map = ns.feature_map(net, x, METHODS["random"], key=KEY)
    text = json.dumps(feature_map.specification)
    assert "architectures:_erf_dual" in text
    other = ns.FeatureMap.from_specification(json.loads(text), feature_map.arrays)
    np.testing.assert_array_equal(other(x).ntk, feature_map(x).ntk)


def test_functions_of_jax_are_written_by_their_public_names():
    net = stax.serial(stax.Dense(4), stax.ElementwiseNumerical(jax.nn.silu, 25), stax.Dense(1))
    feature_map = ns.feature_map(net, inputs(4, 3), METHODS["random"], key=KEY)
    text = json.dumps(feature_map.specification)
    assert "jax.nn:silu" in text
    assert "jax._src" not in text


# ------------------------------------------------------------------ fingerprints


def test_fingerprints_tell_maps_apart():
    x = inputs(6, 5, 5, 2)
    one = ns.feature_map(small_net(), x, METHODS["random"], key=KEY).fingerprint
    assert ns.feature_map(small_net(), x, METHODS["random"], key=KEY).fingerprint == one
    others = {
        "arrays": ns.feature_map(small_net(), x, METHODS["random"], key=jax.random.key(1)),
        "method": ns.feature_map(small_net(), x, ns.RandomFeatures(8, normalize=False), key=KEY),
        "model": ns.feature_map(small_net(0.2), x, METHODS["random"], key=KEY),
    }
    for part, other in others.items():
        assert getattr(other.fingerprint, part) != getattr(one, part)
    assert others["arrays"].fingerprint.model == one.model
    assert others["arrays"].fingerprint.method == one.method


SLOPE = 0.3
TABLE = np.array([0.1, 0.2])


def scaled(factor):
    return lambda u: factor * jnp.tanh(u)


def with_own_table(table):
    return lambda u: jnp.tanh(u) * table.sum()


def composed(inner):
    return lambda u: inner(inner(u))


class Scaled:
    """An object that is called, and one with a method that is."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, u):
        return self.factor * u

    def applied(self, u):
        return self.factor * u


def test_digests_of_functions_that_differ(monkeypatch):
    """By a constant, a name, a default, a global number or array, or what they close over."""

    def chosen(u, slope=0.1):
        return jnp.where(u > 0, u, slope * u)

    def steeper(u, slope=0.2):
        return jnp.where(u > 0, u, slope * u)

    functions = [
        lambda u: 2.0 * u,
        lambda u: 3.0 * u,
        lambda u: jnp.sin(u),
        lambda u: jnp.tanh(u),
        lambda u: SLOPE * u,
        lambda u: scaled(SLOPE)(u),
        lambda u: [SLOPE * v for v in (lambda w: (w, SLOPE - w))(u)],
        *map(Scaled, (6.0, 7.0)),
        *(Scaled(factor).applied for factor in (6.0, 7.0)),
        *map(scaled, (1.0, 2.0)),
        *(with_own_table(np.full(3, value)) for value in (1.0, 2.0)),
        *(functools.partial(chosen, slope=slope) for slope in (0.5, 0.6)),
        *(jax.jit(scaled(factor)) for factor in (4.0, 5.0)),
        *(composed(scaled(factor)) for factor in (4.0, 5.0)),
    ]
    digests = [digest_of_function(function) for function in functions]
    assert len(set(digests)) == len(functions)
    assert digests == [digest_of_function(function) for function in functions]
    assert digest_of_function(chosen) != digest_of_function(steeper)
    assert digest_of_function(scaled(1.0)) == digest_of_function(scaled(1.0))
    monkeypatch.setitem(globals(), "SLOPE", 0.4)
    for place in (4, 6):
        assert digest_of_function(functions[place]) != digests[place]

    def of_table(u):
        return jnp.tanh(u) * TABLE.sum()

    before = digest_of_function(of_table)
    monkeypatch.setitem(globals(), "TABLE", np.array([0.1, 0.3]))
    assert digest_of_function(of_table) != before
    assert digest_of_function(str.upper) != digest_of_function(str.lower)


def test_documentation_is_not_part_of_a_digest():
    def one(u):
        """One."""
        return 2 * u

    def other(u):
        """Another."""
        return 2 * u

    assert digest_of_function(one) == digest_of_function(other)


def test_maps_of_functions_that_differ_in_a_constant():
    x, y = inputs(30, 4), inputs(30, 2, seed=1)

    def statistics(factor):
        net = stax.serial(stax.Dense(4), stax.ElementwiseNumerical(scaled(factor), 25))
        made = ns.feature_map(stax.serial(net, stax.Dense(1)), x, METHODS["random"], key=KEY)
        return ns.solvers.accumulate(made, x, y)

    statistics(1.0).merge(statistics(1.0))
    with pytest.raises(ValueError, match="model"):
        statistics(1.0).merge(statistics(2.0))


def test_statistics_of_different_maps_are_not_merged():
    x, y = inputs(30, 4), inputs(30, 2, seed=1)
    net = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1))

    def made(seed, model=net, method=METHODS["random"]):
        return ns.feature_map(model, x, method, key=jax.random.key(seed))

    first = ns.solvers.accumulate(made(0), x, y)
    first.merge(ns.solvers.accumulate(made(0), x, y))
    for other, what in (
        (made(1), "drawn"),
        (made(0, stax.serial(stax.Dense(4), stax.Erf(), stax.Dense(1))), "model"),
        (made(0, method=ns.RandomFeatures(8, orthogonal=False)), "method"),
    ):
        with pytest.raises(ValueError, match=rf"differ.*in .*{what}"):
            first.merge(ns.solvers.accumulate(other, x, y))
        with pytest.raises(ValueError, match="not of this feature map"):
            ns.solvers.solve(other, first)
    # A state without a map, such as that of no examples, merges with any.
    empty = ns.solvers.GramState.init(first.cross.high.shape[0], 2)
    np.testing.assert_array_equal(empty.merge(first).origin, first.origin)


# ------------------------------------------------------------------ call-time arguments


class Shifted(stax.Rule):
    """A layer that takes an argument at every call, and tells what reached it."""

    call_arguments = frozenset({"shift"})

    def __init__(self):
        self.seen = []

    def needs(self, offsets, shape, *, method, shift=None):
        self.seen.append(("needs", shift))
        return offsets

    def fit(self, features, *, method, offsets, key, shift=None):
        self.seen.append(("fit", shift))
        return lambda features, shift=None, **kwargs: features


def test_call_time_arguments_reach_the_rules_that_take_them():
    rule = Shifted()
    net = stax.serial(
        stax.Dense(3), stax.serial(stax.layer(tuple(stax.Identity()), rule)), stax.Relu()
    )
    feature_map = ns.feature_map(net, inputs(4, 3), METHODS["random"], key=KEY, shift=2.0)
    assert ("needs", 2.0) in rule.seen
    assert ("fit", 2.0) in rule.seen
    feature_map(inputs(4, 3), shift=3.0)
    with pytest.raises(TypeError, match=r"unknown argument 'other'.*shift"):
        feature_map(inputs(4, 3), other=3.0)
    with pytest.raises(NotImplementedError, match=r"layers of this model take shift at call time"):
        feature_map.averaged(lambda x: -x)


def test_an_argument_that_no_layer_takes_is_refused():
    net = stax.serial(stax.Dense(3), stax.Relu())
    for name in ("pattern", "patern"):
        with pytest.raises(TypeError, match=f"'{name}'.*no layer of this model"):
            ns.feature_map(net, inputs(4, 3), METHODS["random"], key=KEY, **{name: np.ones(3)})
        made = ns.feature_map(net, inputs(4, 3), METHODS["random"], key=KEY)
        with pytest.raises(TypeError, match=f"'{name}'"):
            made(inputs(4, 3), **{name: np.ones(3)})


def test_what_cannot_be_compiled_names_what_can():
    x = inputs(8, 3)
    net = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(net, x, METHODS["random"], key=KEY)
    solution = ns.ridge(feature_map, x, x[:, 0], diag_reg=0.1)
    for function in (feature_map, solution.predict):
        with pytest.raises(TypeError, match=r"(equinox|eqx)\.filter_jit"):
            jax.jit(function)(x)
    found = eqx.filter_jit(feature_map)(x).ntk
    np.testing.assert_allclose(found, feature_map(x).ntk, rtol=1e-5, atol=1e-6)


def test_a_whole_network_and_a_method_of_one_layer():
    own = stax.with_method(stax.Relu(), METHODS["random"])
    net = stax.serial(stax.Dense(4), stax.Erf(), stax.Dense(4), own, stax.Dense(1))
    method = ns.Gegenbauer(3, 8, scope="network")
    with pytest.raises(NotImplementedError, match=r"with_method.*scope=\"layer\"") as error:
        ns.feature_map(net, inputs(6, 3), method, key=KEY)
    assert any("layer 4 of 5, Relu()" in note for note in error.value.__notes__)


# ------------------------------------------------------------------ sizes and diagonals


def test_number_of_features():
    x = inputs(6, 5, 5, 2)
    feature_map = ns.feature_map(small_net(), x, METHODS["random"], key=KEY)
    z = feature_map(x)
    assert feature_map.n_features == {"nngp": z.nngp.shape[-1], "ntk": z.ntk.shape[-1]}
    one = ns.feature_map(small_net(), x, METHODS["random"], key=KEY, get="nngp")
    assert one.n_features == {"nngp": z.nngp.shape[-1]}


def test_half_precision_is_computed_in_the_precision_of_the_map():
    """Features of rounded inputs, not rounded features."""
    x = inputs(40, 6)
    net = stax.serial(stax.Dense(8, 1.4, 0.1), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(net, x, ns.Nystroem(16), key=KEY)
    for dtype in (jnp.bfloat16, jnp.float16):
        rounded = jnp.asarray(x, dtype)
        z = feature_map(rounded)
        assert z.ntk.dtype == jnp.float32
        np.testing.assert_array_equal(z.ntk, feature_map(rounded.astype(jnp.float32)).ntk)
        made = ns.feature_map(net, rounded, ns.Nystroem(16), key=KEY)
        assert made(rounded).ntk.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_predictive_variances_with_exact_diagonals():
    """Means stay those of the features; variances are those of the exact kernel."""
    import neural_tangents as nt

    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(60, 4)), rng.normal(size=(20, 4))
    y = np.sin(x[:, :1])
    net = stax.serial(
        stax.Dense(1, 1.4, 0.1), stax.Relu(), stax.Dense(1, 1.4, 0.1), stax.Relu(), stax.Dense(1)
    )
    feature_map = ns.feature_map(net, x, ns.Nystroem(60), key=KEY)
    kernel_fn = feature_map.kernel_fn

    def with_diagonal(x1, x2=None, get=None):
        return kernel_fn(x1, x2, get, exact_diagonal=x2 is None and x1 is not x)

    def predicted(kernel):
        predict = nt.predict.gradient_descent_mse_ensemble(kernel, x, y, diag_reg=1e-3)
        mean, covariance = predict(x_test=x_test, get="ntk", compute_cov=True)
        return mean, np.diag(covariance)

    (exact_mean, exact), (_, without), (mean, variance) = map(
        predicted, (net[2], kernel_fn, with_diagonal)
    )
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, exact, rtol=1e-4)
    assert np.median(without) < 0.5 * np.median(exact)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name",
    others_slow(
        [
            "dense Gelu",
            "dense standard",
            "flatten between",
            "1-D standard",
            "average pool, circular",
            "nonlinearity after a global pool",
            "layer norm on positions",
            "residual",
            "concatenated positions",
        ],
        "dense standard",
        "flatten between",
    ),
)
def test_exact_diagonals(name):
    """Whatever features the map has, and whatever the last layer is."""
    model, x = ARCHITECTURES[name].model(), inputs(3, *ARCHITECTURES[name].shape)
    x = x.astype(np.float64)
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(2), key=KEY)
    options = dict(ARCHITECTURES[name].nt_options)
    exact = model[2](x, None, ("nngp", "ntk"), **options)
    for found, kernel in zip(feature_map.diagonals(x), exact, strict=True):
        np.testing.assert_allclose(found, np.diag(kernel), rtol=1e-6)
