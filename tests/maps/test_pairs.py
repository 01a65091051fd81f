"""Memory for covariances of pairs of positions is counted before any long work."""

import warnings

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.features import _position_map
from ntk_sketch.maps import _diagonals, _pairs, _scale

KEY = jax.random.key(0)


def pooled(*pools):
    return stax.serial(*pools, stax.Dense(4), stax.Gelu(), stax.Flatten(), stax.Dense(1))


@pytest.fixture
def no_work(monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("work was begun")

    monkeypatch.setattr(ns.RandomFeatures, "expand", work)
    for module in (_scale, _diagonals):
        monkeypatch.setattr(module, "variances_at_output", work)


@pytest.mark.usefixtures("no_work")
def test_wide_windows_before_a_nonlinearity():
    """56 · 111 offsets at 224 · 224 positions, K and Θ in float32."""
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    model = pooled(stax.AvgPool((56, 56)))
    with (
        pytest.warns(UserWarning, match=r"\(n, 224, 224, 3\) need .*about 2,380 MiB for every"),
        pytest.raises(AssertionError, match="work was begun"),
    ):
        ns.feature_map(model, shape, ns.RandomFeatures(4), key=KEY)


@pytest.mark.usefixtures("no_work")
def test_usual_windows_are_quiet():
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    with pytest.raises(AssertionError, match="work was begun"):
        ns.feature_map(pooled(stax.AvgPool((4, 4))), shape, ns.RandomFeatures(4), key=KEY)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("side", "checked"), [(32, True), (64, False)])
def test_scales_are_not_checked_by_covariances_of_all_pairs_of_many_positions(side, checked):
    """They would take 508 MiB for each of two images of 64 · 64 positions, in float64."""
    model, x = pooled(stax.GlobalAvgPool()), 1e3 * np.ones((2, side, side, 1), np.float32)
    if checked:
        with pytest.raises(AssertionError, match="work was begun"):
            _scale.check_scale(model, x, ("nngp",), "float32", 2)
    else:
        _scale.check_scale(model, x, ("nngp",), "float32", 2)


@pytest.mark.usefixtures("no_work")
def test_exact_diagonals_say_it_too():
    model, x = pooled(stax.GlobalAvgPool()), np.ones((1, 96, 96, 1), np.float32)
    program = _diagonals.exact_diagonals
    with (
        pytest.warns(UserWarning, match=r"about 1,289 MiB for every example"),
        pytest.raises(AssertionError, match="work was begun"),
    ):
        program(model.specification, x, ("nngp",), "float32")


def test_a_graph_along_one_axis_of_two():
    """Pairs of 2,000 vertices, at each of 50 other positions."""
    rule = stax.Aggregate(aggregate_axis=1).rule
    shape, method = (3, 2000, 50, 7), ns.RandomFeatures(4)
    assert rule.covariances(None, shape, method=method) == (0, 4 * 2000**2 * 50, 0)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("nested", [False, True])
def test_positions_that_a_layer_adds(nested):
    """64 · 127 offsets at the 256 · 256 positions of an enlarged image, K and Θ in float32."""
    shape = jax.ShapeDtypeStruct((1, 4, 4, 3), np.float32)
    layers = stax.ImageResize((-1, 256, 256, -1), "linear"), stax.AvgPool((64, 64))
    if nested:
        layers = stax.FanOut(1), stax.parallel(stax.serial(*layers)), stax.FanInSum()
    with (
        pytest.warns(UserWarning, match=r"\(n, 4, 4, 3\) need .*about 4,064 MiB for every"),
        pytest.raises(AssertionError, match="work was begun"),
    ):
        ns.feature_map(pooled(*layers), shape, ns.RandomFeatures(4), key=KEY)


@pytest.mark.usefixtures("no_work")
def test_a_sum_of_all_positions(monkeypatch):
    """Covariances before and after it and a product, K and Θ, and the matrix, of 600 positions."""
    monkeypatch.setattr(_pairs, "_USUAL_BYTES", 2**22)
    matrix = np.random.default_rng(0).normal(size=(600, 600)).astype(np.float32)

    def apply_fn(params, inputs, **kwargs):
        return jnp.einsum("nsc,st->ntc", inputs, matrix.astype(inputs.dtype))

    triple = (lambda key, shape: (shape, ()), apply_fn, lambda kernel, **kwargs: kernel)
    shape = jax.ShapeDtypeStruct((1, 600, 2), np.float32)
    model = pooled(stax.layer(triple, stax.linear(triple)))
    with (
        pytest.warns(UserWarning, match=r"sums of .*about 8 MiB for every .*, and 1 MiB for all"),
        pytest.raises(AssertionError, match="work was begun"),
    ):
        ns.feature_map(model, shape, ns.RandomFeatures(4), key=KEY)


def test_enlarged_and_pooled(monkeypatch):
    """More pairs of inputs than covariances before, and far fewer than of all pairs between."""
    monkeypatch.setattr(_position_map, "_PAIRS", 2**16)
    model = pooled(stax.ConvTranspose(1, (4, 4), (4, 4)), stax.AvgPool((16, 16), (16, 16)))
    held = model.rule.covariances(None, (1, 8, 8, 3), method=ns.RandomFeatures(4))
    assert 2**16 < held.pairs < 2**20
    assert held.shared == 6 * held.pairs


def test_what_all_examples_share_adds_up():
    layer, out, method = stax.ConvTranspose(1, (3,), (2,)), ((0,),), ns.RandomFeatures(4)
    both = stax.serial(layer, layer, stax.Relu()).rule.covariances(None, (1, 8, 3), method=method)
    last = layer.rule.covariances(out, (1, 17, 3), method=method)
    between = layer.rule.needs(out, (1, 17, 3), method=method)
    first = layer.rule.covariances(between, (1, 8, 3), method=method)
    assert min(first.shared, last.shared) > 0
    assert both.shared == first.shared + last.shared


def test_a_sample_of_many(monkeypatch):
    """6 · 11 offsets at 12 · 12 positions, K and Θ in float32, of 30 images."""
    monkeypatch.setattr(_pairs, "_USUAL_BYTES_OF_SAMPLE", 2e6)
    model = pooled(stax.AvgPool((6, 6)))
    x = np.random.default_rng(0).normal(size=(30, 12, 12, 1)).astype(np.float32)
    assert 30 * 2 * 4 * 6 * 11 * 12**2 == 2280960
    with pytest.warns(
        UserWarning, match=r"about 0 MiB for .*, and 2 MiB for the sample.* a smaller"
    ):
        ns.feature_map(model, x, ns.Nystroem(2), key=KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ns.feature_map(model, x[:20], ns.Nystroem(2), key=KEY)
        ns.feature_map(model, x, ns.RandomFeatures(2), key=KEY)  # looks at no sample
