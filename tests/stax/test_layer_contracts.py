"""The contracts of features on the layers that take positions apart and put them together:
ConvTranspose, ConvLocal, Index, DotGeneral, FanInProd, and kernels without a finite network.

Equality with Neural Tangents under `Exact()` is in `tests/methods/test_exact.py`, over the table of
architectures.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import ARCHITECTURES, GRAPHS
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.series import hermite_coefficients

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(5)
EPS = float(jnp.finfo(jnp.float64).eps)
METHODS = {
    "random": ns.RandomFeatures(6),
    "leverage score": ns.LeverageScore(6),
    "landmarks": ns.Nystroem(4, residual=0.5),
    "poly sketch": ns.PolySketch(3, 6),
    "gegenbauer": ns.Gegenbauer(3, 6),
}


def inputs(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def net():
    return stax.serial(
        stax.ConvTranspose(4, (3,), (2,), "SAME", W_std=1.3, b_std=0.2),
        stax.Relu(),
        stax.FanOut(2),
        stax.parallel(stax.ConvLocal(4, (2,), None, "SAME", 1.2, 0.1), stax.Dense(4, b_std=0.2)),
        stax.FanInProd(),
        stax.Index(stax.Slice[:, ::-1]),
        stax.DotGeneral(lhs=0.7),
        stax.Dense(4, b_std=0.1),
        stax.Erf(),
        stax.Flatten(),
        stax.Dense(1),
    )


X = inputs(5, 2, 2)

#: The net above, and nets of Neural Tangents' examples.
EXAMPLES = (
    *("wide residual", "Myrtle, layer norm", "upsampled", "locally connected", "attention"),
    "graph",
)
NETS = {"all layers": (net, (2, 2))} | {name: ARCHITECTURES[name][:2] for name in EXAMPLES}
over_nets = pytest.mark.parametrize("row", others_slow(NETS, "all layers"))
over_methods = pytest.mark.parametrize("name", others_slow(METHODS, "random"))
over_dtypes = pytest.mark.parametrize("dtype", others_slow(["float32", "float64"], "float64"))


@functools.cache
def model_of(row):
    return NETS[row][0]()


def examples_of(row, dtype="float64"):
    return inputs(5, *NETS[row][1]).astype(dtype)


def graphs_of(row, dtype="float64"):
    """Call-time arguments of these examples."""
    if row not in GRAPHS:
        return {}
    return {"pattern": np.abs(inputs(5, *GRAPHS[row], seed=2)).astype(dtype)}


@functools.cache
def made(name, row="all layers", dtype="float64"):
    x, graphs = examples_of(row, dtype), graphs_of(row, dtype)
    return ns.feature_map(model_of(row), x, METHODS[name], key=KEY, **graphs)


def close(a, b, rtol):
    for kind in ("nngp", "ntk"):
        p, q = np.asarray(getattr(a, kind)), np.asarray(getattr(b, kind))
        assert p.dtype == q.dtype
        assert np.all(np.linalg.norm(p - q, axis=1) <= rtol * np.linalg.norm(q, axis=1))


# ------------------------------------------------------------------ transformations


@over_nets
@over_methods
@over_dtypes
def test_jit_gradients_and_dtype(dtype, name, row):
    """Under jit the same features, in the dtype of the inputs; derivatives finite at the sample and
    at 0.
    """
    examples, feature_map = examples_of(row, dtype), made(name, row, dtype)
    graphs = graphs_of(row, dtype)
    z = feature_map(examples, **graphs)
    weights = [inputs(*np.shape(leaf)).astype(examples.dtype) for leaf in (z.nngp, z.ntk)]

    @jax.jit
    def value_and_features(feature_map, x):
        def value(x):
            z = feature_map(x, **graphs)
            return jnp.sum(weights[0] * z.nngp) + jnp.sum(weights[1] * z.ntk), z

        return jax.value_and_grad(value, has_aux=True)(x)

    assert z.nngp.dtype == z.ntk.dtype == examples.dtype
    for x in (examples, np.zeros_like(examples)):
        (_, features), gradient = value_and_features(feature_map, x)
        assert np.all(np.isfinite(gradient))
        if x is examples:
            close(features, z, 1000 * float(jnp.finfo(x.dtype).eps))


@over_nets
@pytest.mark.parametrize(
    "name", others_slow([name for name in METHODS if name != "landmarks"], "random")
)
def test_vmap_over_keys(name, row):
    x, graphs = examples_of(row), graphs_of(row)

    def features(key):
        return ns.feature_map(model_of(row), x, METHODS[name], key=key, **graphs)(x, **graphs)

    together = jax.vmap(features)(jnp.stack([KEY, jax.random.key(6)]))
    close(jax.tree.map(lambda leaf: leaf[0], together), made(name, row)(x, **graphs), 1000 * EPS)
    assert not np.allclose(together.ntk[0], together.ntk[1])


@over_nets
@over_methods
def test_batch_independence(name, row):
    """Row by row, also under `vmap`."""
    x, graphs, feature_map = examples_of(row), graphs_of(row), made(name, row)

    def one(x, graphs):
        x, graphs = jax.tree.map(lambda leaf: leaf[None], (x, graphs))
        return jax.tree.map(lambda leaf: leaf[0], feature_map(x, **graphs))

    whole = feature_map(x, **graphs)
    close(jax.vmap(one)(x, graphs), whole, 100 * EPS)
    alone = feature_map(x[1:2], **{name: graph[1:2] for name, graph in graphs.items()})
    close(alone, jax.tree.map(lambda leaf: leaf[1:2], whole), 100 * EPS)


def test_specification():
    """Slices and arrays among the arguments are written down and read again."""
    text = json.dumps(made("random").specification)
    again = ns.FeatureMap.from_specification(json.loads(text), made("random").arrays)
    close(again(X), made("random")(X), 0.0)
    assert again.fingerprint == made("random").fingerprint


@over_nets
def test_exact_diagonals(row):
    x, graphs, feature_map = examples_of(row), graphs_of(row), made("random", row)
    pairs = {name: (graph, graph) for name, graph in graphs.items()}
    exact = model_of(row)[2](x, None, ("nngp", "ntk"), **pairs)
    for kind, found in zip(("nngp", "ntk"), feature_map.diagonals(x, **graphs), strict=True):
        rtol = 1e-8 if row in ("upsampled", "graph") else 1e-10  # NT's Gelu, at cosine one
        np.testing.assert_allclose(found, np.diag(getattr(exact, kind)), rtol=rtol)


@over_nets
@pytest.mark.parametrize("name", others_slow(["random", "poly sketch", "gegenbauer"], "random"))
def test_norms_are_exact(name, row):
    """At every position of a nonlinearity, where nets end here. Layers behind the last one may mix
    positions: a pool, attention, a graph.
    """
    layers = model_of(row).rule.layers
    last = max(place for place, layer in enumerate(layers) if layer.rule.nonlinearities)
    model = stax.serial(*layers[: last + 1])
    x, graphs = examples_of(row), graphs_of(row)
    feature_map = ns.feature_map(model, x, METHODS[name], key=KEY, **graphs)
    z = feature_map(x, **graphs)
    for kind, diagonal in zip(("nngp", "ntk"), feature_map.diagonals(x, **graphs), strict=True):
        norms = np.sum(np.asarray(getattr(z, kind)) ** 2, axis=-1)
        none = norms == 0  # where none of six random directions is active
        assert none.mean() < (0.1 if name == "random" else 1e-9)
        np.testing.assert_allclose(norms[~none], np.asarray(diagonal)[~none], rtol=1e-10)


# ------------------------------------------------------------------ series


@pytest.mark.parametrize("derivative", [False, True])
def test_series_of_a_normalised_exponential(derivative):
    """`k = Σ_l c_l(r) c_l(r') ρ^l` at every pair of norms; `γ^l / l!` by its definition."""
    dual, r, rho = stax.ExpNormalized(0.7, -0.9).rule.dual, np.array([0.5, 3.0]), 0.3
    found = hermite_coefficients(dual, r, 20, derivative=derivative)
    c = jnp.asarray(rho * r.prod())
    kernel = dual(c, jnp.asarray(r[0] ** 2), jnp.asarray(r[1] ** 2))[int(derivative)]
    np.testing.assert_allclose(found.values.prod(0) @ rho ** np.arange(21), kernel, rtol=1e-10)
    power = (0.7**3 / 6) * np.exp(-0.7 * 0.9) * (0.7 if derivative else r.prod())
    np.testing.assert_allclose(found.values.prod(0)[3], power, rtol=1e-10)


# ------------------------------------------------------------------ products


def branches(*layers):
    return stax.serial(
        stax.FanOut(len(layers)), stax.parallel(*layers), stax.FanInProd(), stax.Dense(1)
    )


@pytest.mark.parametrize("sampling", ["uniform", "pivoted"])
def test_landmarks_of_a_product(sampling):
    """The Nyström approximation of both product kernels, from Neural Tangents' own values."""
    model, x = branches(stax.Dense(3, b_std=0.1), stax.Dense(3, 1.2, 0.2)), inputs(12, 2)
    method = ns.Nystroem(4, sampling=sampling)
    feature_map = ns.feature_map(model, x, method, key=KEY)
    z = x[feature_map.is_landmark(x)]
    assert len(z) == 4
    bare = stax.serial(*ns_layers(model)[:-1])
    cross, inner = (bare[2](a, z, ("nngp", "ntk")) for a in (x, z))
    found = feature_map.kernel_fn(x)
    parts = {
        kind: getattr(cross, kind) @ np.linalg.solve(getattr(inner, kind), getattr(cross, kind).T)
        for kind in ("nngp", "ntk")
    }
    np.testing.assert_allclose(found.nngp, parts["nngp"], rtol=1e-7)
    np.testing.assert_allclose(found.ntk, parts["nngp"] + parts["ntk"], rtol=1e-7)


def ns_layers(model):
    return [layer.build() for layer in model.specification.arguments["layers"]]


def test_products_take_an_entry_of_a_schedule():
    model = branches(stax.serial(stax.Dense(3), stax.Relu()), stax.Dense(3))
    z = ns.feature_map(model, inputs(4, 3), ns.RandomFeatures((5, 7)), key=KEY)(inputs(4, 3))
    assert z.nngp.shape == (4, 7)
    with pytest.raises(ValueError, match=r"3 entries for 2 nonlinearities"):
        ns.feature_map(model, inputs(4, 3), ns.RandomFeatures((5, 7, 9)), key=KEY)


def test_product_of_one_branch_is_the_branch():
    x = inputs(4, 3)
    model = stax.serial(stax.FanOut(1), stax.parallel(stax.Dense(3)), stax.FanInProd())
    found = ns.feature_map(model, x, ns.RandomFeatures(2), key=KEY).kernel_fn(x)
    exact = model[2](x, None, ("nngp", "ntk"))
    np.testing.assert_allclose(found.ntk, exact.ntk, rtol=1e-12)


def test_products_that_are_refused():
    x = inputs(4, 3)
    unequal = branches(stax.Dense(3), stax.Dense(4))
    with pytest.raises(ValueError, match=r"In layer FanInProd\(\)\.[^\n]*shapes"):
        ns.feature_map(unequal, x, ns.RandomFeatures(2), key=KEY)
    elsewhere = branches(stax.Conv(3, (2, 2)), stax.Dense(3))
    with pytest.raises(ValueError, match=r"In layer FanInProd\(\)\.[^\n]*shapes"):
        ns.feature_map(elsewhere, inputs(4, 4, 4, 3), ns.RandomFeatures(2), key=KEY)
    model = branches(stax.Dense(3), stax.Dense(3))
    with pytest.raises(TypeError, match=r"Exact at FanInProd\(\) takes its sample from the data"):
        ns.feature_map(model, jax.ShapeDtypeStruct((4, 3), np.float64), ns.Exact(), key=KEY)
    with pytest.raises(ValueError, match=r"variance 0 at FanInProd\(\)"):
        ns.feature_map(model, np.zeros((4, 3)), ns.Nystroem(2), key=KEY)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (stax.Index(stax.Slice[:, 7]), ValueError, r"In layer Index\(.*out of bounds for axis 1"),
        (stax.Index(stax.Slice[:, 7:]), ValueError, r"In layer Index\(\(:, 7:\)\).*selects none"),
        (
            stax.Index(stax.Slice[:, [0, 9]]),
            ValueError,
            r"In layer Index\(.*out of bounds.* axis 1",
        ),
        (
            stax.ExpNormalized(-0.5),
            NotImplementedError,
            r"Normalized\(-0\.5\) has no finite.*the kernel alone",
        ),
        (stax.Index(stax.Slice[::2]), NotImplementedError, r"Index.*all of them"),
        (stax.Index(stax.Slice[::-1]), ValueError, r"Index.*treats examples one by one"),
        (stax.Index(stax.Slice[..., 0]), NotImplementedError, r"In layer Index.*channel axis"),
        (
            stax.DotGeneral(lhs=np.eye(4), dimension_numbers=(((1,), (1,)), ((), ()))),
            NotImplementedError,
            r"DotGeneral\(.*makes \(4, n, 3, channels\) of \(n, 4, 3, channels\)",
        ),
        (
            stax.DotGeneral(rhs=np.eye(4), dimension_numbers=(((1,), (0,)), ((), ()))),
            NotImplementedError,
            r"makes \(n, 3, channels, 4\)",
        ),
    ],
)
def test_refused(layer, error, message):
    model = stax.serial(stax.Dense(2), layer)
    with pytest.raises(error, match=message):
        ns.feature_map(model, inputs(2, 4, 3, 2), ns.RandomFeatures(2), key=KEY)


def test_call_time_arguments_that_no_layer_takes():
    with pytest.raises(TypeError, match=r"unknown argument 'idx': no layer of this model takes it"):
        ns.feature_map(net(), X, METHODS["random"], key=KEY, idx=1)
    with pytest.raises(TypeError, match="unknown argument 'rhs'"):
        made("random")(X, rhs=2.0)


def test_locally_connected_behind_linear_layers():
    """Whose products are still to come where features are shapes alone."""
    make, shape, *_ = ARCHITECTURES["locally connected, behind linear layers"]
    x = inputs(3, *shape)
    of_data, of_shapes = (
        ns.feature_map(make(), sample, METHODS["random"], key=KEY)
        for sample in (x, jax.ShapeDtypeStruct(x.shape, x.dtype))
    )
    np.testing.assert_array_equal(of_shapes(x).ntk, of_data(x).ntk)


def test_many_weights_of_their_own_are_warned_about():
    """Behind 64 x 64 positions a feature is 0.9 MiB for each of 3 x 9 inputs."""
    model = stax.serial(stax.ConvLocal(1, (7, 7), padding="SAME"), stax.Relu())
    shape = jax.ShapeDtypeStruct((1, 128, 128, 3), np.float64)
    with pytest.warns(UserWarning, match=r"ConvLocal\(.*every feature .* takes .* MiB"):
        jax.eval_shape(
            lambda: ns.feature_map(model, shape, ns.RandomFeatures(1), key=KEY, get="nngp")
        )
