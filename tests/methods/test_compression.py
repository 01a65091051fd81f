"""Patches too long to be formed: projections in their place, and features that do not multiply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import Method, _method

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
    """All patches of pending convolutions count as too long."""

    def compresses(self, features):
        pending = features.pending
        wide = self.compressed_width is not None
        return wide and pending is not None and pending.operator is not None

    monkeypatch.setattr(Method, "compresses", compresses)


def error(made, exact, x):
    kernels = made.kernel_fn(x)
    return [
        float(np.linalg.norm(np.asarray(close) - right) / np.linalg.norm(right))
        for close, right in zip((kernels.nngp, kernels.ntk), exact, strict=True)
    ]


@pytest.mark.parametrize("name", METHODS)
def test_features_do_not_multiply_with_blocks(name):
    """Formed, those of two blocks at a width of 128 are 13,079 and 51,142."""
    x = images(12, 8).astype(np.float32)
    made = ns.feature_map(residual(2), x, METHODS[name](128), key=KEY)
    # In the last block the shortcut and the main branch; behind Dense those of Θ twice.
    assert made.n_features["nngp"] == 2 * 128
    assert made.n_features["ntk"] == 4 * 128


@pytest.mark.usefixtures("float64", "compressed")
@pytest.mark.parametrize("model", [linear, residual], ids=["linear", "residual"])
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
        patch.setattr(Method, "compresses", lambda self, features: False)
        formed = ns.feature_map(model, x, ns.Nystroem(7), key=KEY)(x).nngp
    k = np.asarray(formed).reshape(len(z), -1)
    k = k @ k.T
    tail = np.linalg.eigvalsh(k)[:-7]
    np.testing.assert_allclose(np.linalg.norm(z @ z.T - k), np.linalg.norm(tail), rtol=1e-8)


@pytest.mark.usefixtures("float64", "compressed")
@pytest.mark.parametrize("name", ["RandomFeatures", "LeverageScore", "PolySketch"])
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


@pytest.mark.usefixtures("compressed")
def test_norms_are_exact_where_methods_normalise():
    x = images(3, 4)
    model = stax.serial(conv(), conv((2, 2)), stax.Relu(), stax.Dense(1))
    made = ns.feature_map(model, x, ns.RandomFeatures(64), key=KEY)
    nngp, _ = made.diagonals(x)
    np.testing.assert_allclose(np.sum(made(x).nngp ** 2, -1), nngp, rtol=1e-4)


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


def test_shapes_alone_are_refused_where_directions_are_sought():
    x = jax.ShapeDtypeStruct((2, 8, 8, 300), np.float32)
    model = stax.serial(conv(), conv())
    with pytest.raises(TypeError, match="takes its sample from the data"):
        ns.feature_map(model, x, ns.Nystroem(8), key=KEY)
