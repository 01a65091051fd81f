"""Patches too long to be formed are projected, which bounds the number of features."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import Method, _method
from ntk_sketch.stax import _compression

KEY = jax.random.key(0)
METHODS = {
    "Nystroem": ns.Nystroem,
    "RandomFeatures": ns.RandomFeatures,
    "LeverageScore": ns.LeverageScore,
    "PolySketch": lambda width, **options: ns.PolySketch(2, width, **options),
}


def conv(shape=(3, 3), **options):
    return stax.Conv(1, shape, **({"padding": "SAME", "b_std": 0.3} | options))


def block(strides=(1, 1)):
    """Of a wide residual network, whose branches end in convolutions."""
    main = stax.serial(stax.Relu(), conv(strides=strides), stax.Relu(), conv())
    return stax.serial(stax.FanOut(2), stax.parallel(main, conv(strides=strides)), stax.FanInSum())


def residual(blocks=1):
    strides = [(1, 1), (2, 2), (2, 2)][:blocks]
    return stax.serial(
        conv(), *map(block, strides), stax.GlobalAvgPool(), stax.Flatten(), stax.Dense(1)
    )


def linear():
    """Convolutions alone: patches of patches of patches."""
    return stax.serial(conv(), conv((2, 2)), conv(strides=(2, 2)), stax.Flatten(), stax.Dense(1))


def images(count=8, side=8):
    return np.random.default_rng(0).normal(size=(count, side, side, 2))


@pytest.fixture
def compressed(monkeypatch):
    """All patches count as too long."""

    def compresses(self, features):
        both = self.compressed_width is not None and features.are_patches
        return both, both and features.ntk is not None

    monkeypatch.setattr(Method, "compresses", compresses)


def error(made, exact, x):
    kernels = made.kernel_fn(x)
    return [
        float(np.linalg.norm(np.asarray(close) - right) / np.linalg.norm(right))
        for close, right in zip((kernels.nngp, kernels.ntk), exact, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", others_slow(METHODS, "Nystroem"))
def test_features_do_not_multiply_with_blocks(name):
    """Formed, those of two blocks at a width of 128 are 13,079 and 51,142."""
    x = images(12, 8).astype(np.float32)
    made = ns.feature_map(residual(2), x, METHODS[name](128), key=KEY)
    # In the last block the shortcut and the main branch; behind Dense those of Θ twice.
    assert made.n_features["nngp"] == 2 * 128
    assert made.n_features["ntk"] == 4 * 128


@pytest.mark.usefixtures("float64", "compressed")
@pytest.mark.parametrize(
    "model", [linear, pytest.param(residual, marks=pytest.mark.slow)], ids=["linear", "residual"]
)
def test_all_principal_directions_change_no_kernel(model):
    x = images(4, 4)
    made = ns.feature_map(model(), x, ns.Nystroem(64, calibrate=False), key=KEY)
    exact = model()[2](x, None, ("nngp", "ntk"))
    if model is linear:
        assert max(error(made, exact, x)) < 1e-10
        return
    # Landmarks at every position: the kernel on the sample is exact but for what rounding cuts off.
    assert max(error(made, exact, x)) < 1e-7


@pytest.mark.usefixtures("float64", "compressed")
def test_the_error_is_that_of_the_directions_left_out(monkeypatch):
    """Of two convolutions on a sample all of whose positions are seen: the tail of the spectrum."""
    x = images(6, 6)
    model = stax.serial(conv(b_std=None), stax.Dense(1))
    made = ns.feature_map(model, x, ns.Nystroem(7), key=KEY)
    z = np.asarray(made(x).nngp).reshape(-1, 7)
    with monkeypatch.context() as patch:
        patch.setattr(Method, "compresses", lambda self, features: (False, False))
        formed = ns.feature_map(model, x, ns.Nystroem(7), key=KEY)(x).nngp
    k = np.asarray(formed).reshape(len(z), -1)
    k = k @ k.T
    tail = np.linalg.eigvalsh(k)[:-7]
    np.testing.assert_allclose(np.linalg.norm(z @ z.T - k), np.linalg.norm(tail), rtol=1e-8)


@pytest.mark.usefixtures("float64", "compressed")
@pytest.mark.parametrize("name", others_slow(["RandomFeatures", "LeverageScore", "PolySketch"]))
def test_random_projections_are_unbiased_and_their_error_falls(name):
    x, model, errors = images(3, 4), stax.serial(conv(), conv((2, 2)), stax.Dense(1)), []
    exact = stax.serial(model, stax.Flatten())[2](x, None, ("nngp", "ntk"))
    model = stax.serial(model, stax.Flatten())
    options = {} if name == "LeverageScore" else {"normalize": False}
    for width in (8, 128):
        kernels = [
            ns.feature_map(model, x, METHODS[name](width, **options), key=key).kernel_fn(x)
            for key in jax.random.split(KEY, 24)
        ]
        for at, right in enumerate(exact):
            found = np.stack([np.asarray(kernel[at]) for kernel in kernels])
            deviation = found.std(0, ddof=1)
            assert np.all(abs(found.mean(0) - right) < 5 * deviation / 24**0.5)
        errors.append(np.linalg.norm(deviation))
    assert 2.5 < errors[0] / errors[1] < 6.5  # the root of 16


def normed():
    """Layer norms form the patches of the convolutions before the sum."""

    def branch(*layers):
        return stax.serial(*layers, conv(), stax.LayerNorm(-1))

    main = branch(stax.Relu(), conv(), stax.Relu())
    return stax.serial(stax.FanOut(2), stax.parallel(main, branch()), stax.FanInSum())


@pytest.mark.parametrize("blocks", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_layers_between_convolution_and_sum_do_not_multiply_features_either(blocks):
    x = jax.ShapeDtypeStruct((2, 8, 8, 2), np.float32)
    layers = [conv(), *(normed() for _ in range(blocks)), stax.Flatten(), stax.Dense(1)]
    made = ns.feature_map(stax.serial(*layers), x, ns.LeverageScore(128), key=KEY)
    # Of the first block the shortcut's patches are short: 9 (9 * 2 + 1) + 1 numbers.
    formed = 172 if blocks == 1 else 128
    assert made.n_features["nngp"] == 64 * (128 + formed)


@pytest.mark.usefixtures("compressed")
@pytest.mark.parametrize("last", [stax.Flatten(), stax.Relu()], ids=["sum", "nonlinearity"])
def test_norms_are_exact_where_methods_normalise(last):
    x = images(3, 4).astype(np.float32)
    branches = (stax.FanOut(2), stax.parallel(conv(), conv((2, 2))), stax.FanInSum())
    model = stax.serial(conv(), stax.Relu(), *branches, last, stax.Dense(1))
    made = ns.feature_map(model, x, ns.RandomFeatures(64), key=KEY)
    features, exact = made(x), made.diagonals(x)
    for found, right in zip((features.nngp, features.ntk), exact, strict=True):
        np.testing.assert_allclose(np.sum(found**2, -1), right, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("compressed")
def test_directions_are_sought_where_something_is():
    """Among 2,048 positions drawn of 8,000 few of the 40 that are not 0 would be."""
    x = np.zeros((20, 400, 2), np.float32)
    x[:, :2] = np.random.default_rng(0).normal(size=(20, 2, 2))
    one = stax.Conv(1, (3,), padding="SAME")
    model = stax.serial(one, stax.Relu(), one, stax.Flatten(), stax.Dense(1))
    [errors, short] = [
        error(
            ns.feature_map(model, rows, ns.Nystroem(24, residual=0.0), key=KEY),
            model[2](rows, None, ("nngp", "ntk")),
            rows,
        )
        for rows in (x, x[:, :4])
    ]
    assert max(errors) < 3 * max(short) + 1e-3


@pytest.mark.usefixtures("compressed")
def test_branches_draw_on_their_own():
    x = jax.ShapeDtypeStruct((2, 4, 4, 2), np.float32)
    join = (stax.FanOut(2), stax.parallel(conv(), conv()), stax.FanInSum())
    model = stax.serial(conv(), stax.Relu(), *join, stax.Flatten())
    made = ns.feature_map(model, x, ns.RandomFeatures(8), key=KEY, get="nngp")
    kind = _compression.CompressionTransform
    leaves = jax.tree.leaves(made.transform, is_leaf=lambda leaf: isinstance(leaf, kind))
    [transform] = [leaf for leaf in leaves if isinstance(leaf, kind)]
    one, other = (branch.expansion.directions[0][0] for branch in transform.branches)
    assert one.shape == other.shape
    assert not np.any(np.asarray(one) == np.asarray(other))


def test_what_is_asked_for_changes_nothing():
    """Patches of ψ are longer than those of φ, which are formed."""
    x = jax.ShapeDtypeStruct((2, 4, 4, 2), np.float32)
    model = stax.serial(conv(), stax.Relu(), conv(), conv((1, 1)), stax.Flatten())
    both, alone = (
        ns.feature_map(model, x, ns.RandomFeatures(100), key=KEY, get=get)
        for get in (("nngp", "ntk"), "nngp")
    )
    assert both.n_features["nngp"] == alone.n_features["nngp"] == 16 * (9 * 100 + 2)
    assert both.n_features["ntk"] == 16 * (100 + 901 + 1)
    inputs = images(2, 4).astype(np.float32)
    # Two programs, that round in ways of their own.
    np.testing.assert_allclose(both(inputs).nngp, alone(inputs).nngp, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("compressed")
def test_a_layer_of_another_method_is_compressed_by_that():
    x = images(3, 4).astype(np.float32)
    last = stax.with_method(conv((1, 1), b_std=None), ns.Exact())
    model = stax.serial(conv(b_std=None), stax.Relu(), conv(b_std=None), last)
    made = ns.feature_map(model, x, ns.RandomFeatures(8), key=KEY, get="nngp")
    assert made.n_features["nngp"] == 9 * 8


@pytest.mark.usefixtures("compressed")
@pytest.mark.parametrize("scale", [1e-17, 1e15])
def test_any_scale(scale):
    x = images(4, 4).astype(np.float32)
    model = stax.serial(conv(b_std=None), conv(b_std=None), stax.Flatten())
    large, own = (
        np.asarray(ns.feature_map(model, rows, ns.Nystroem(16), key=KEY)(rows).nngp)
        for rows in (scale * x, x)
    )
    np.testing.assert_allclose(large / np.float32(scale), own, atol=1e-4 * np.abs(own).max())


@pytest.mark.usefixtures("float64", "compressed")
def test_masked_positions_stay_zero():
    x, constant = images(4, 4), -1000.0
    x[0, 2:] = constant
    x[2, :, 3:] = constant
    model = stax.serial(conv(), conv(), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))
    with jax.numpy_dtype_promotion("standard"):  # of NT
        right = model[2](x, None, ("nngp", "ntk"), mask_constant=constant)
    options = {"key": KEY, "mask_constant": constant}
    made = ns.feature_map(model, x, ns.Nystroem(52, calibrate=False), **options)
    assert max(error(made, right, x)) < 1e-7


@pytest.mark.usefixtures("float64", "compressed")
@pytest.mark.slow
def test_gradients_with_respect_to_weights(monkeypatch):
    """Roots that are folded into a projection are differentiated."""
    x = images(4, 4)

    def loss(scale):
        main = stax.serial(conv(W_std=scale), stax.Relu(), conv())
        join = (stax.FanOut(2), stax.parallel(main, conv()), stax.FanInSum())
        model = stax.serial(*join, stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))
        made = ns.feature_map(model, x, ns.Nystroem(64, calibrate=False), key=KEY)
        return jnp.sum(made.kernel_fn(x).ntk)

    found = jax.grad(loss)(1.3)
    step = 1e-4
    right = (loss(1.3 + step) - loss(1.3 - step)) / (2 * step)
    np.testing.assert_allclose(found, right, rtol=1e-5)


@pytest.mark.usefixtures("compressed")
@pytest.mark.slow
def test_maps_are_saved_with_their_projections(tmp_path):
    x = images().astype(np.float32)
    made = ns.feature_map(residual(), x, ns.Nystroem((12, 24)), key=KEY)
    made.save(tmp_path / "map.safetensors")
    loaded = ns.load(tmp_path / "map.safetensors")
    np.testing.assert_array_equal(loaded(x).ntk, made(x).ntk)


@pytest.mark.usefixtures("compressed")
def test_a_schedule_gives_the_width_of_the_nonlinearity_before():
    x = images().astype(np.float32)
    made = ns.feature_map(residual(), x, ns.RandomFeatures((24, 48)), key=KEY)
    # The sum: the main branch behind its second nonlinearity, the shortcut after it.
    assert made.n_features["nngp"] == 48 + 48


def test_short_patches_are_formed():
    """Up to 1,024 numbers, or four times the width."""
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
    model = stax.serial(conv(b_std=None), stax.Relu(), conv(b_std=None), conv((1, 1), b_std=None))
    assert _method._FORMED == 1024
    counts = [
        ns.feature_map(model, x, ns.RandomFeatures(width), key=KEY, get="nngp").n_features["nngp"]
        for width in (113, 114)
    ]
    assert counts == [9 * 113, 114]


@pytest.mark.usefixtures("compressed")
def test_a_lower_precision_applies_roots_first():
    """Roots in the projections would multiply what was multiplied by them already."""
    x = images(6, 4).astype(np.float32)
    net = stax.serial(conv((2, 2)), stax.Relu(), conv((2, 2)), conv((1, 1)), stax.Flatten())
    full, lower = (
        np.asarray(ns.feature_map(net, x, method, key=KEY, get="nngp").kernel_fn(x))
        for method in (ns.Nystroem(8), ns.Nystroem(8, precision="tensorfloat32"))
    )
    assert np.linalg.norm(lower - full) < 0.01 * np.linalg.norm(full)


@pytest.mark.usefixtures("compressed")
def test_vectors_of_unshared_weights_are_no_patches():
    """Those of different positions are orthogonal: few directions would lose most of them."""
    x = jax.ShapeDtypeStruct((2, 6, 2), np.float32)
    local = stax.ConvLocal(4, (2,), padding="SAME")
    model = stax.serial(stax.FanOut(2), stax.parallel(local, local), stax.FanInSum())
    made = ns.feature_map(model, x, ns.RandomFeatures(4), key=KEY, get="nngp")
    assert made.n_features["nngp"] == 2 * 6 * 2 * 2  # branches, positions, taps, channels


def test_shapes_alone_are_refused_where_directions_are_sought():
    x = jax.ShapeDtypeStruct((2, 8, 8, 300), np.float32)
    model = stax.serial(conv(), conv())
    with pytest.raises(TypeError, match="takes its sample from the data"):
        ns.feature_map(model, x, ns.Nystroem(8), key=KEY)


@pytest.mark.slow
@pytest.mark.usefixtures("float64", "compressed")
@pytest.mark.parametrize("name", others_slow(["Nystroem", "RandomFeatures"], "Nystroem"))
def test_contracts_of_a_map(name):
    """jit, rows on their own, both dtypes, and derivatives with respect to inputs."""
    x = images(6, 4)
    model = stax.serial(conv(), block(), stax.GlobalAvgPool(), stax.Dense(1))
    made = ns.feature_map(model, x, METHODS[name](12), key=KEY)
    whole = made(x).ntk
    assert whole.dtype == np.float64
    np.testing.assert_allclose(eqx.filter_jit(made)(x).ntk, whole, rtol=1e-10)
    alone = np.concatenate([made(row).ntk for row in np.split(x, 3)])
    np.testing.assert_allclose(alone, whole, rtol=1e-10, atol=1e-12)
    low = ns.feature_map(model, x.astype(np.float32), METHODS[name](12), key=KEY)
    assert low(x.astype(np.float32)).ntk.dtype == np.float32
    mapped = jax.vmap(lambda row: made(row[None]).nngp[0])(x)
    np.testing.assert_allclose(mapped, made(x).nngp, rtol=1e-10, atol=1e-12)
    if name == "Nystroem":
        direction = np.random.default_rng(4).normal(size=x.shape)
        _, found = jax.jvp(lambda x: made(x).ntk, (x,), (direction,))
        step = 1e-6
        right = (made(x + step * direction).ntk - made(x - step * direction).ntk) / (2 * step)
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("compressed")
@pytest.mark.slow
def test_keys_are_mapped():
    shape = jax.ShapeDtypeStruct((2, 4, 4, 2), np.float32)
    x = images(2, 4).astype(np.float32)

    def features(key):
        return ns.feature_map(linear(), shape, ns.RandomFeatures(8), key=key)(x).ntk

    keys = jax.random.split(KEY, 2)
    alone = np.stack(list(map(features, keys)))
    np.testing.assert_allclose(jax.vmap(features)(keys), alone, rtol=1e-4, atol=1e-5)
