"""Bad input to feature maps: what was given, what is needed, what to do, before any work."""

from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special

import ntk_sketch as ns
from ntk_sketch import stax

KEY = jax.random.key(0)
METHOD = ns.RandomFeatures(4)


def dense():
    return stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1))


def convolutional():
    return stax.serial(
        stax.Conv(4, (3, 3)), stax.Relu(), stax.Conv(4, (3, 3)), stax.Relu(), stax.GlobalAvgPool()
    )


def images(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """Nothing is drawn or decomposed before an error."""

    def work(*args, **kwargs):
        raise AssertionError("work was begun")

    monkeypatch.setattr(ns.Exact, "expand", work)
    draw = ns.RandomFeatures.expand
    monkeypatch.setattr(ns.RandomFeatures, "expand", work)
    return lambda: monkeypatch.setattr(ns.RandomFeatures, "expand", draw)


def refuse(error, match, model=None, x=None, method=METHOD, **options):
    with pytest.raises(error, match=match):
        ns.feature_map(
            dense() if model is None else model,
            images(3, 5) if x is None else x,
            method,
            key=KEY,
            **options,
        )


# ------------------------------------------------------------------ example inputs


@pytest.mark.parametrize("method", [METHOD, ns.Exact()])
class TestExamples:
    def test_rank(self, method):
        refuse(ValueError, r"x must have shape \(n, ..., channels\), got \(5,\)", x=images(5))
        # Without positions there is nothing to convolve.
        refuse(
            (ValueError, TypeError),
            r"^In layer Conv\(4, \(3, 3\)\)\..*shape \(n, 8, 3\)",
            convolutional(),
            images(2, 8, 3),
            method,
        )

    def test_too_few_positions(self, method):
        """Two valid 3x3 convolutions of 4x4 images leave nothing."""
        refuse(
            ValueError,
            r"In layer .*leave outputs of shape \(.*larger inputs, or pad",
            convolutional(),
            images(2, 4, 4, 3),
            method,
        )
        # Channels first, and a layer behind that divides by the number of positions.
        refuse(
            ValueError,
            r"In layer Conv\(4, \(5, 5\)\).*leave outputs of shape .*np\.moveaxis\(x, 1, -1\)",
            stax.serial(stax.Conv(4, (5, 5)), stax.Relu(), stax.Flatten(), stax.Dense(1)),
            images(2, 3, 8, 8),
            method,
        )

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, method, value):
        x = images(3, 5)
        x[1, 2] = x[2, 0] = value
        message = (
            r"x is not finite \(2 entries that are NaN or infinite, the first in row 1\)\. Remove"
        )
        refuse(ValueError, message + ".*mask_constant", x=x, method=method)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool])
    def test_integers(self, method, dtype):
        refuse(
            TypeError,
            rf"dtype {np.dtype(dtype).name}.*x\.astype\(np\.float32\) / 255",
            convolutional(),
            images(2, 8, 8, 3, dtype=dtype),
            method,
        )

    def test_empty(self, method):
        refuse(ValueError, r"x is empty: its shape is \(0, 5\)", x=images(0, 5), method=method)
        refuse(ValueError, r"x is empty: its shape is \(3, 0\)", x=images(3, 0), method=method)

    def test_not_an_array(self, method):
        for x in (None, "images", {"x": 1}, dense()):
            with pytest.raises(TypeError, match=r"x must be one array|x has dtype object"):
                ns.feature_map(dense(), x, method, key=KEY)
        for x in ("rows.npy", Path("rows.npy")):
            with pytest.raises(
                TypeError, match=r"got \w+ 'rows\.npy'.*np\.load\('rows\.npy', mmap"
            ):
                ns.feature_map(dense(), x, method, key=KEY)


def test_shapes_are_checked_too():
    """A `ShapeDtypeStruct` passes the same checks but for values."""
    shape = jax.ShapeDtypeStruct
    refuse(ValueError, "x must have shape", x=shape((5,), np.float32))
    refuse(TypeError, "dtype uint8", x=shape((2, 5), np.uint8))
    refuse(ValueError, "x is empty", x=shape((0, 5), np.float32))


# ------------------------------------------------------------------ inputs at the call


@pytest.fixture
def feature_map(no_work):
    no_work()
    return ns.feature_map(convolutional(), images(2, 6, 5, 3), METHOD, key=KEY)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 6, 5, 4),  # channels
        (2, 6, 6, 3),  # space
        (2, 5, 6, 3),
        (2, 6, 5),  # rank: no channels
        (6, 5, 3),  # one image without its axis
        (2, 1, 6, 5, 3),
    ],
)
def test_shape_at_the_call(feature_map, shape):
    for call in (feature_map, feature_map.kernel_fn):
        with pytest.raises(ValueError, match=r"x has shape \(.*need \(n, 6, 5, 3\)"):
            call(images(*shape))


def test_other_inputs_at_the_call(feature_map):
    with pytest.raises(TypeError, match=r"dtype uint8.*x\.astype\(np\.float32\) / 255"):
        feature_map(images(2, 6, 5, 3, dtype=np.uint8))
    with pytest.raises(ValueError, match="x is empty"):
        feature_map(images(0, 6, 5, 3))
    with pytest.raises(TypeError, match=r"must be one array of shape \(n, 6, 5, 3\), got NoneType"):
        feature_map(None)
    with pytest.raises(ValueError, match=r"made without masks\. Make it with.*mask_constant="):
        feature_map(images(2, 6, 5, 3), mask_constant=0.0)
    with pytest.raises(TypeError, match=r"unknown argument 'maks'.*no layer of this model"):
        feature_map(images(2, 6, 5, 3), maks=0.0)
    x = images(2, 6, 5, 3)
    np.testing.assert_array_equal(feature_map(x, pattern=None, rng=None).ntk, feature_map(x).ntk)


# ------------------------------------------------------------------ methods


@pytest.mark.parametrize("width", [0, -1, np.int64(-3)])
def test_width_not_positive(width):
    with pytest.raises(ValueError, match="width must be a positive integer, got"):
        ns.RandomFeatures(width)


@pytest.mark.parametrize("width", [1.5, 64.0, "64", None, True])
def test_width_not_an_integer(width):
    with pytest.raises(TypeError, match=r"width must be a positive integer, got .* of type"):
        ns.RandomFeatures(width)


@pytest.mark.parametrize("width", [3, np.int32(3), np.uint8(3)])
def test_width_of_any_integer_type(width):
    assert ns.RandomFeatures(width).width.one == 3


@pytest.mark.parametrize("method", ["RandomFeatures", "nystrom", 64, None, ns.RandomFeatures])
def test_unknown_method(method):
    known = "Exact, Gegenbauer, LeverageScore, Nystroem, PolySketch, RandomFeatures"
    refuse(TypeError, f"method must be an instance of one of {known}, such as", method=method)


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize("get", ["cntk", "cov1", ("nngp", "cov1"), ()])
def test_unknown_kernel(get):
    refuse(ValueError, r"get=.*known kernels are nngp, ntk", get=get)


def test_call_arguments():
    refuse(TypeError, "mask_constant is the number that marks", mask_constant="NaN")
    refuse(TypeError, "unknown argument 'mask_constnat'", mask_constnat=0.0)


@pytest.mark.parametrize(
    "model", [None, "myrtle5", lambda x: x, stax.Relu, tuple(dense()), [stax.Dense(1)]]
)
def test_model_is_not_a_layer(model):
    with pytest.raises(TypeError, match=r"model must be a Layer of ntk_sketch.stax, got"):
        ns.feature_map(model, images(3, 5), METHOD, key=KEY)


def test_an_unpacked_model():
    init_fn, apply_fn, kernel_fn = dense()
    with pytest.raises(TypeError, match=r"If you unpacked a model, give what `stax.serial`"):
        ns.feature_map((init_fn, apply_fn, kernel_fn), images(3, 5), METHOD, key=KEY)


@pytest.mark.parametrize("make", [stax.serial, stax.parallel, lambda f: stax.repeat(f, 2)])
def test_a_layer_that_was_not_called(make):
    with pytest.raises(TypeError, match=r"got the function Relu, .*: call it, `Relu\(\.\.\.\)`"):
        make(stax.Relu)


def test_rules_that_are_not_rules():
    triple = tuple(stax.Relu())
    for rule in (stax.linear, stax.nonlinearity, stax.homogeneous):
        message = rf"got {rule.__name__} for the rule; .* {rule.__name__}\(triple\)"
        with pytest.raises(TypeError, match=message):
            stax.layer(triple, rule)
    for rule, name in [
        (stax.linear, "linear"),
        (stax.nonlinearity, "nonlinearity"),
        (stax.homogeneous(1), r"homogeneous\(1\)"),
    ]:
        with pytest.raises(
            TypeError, match=rf"{name} makes the rule of a layer, a triple .*register"
        ):
            rule(np.tanh)
    weights = stax.layer(tuple(stax.Dense(1)), stax.linear(stax.Dense(1)))
    refuse(TypeError, r"Dense\(1\) has weights.* takes stax\.Weights", weights)


def test_functions_of_numpy():
    for function in (np.tanh, scipy.special.erf):
        model = stax.serial(stax.Dense(1), stax.ElementwiseNumerical(function, 5), stax.Dense(1))
        refuse(TypeError, r"write them with jax\.numpy and jax\.scipy, such as jnp\.tanh", model)


def test_several_outputs():
    model = stax.serial(stax.FanOut(2), stax.parallel(stax.Dense(1), stax.Dense(1)))
    refuse(ValueError, "several outputs; join them", model)


def test_kernels_that_the_map_does_not_have(no_work):
    no_work()
    feature_map = ns.feature_map(dense(), images(3, 5), METHOD, key=KEY, get="nngp")
    for get in ("ntk", ("nngp", "ntk")):
        with pytest.raises(ValueError, match=r"this feature map has \('nngp',\)"):
            feature_map.kernel_fn(images(3, 5), None, get)
    with pytest.raises(ValueError, match=r"get='cov1'; known kernels are nngp, ntk"):
        feature_map.kernel_fn(images(3, 5), None, "cov1")


def test_kernel_of_positions(no_work):
    no_work()
    model = stax.serial(stax.Conv(2, (3,)), stax.Relu())
    feature_map = ns.feature_map(model, images(2, 4, 1), METHOD, key=KEY)
    with pytest.raises(ValueError, match=r"still has positions .*Flatten or a global pool"):
        feature_map.kernel_fn(images(2, 4, 1))


# ------------------------------------------------------------------ options without features


UNSUPPORTED = {
    "batch_axis=0": [
        stax.Dense(2, batch_axis=1),
        stax.AvgPool((2, 2), batch_axis=1, channel_axis=3),
        stax.SumPool((2, 2), batch_axis=0, channel_axis=1),
        stax.GlobalAvgPool(channel_axis=1),
        stax.GlobalSumPool(batch_axis=2),
        stax.Flatten(batch_axis_out=1),
        stax.Aggregate(1, batch_axis=1, channel_axis=3),
        stax.Aggregate(2, batch_axis=0, channel_axis=1),
        stax.ImageResize((-1, -1, 6, 6), "linear", batch_axis=0, channel_axis=1),
        stax.Index(stax.Slice[:, 1:], batch_axis=2, channel_axis=3),
        stax.DotGeneral(
            rhs=(1.0, 2, 3, 4),
            dimension_numbers=(((2,), (0,)), ((), ())),
            batch_axis=0,
            channel_axis=1,
        ),
    ],
    "dimension_numbers": [
        stax.Conv(2, (2, 2), dimension_numbers=("NCHW", "HWIO", "NHWC")),
        stax.Conv(2, (2, 2), dimension_numbers=("NHWC", "OIHW", "NHWC")),
        stax.ConvLocal(2, (2, 2), dimension_numbers=("NCHW", "HWIO", "NHWC")),
        stax.ConvTranspose(2, (2, 2), dimension_numbers=("NCHW", "HWIO", "NHWC")),
    ],
}


@pytest.mark.parametrize(
    ("what", "layer"), [(what, layer) for what, layers in UNSUPPORTED.items() for layer in layers]
)
def test_unsupported_axes(what, layer):
    with pytest.raises(NotImplementedError, match=rf"{what}") as caught:
        ns.feature_map(layer, images(4, 4, 4, 4), METHOD, key=KEY)
    assert layer.name in str(caught.value)
    assert "support" in str(caught.value)


def test_layer_norm_axes():
    x = images(4, 4, 4, 3)
    for axis in [(0, 3), (-1, -4), (0, 1, 2, 3)]:
        model = stax.serial(stax.Dense(2), stax.LayerNorm(axis))
        refuse(NotImplementedError, r"LayerNorm\(.*batch axis\. Leave axis 0 out", model, x)
    options = {"batch_axis": 1, "channel_axis": 3}
    model = stax.serial(stax.Dense(2, **options), stax.LayerNorm(**options))
    refuse(NotImplementedError, r"LayerNorm\(.*support batch_axis=0", model, x)
    # Neural Tangents' own refusals.
    model = stax.serial(stax.Dense(2), stax.LayerNorm((1, 2)))
    refuse(ValueError, r"LayerNorm\(\(1, 2\)\).*Normalisation over channels", model, x)
    model = stax.serial(stax.Dense(2), stax.Relu(), stax.LayerNorm())
    refuse(NotImplementedError, r"LayerNorm\(\).*only implemented for Gaussian", model, x)


def test_default_axes_spelt_out_are_supported(no_work):
    no_work()
    model = stax.serial(
        stax.Conv(2, (2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")),
        stax.AvgPool((2, 2), batch_axis=-4, channel_axis=3),
        stax.Relu(),
        stax.Flatten(batch_axis=-4, batch_axis_out=-2),
        stax.Dense(1, batch_axis=-2, channel_axis=1),
    )
    assert ns.feature_map(model, images(2, 4, 4, 1), METHOD, key=KEY).get == ("nngp", "ntk")


# ------------------------------------------------------------------ what Neural Tangents refuses


def branches(join, *layers):
    return stax.serial(stax.FanOut(len(layers)), stax.parallel(*layers), join)


def chain(*layers):
    return stax.serial(stax.Dense(3), stax.Relu(), *layers)


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (lambda: chain(stax.Erf()), r"Erf\(\)", "must be Gaussian"),
        (
            lambda: chain(stax.serial(stax.Identity(), stax.serial(stax.LeakyRelu(0.1)))),
            r"LeakyRelu\(0.1\)",
            "must be Gaussian",
        ),
        (
            lambda: chain(branches(stax.FanInSum(), stax.Identity(), stax.Identity())),
            r"FanInSum\(\)",
            "Gaussian",
        ),
        (
            lambda: branches(stax.FanInConcat(0), stax.Dense(3), stax.Dense(3)),
            r"FanInConcat\(0\)",
            "batch",
        ),
        (
            lambda: branches(stax.FanInSum(), stax.Dense(3), stax.Dense(4)),
            r"FanInSum\(\)",
            "shapes",
        ),
        (lambda: stax.serial(stax.Flatten(batch_axis=1)), r"Flatten\(batch_axis=1\)", "batch_axis"),
    ],
)
def test_what_neural_tangents_refuses(model, layer, message):
    for method in (METHOD, ns.Exact()):
        refuse(Exception, rf"{layer}.*(?i:{message})", model(), method=method)


def test_refused_with_its_own_type_and_message():
    """The error of `kernel_fn` itself, under the layer's name."""
    model = chain(stax.Relu())
    x = images(3, 5)
    with pytest.raises(ValueError, match="Gaussian") as nts:
        model[2](x, None)
    with pytest.raises(ValueError, match=r"^In layer Relu\(\)\. Neural Tangents refuses") as ours:
        ns.feature_map(model, x, METHOD, key=KEY)
    assert str(nts.value) in str(ours.value)
    assert "In layer Relu()." in nts.value.__notes__


def test_refused_as_a_type_error():
    model = stax.serial(stax.Dense(3), stax.Elementwise(None, lambda c: c), stax.Dense(1))
    refuse(TypeError, r"In layer Elementwise\(.*takes 1 positional argument", model)


def test_kernel_without_a_network(no_work):
    no_work()
    model = stax.serial(stax.Dense(3), stax.ExpNormalized(), stax.Dense(1))
    message = r"ExpNormalized\(\) has no finite network.*such as Exact\(\)"
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    refuse(NotImplementedError, message, model, x, method=ns.Nystroem(2, residual=0.5))
    alone = stax.serial(stax.Dense(3), stax.Elementwise(None, lambda c, q, r: c), stax.Dense(1))
    for method in (METHOD, ns.LeverageScore(4)):
        message = r"Elementwise\(.*has no finite network"
        refuse(NotImplementedError, message, alone, method=method)
    for method in (ns.PolySketch(9, 4), ns.Gegenbauer(9, 4)):
        refuse(ValueError, "above degree 8 are lost in their rounding", alone, method=method)


# ------------------------------------------------------------------ NaN


@pytest.mark.parametrize(
    "method",
    [
        ns.RandomFeatures(4),
        ns.LeverageScore(4),
        ns.Nystroem(4),
        ns.Nystroem(4, residual=0.5),
        ns.Nystroem(4, scope="network"),
        ns.PolySketch(3, 8),
        ns.PolySketch(3, 8, scope="network"),
        ns.PolySketch(3, 8, normalize=False),
        ns.Gegenbauer(3, 8),
        ns.Gegenbauer(3, 8, scope="network"),
        ns.Gegenbauer(3, 8, normalize=False),
    ],
)
def test_not_a_number_stays_one(method, no_work):
    """At the call, where values are not looked at: no features of zeros that nobody notices."""
    no_work()
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    feature_map = ns.feature_map(dense(), x, method, key=KEY)
    good = feature_map(x)
    x[2, 1] = np.nan
    bad = feature_map(x)
    for kind in ("nngp", "ntk"):
        rows = np.isnan(np.asarray(getattr(bad, kind))).any(axis=1)
        assert np.array_equal(rows, np.arange(6) == 2)
        np.testing.assert_array_equal(
            np.asarray(getattr(bad, kind))[~rows], np.asarray(getattr(good, kind))[~rows]
        )
