"""The contracts of `feature_map`, over a table of architectures and methods."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import ARCHITECTURES
from marks import crossed, others_slow

import ntk_sketch as ns

# isort: split
import neural_tangents as nt  # importable after `ntk_sketch`

from ntk_sketch import stax
from ntk_sketch.activations._jumps import RandomFunction

pytestmark = pytest.mark.usefixtures("float64")

EPS = float(jnp.finfo(jnp.float64).eps)
KEY = jax.random.key(3)
METHODS = {
    "random": ns.RandomFeatures(16),
    "random, not normalised": ns.RandomFeatures(16, normalize=False),
    "leverage score": ns.LeverageScore(16),
    "nystroem": ns.Nystroem(3, residual=0.0),
    "nystroem, residual": ns.Nystroem(2, residual=0.5),
    "nystroem, network": ns.Nystroem(3, scope="network"),
    "poly sketch": ns.PolySketch(3, 16),
    "gegenbauer": ns.Gegenbauer(3, 16),
    "exact": ns.Exact(),
}
OBLIVIOUS = [name for name, method in METHODS.items() if not method.looks_at_data]
LAYER_BY_LAYER = [name for name, method in METHODS.items() if not method.whole_network]
NETS = ["linear", "dense Relu", "nested serial", "layer norm"]

pairs = functools.partial(crossed, NETS, METHODS, row="dense Relu", column="nystroem, residual")
over_pairs = pytest.mark.parametrize(("net", "method"), pairs())
over_methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def vectors_for_whole_networks(request):
    """Methods that expand a whole network take inputs without positions."""
    row = getattr(getattr(request.node, "callspec", None), "params", {})
    vectors = "net" not in row or len(ARCHITECTURES[row["net"]].shape) == 1
    if not vectors and row.get("method") not in (None, *LAYER_BY_LAYER):
        pytest.skip("inputs with positions")


def inputs(net, n=4, seed=1):
    return np.random.default_rng(seed).normal(size=(n, *ARCHITECTURES[net].shape))


@functools.cache
def model_of(net):
    return ARCHITECTURES[net].model()


@functools.cache
def made(net, method):
    """The map for `inputs(net)`, in float64; every test takes the same, compiled once."""
    return ns.feature_map(model_of(net), inputs(net), METHODS[method], key=KEY)


@functools.cache
def features_of(net, method):
    return made(net, method)(inputs(net))


def same(a, b, rtol=0.0):
    """Row by row, to `rtol` of the norm of each row of `b` (and identical for 0)."""
    for name in ("nngp", "ntk"):
        p, q = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        assert p.shape == q.shape
        assert p.dtype == q.dtype
        p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
        error = np.linalg.norm(p - q, axis=1)
        assert np.all(error <= rtol * np.linalg.norm(q, axis=1)), error


# Compiled anew, sums come in another order. Random features: their values' rounding, through a few
# layers of sums of up to some hundred terms. Exact features divide by roots of small eigenvalues,
# kept down to about 1e-14 of the largest: 1e-7 at worst. So do features of landmarks, of
# which there are three here: the roots of their Gram matrices have condition numbers below 10.
RECOMPILED = {
    name: 1e-7 if name == "exact" else 1000 * EPS if METHODS[name].looks_at_data else 100 * EPS
    for name in METHODS
}


# ------------------------------------------------------------------ transformations


@over_pairs
def test_pytree(net, method):
    feature_map = made(net, method)
    leaves, tree = jax.tree.flatten(feature_map)
    assert leaves
    rebuilt = jax.tree.unflatten(tree, leaves)
    same(rebuilt(inputs(net)), features_of(net, method))
    mapped = jax.tree.map(lambda leaf: leaf, feature_map)
    assert jax.tree.structure(mapped) == tree
    same(mapped(inputs(net)), features_of(net, method))


@over_pairs
def test_jit(net, method):
    jitted = jax.jit(lambda feature_map, x: feature_map(x))(made(net, method), inputs(net))
    same(jitted, features_of(net, method), RECOMPILED[method])


@pytest.mark.parametrize(
    ("net", "method"),
    [
        ("dense Relu", "random, not normalised"),
        pytest.param("nested serial", "random", marks=pytest.mark.slow),
        pytest.param("nested serial", "leverage score", marks=pytest.mark.slow),
    ],
)
def test_vmap_over_keys(net, method):
    x, keys = inputs(net), jax.random.split(KEY, 3)

    def features(key):
        return ns.feature_map(model_of(net), x, METHODS[method], key=key)(x)

    together = jax.vmap(features)(keys)
    for i, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        # Directions are drawn by some twenty iterations, compiled anew too.
        same(one, features(key), 10 * RECOMPILED[method])


@over_pairs
def test_gradients(net, method):
    """Finite at the sample itself, where kernels have kinks, and at 0; and right."""
    feature_map, x = made(net, method), inputs(net)
    z = features_of(net, method)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=a.shape) for a in (z.nngp, z.ntk)]

    @jax.jit
    def value(feature_map, x):
        z = feature_map(x)
        return jnp.sum(weights[0] * z.nngp) + jnp.sum(weights[1] * z.ntk)

    gradient = jax.jit(jax.grad(value, argnums=1))
    assert np.all(np.isfinite(gradient(feature_map, x)))
    assert np.all(np.isfinite(gradient(feature_map, np.zeros_like(x))))
    if method == "random, not normalised":
        # The part of jumps is no difference of values: tests/methods/test_gradients.py.
        feature_map = without_jumps(feature_map)
        step, towards = 1e-6, rng.normal(size=x.shape)
        ends = (value(feature_map, x + sign * step * towards) for sign in (1, -1))
        difference = np.subtract(*ends) / (2 * step)
        # Central differences: rounding over the step, or the step squared.
        slope = np.sum(gradient(feature_map, x) * towards)
        np.testing.assert_allclose(slope, difference, rtol=1e-6)


def without_jumps(feature_map):
    """With the automatic derivatives alone."""

    def plain(node):
        if not isinstance(node, RandomFunction):
            return node
        return eqx.tree_at(lambda f: f.jumps, node, (None, None), is_leaf=lambda j: j is None)

    return jax.tree.map(plain, feature_map, is_leaf=lambda node: isinstance(node, RandomFunction))


@pytest.mark.parametrize(("net", "method"), pairs(by_default=("random", "nystroem")))
def test_batch_independence(net, method):
    """Row i does not depend on row j (float64): the row alone is the same to 10 eps of its norm.

    Exact features multiply rounding by the inverse root of the smallest eigenvalue that they keep:
    not theirs, but their products with the sample's are compared. With three landmarks that is a
    factor below 10.
    """
    x, together = inputs(net), features_of(net, method)
    for i in (0, 2):
        alone = made(net, method)(x[i : i + 1])
        row = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], together)
        if method != "exact":
            same(alone, row, 100 * EPS if METHODS[method].looks_at_data else 10 * EPS)
            continue
        for name in ("nngp", "ntk"):
            a, b, all_rows = (
                np.reshape(getattr(z, name), (len(getattr(z, name)), -1))
                for z in (alone, row, together)
            )
            scale = np.linalg.norm(b) * np.linalg.norm(all_rows, axis=1)
            assert np.all(np.abs((a - b) @ all_rows.T)[0] <= 1e-8 * scale)


# ------------------------------------------------------------------ dtypes and keys


@pytest.mark.parametrize("method", others_slow(METHODS, "random", "poly sketch", "exact"))
@pytest.mark.parametrize(
    ("net", "dtype"),
    [
        ("dense Relu", np.float32),
        pytest.param("dense Relu", np.float64, marks=pytest.mark.slow),
        pytest.param("nested serial", np.float32, marks=pytest.mark.slow),
    ],
)
def test_dtype_follows_the_input(net, method, dtype):
    x = inputs(net).astype(dtype)
    feature_map = ns.feature_map(model_of(net), x, METHODS[method], key=KEY)
    z = feature_map(x)
    assert z.nngp.dtype == z.ntk.dtype == dtype
    assert feature_map.kernel_fn(x, None, "nngp").dtype == dtype
    assert np.all(np.isfinite(z.ntk))
    other = np.float32 if dtype == np.float64 else np.float64
    # Never below the map's own precision, nor below that of the inputs.
    assert feature_map(x.astype(other)).ntk.dtype == np.float64


@pytest.mark.parametrize(
    ("net", "method"),
    crossed(["dense Relu", "nested serial"], OBLIVIOUS, row="dense Relu", column="random"),
)
def test_keys(net, method):
    again = ns.feature_map(model_of(net), inputs(net), METHODS[method], key=KEY)(inputs(net))
    same(again, features_of(net, method))
    other = ns.feature_map(model_of(net), inputs(net), METHODS[method], key=jax.random.key(4))(
        inputs(net)
    )
    assert not np.allclose(other.nngp, again.nngp)
    assert not np.allclose(other.ntk, again.ntk)


def test_layers_draw_independently():
    """Equal layers with equal input sizes have directions of their own."""
    model = stax.serial(*[stax.Dense(4), stax.Relu()] * 3)
    feature_map = ns.feature_map(model, inputs("dense Relu"), ns.RandomFeatures(6), key=KEY)
    square = [leaf for leaf in jax.tree.leaves(feature_map) if np.shape(leaf) == (6, 6)]
    assert len(square) >= 3
    for i, a in enumerate(square):
        assert not any(np.allclose(a, b) for b in square[i + 1 :])


# ------------------------------------------------------------------ inputs, outputs


@pytest.mark.parametrize("method", others_slow(OBLIVIOUS, "random", "gegenbauer"))
def test_shapes_are_enough(method):
    net = "nested serial"
    x = inputs(net)
    shapes = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    feature_map = ns.feature_map(model_of(net), shapes, METHODS[method], key=KEY)
    same(feature_map(x), features_of(net, method))


def test_exact_wants_examples():
    shapes = jax.ShapeDtypeStruct((4, 6), np.float64)
    with pytest.raises(TypeError, match=r"^Exact at Relu\(\) takes its sample.*Pass example input"):
        ns.feature_map(model_of("dense Relu"), shapes, ns.Exact(), key=KEY)


GETS = {"nngp": "nngp", "ntk": "ntk", "one": ("nngp",), "both": ("ntk", "nngp"), "list": ["ntk"]}


@pytest.mark.parametrize(("get", "method"), crossed(GETS, METHODS, row="nngp", column="nystroem"))
def test_get(get, method):
    net, get = "dense Relu", GETS[get]
    x = inputs(net)
    feature_map = ns.feature_map(model_of(net), x, METHODS[method], key=KEY, get=get)
    asked = (get,) if isinstance(get, str) else tuple(get)
    assert feature_map.get == asked
    z = feature_map(x)
    for name in ("nngp", "ntk"):
        features = getattr(z, name)
        if name in asked:  # and the same as when both are asked for
            np.testing.assert_allclose(
                features, getattr(features_of(net, method), name), rtol=1e-6, atol=1e-9
            )
        else:
            assert features is None


def test_what_is_not_asked_for_is_not_drawn():
    both, nngp = (
        ns.feature_map(
            model_of("nested serial"), inputs("nested serial"), METHODS["random"], key=KEY, get=get
        )
        for get in (("nngp", "ntk"), "nngp")
    )
    sizes = [sum(np.size(leaf) for leaf in jax.tree.leaves(m)) for m in (both, nngp)]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("method", others_slow(LAYER_BY_LAYER, "random", "nystroem", "exact"))
def test_output_shapes(method):
    """(n, p) after Flatten or a global pool, (n, *space, p) without; p is that of the method."""
    conv = stax.Conv(4, (3, 2), strides=(2, 1), padding="SAME")
    relu = stax.Relu()
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    ends = {
        (3, 2): (stax.AvgPool((1, 2), (1, 2)),),
        (3, 4): (),
        None: (stax.Flatten(), stax.Dense(1)),
        (): (stax.GlobalAvgPool(), stax.Dense(1)),
    }
    for space, end in ends.items():
        feature_map = ns.feature_map(stax.serial(conv, relu, *end), x, METHODS[method], key=KEY)
        z = jax.eval_shape(feature_map, x)
        for features in (z.nngp, z.ntk):
            assert features.shape[:-1] == (3, *(space or ()))
        if method != "exact":
            p = METHODS[method].width.one * (12 if space is None else 1)
            assert z.nngp.shape[-1] == p
            # The last Dense adds the NNGP part.
            assert z.ntk.shape[-1] == (2 * p if space in (None, ()) else p)


def test_zero_kernel():
    """Θ of a net without trained weights is 0: one feature, which is 0."""
    x = inputs("dense Relu")
    z = ns.feature_map(stax.serial(stax.Identity()), x, METHODS["random"], key=KEY)(x)
    assert z.ntk.shape == (4, 1)
    assert not np.any(z.ntk)
    # The dot product of the inputs over their number of channels.
    np.testing.assert_allclose(z.nngp @ z.nngp.T, x @ x.T / 6, rtol=1e-14)


@over_pairs
def test_zero_inputs(net, method):
    """Images and positions of zeros: finite features, in the sample too."""
    x = inputs(net)
    x[0] = 0.0
    x[1, :1] = 0.0
    z = made(net, method)(x)
    sample = ns.feature_map(model_of(net), x, METHODS[method], key=KEY)(x)
    for features in (z.nngp, z.ntk, sample.nngp, sample.ntk):
        assert np.all(np.isfinite(features))


# ------------------------------------------------------------------ kernel_fn


@over_methods
def test_kernel_fn(method):
    net = "dense Relu"
    feature_map, x = made(net, method), inputs(net)
    x2 = inputs(net, 2, seed=5)
    z, z2 = features_of(net, method), feature_map(x2)
    ntk = feature_map.kernel_fn(x, x2, "ntk")
    assert isinstance(ntk, jax.Array)
    np.testing.assert_allclose(ntk, z.ntk @ z2.ntk.T, rtol=1e-12)
    both = feature_map.kernel_fn(x, x2, ("ntk", "nngp"))
    assert both._fields == ("ntk", "nngp")
    assert np.array_equal(both.ntk, ntk)
    np.testing.assert_allclose(both.nngp, z.nngp @ z2.nngp.T, rtol=1e-12)
    own = feature_map.kernel_fn(x)
    assert own._fields == ("nngp", "ntk")
    np.testing.assert_allclose(own.nngp, z.nngp @ z.nngp.T, rtol=1e-12)
    assert feature_map.kernel_fn(x, None, ("nngp",)).nngp.shape == (4, 4)


def test_kernel_fn_in_neural_tangents():
    """`nt.batch` and `nt.predict` take it, as `nt.predict` would take the matrices."""
    net = "dense Relu"
    feature_map = made(net, "random")
    x, x_test = inputs(net), inputs(net, 2, seed=5)
    y = np.random.default_rng(7).normal(size=(4, 2))
    batched = nt.batch(feature_map.kernel_fn, batch_size=2, device_count=0)
    for get in ("ntk", ("nngp", "ntk")):
        a, b = batched(x_test, x, get), feature_map.kernel_fn(x_test, x, get)
        for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-12)

    predict = nt.predict.gradient_descent_mse_ensemble(feature_map.kernel_fn, x, y, diag_reg=1e-2)
    for get in ("ntk", "nngp"):
        k, k_test = (feature_map.kernel_fn(a, x, get) for a in (x, x_test))
        penalty = 1e-2 * np.trace(k) / 4
        mean = k_test @ np.linalg.solve(k + penalty * np.eye(4), y)
        # Condition numbers below 1e3.
        np.testing.assert_allclose(predict(x_test=x_test, get=get), mean, rtol=1e-10)
    mean = predict(x_test=x_test, get=("nngp", "ntk"), compute_cov=True)
    assert mean.ntk.covariance.shape == (2, 2)


# ------------------------------------------------------------------ memory


def test_batch_size():
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    model = stax.serial(stax.Conv(1, (3, 3)), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))
    small, large = (
        ns.feature_map(model, shape, ns.RandomFeatures(width), key=KEY) for width in (64, 512)
    )
    size = small.batch_size(2**22, np.float32)
    assert size > 1
    assert size & (size - 1) == 0
    # φ and ψ at 36 positions exist, and little more than that at once.
    assert 2**22 / 20 < size * 2 * 36 * 64 * 4 <= 2**22
    # Proportional, up to the rounding to powers of two.
    assert small.batch_size(2**23, np.float32) == 2 * size
    assert size / 16 <= large.batch_size(2**22, np.float32) <= size / 4
    assert small.batch_size(2**22, np.float64) in (size // 2, size)
    assert small.batch_size(1) == 1
    assert small.batch_size(2**40) == 4096
