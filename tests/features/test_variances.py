"""Exact variances equal NT's, however inaccurate the features are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import conv
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.features import _variances
from ntk_sketch.features._band import band_products, columns, near_products
from ntk_sketch.features._variances import Variances, input_variances
from ntk_sketch.maps._ends import enter
from ntk_sketch.methods import Method

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
EPS = float(jnp.finfo(jnp.float64).eps)


def residual(join):
    block = stax.serial(stax.Relu(), conv((3,)), stax.Relu(), conv((2,), b_std=None))
    return stax.serial(stax.FanOut(2), stax.parallel(block, stax.Identity()), join)


# Everything up to a nonlinearity.
PREFIXES = {
    "convolution": lambda: ((5, 4, 2), [conv((3, 2), strides=(2, 1)), stax.Relu(), conv((2, 3))]),
    "overlapping pool": lambda: (
        (6, 5, 2),
        [conv((2, 3)), stax.Relu(), stax.AvgPool((3, 2), (1, 2)), conv((2, 1))],
    ),
    "strided pool": lambda: (
        (11, 2),
        [conv((3,)), stax.Relu(), stax.SumPool((2,), (3,)), conv((2,), padding="VALID")],
    ),
    "two pools": lambda: (
        (12, 2),
        [
            conv((3,)),
            stax.Relu(),
            stax.AvgPool((2,), (2,)),
            conv((2,)),
            stax.Gelu(),
            stax.AvgPool((3,)),
            conv((2,)),
        ],
    ),
    "padded pool": lambda: (
        (5, 4, 2),
        [
            conv((3, 3)),
            stax.Relu(),
            stax.AvgPool((3, 2), (2, 1), "SAME", normalize_edges=True),
            conv((1, 2)),
        ],
    ),
    "circular pool": lambda: (
        (7, 2),
        [
            conv((3,), padding="CIRCULAR"),
            stax.Relu(),
            stax.AvgPool((3,), (2,), "CIRCULAR"),
            conv((2,), padding="CIRCULAR"),
        ],
    ),
    "layer norm": lambda: (
        (6, 5, 2),
        [
            conv((2, 3)),
            stax.LayerNorm((1, 2, 3)),
            stax.Relu(),
            stax.AvgPool((3, 2), (1, 2)),
            conv((2, 1)),
            stax.LayerNorm((2, 3), eps=0.1),
        ],
    ),
    "layer norm before a pool": lambda: (
        (6, 5, 2),
        [
            conv((2, 3)),
            stax.Relu(),
            conv((3, 2)),
            stax.LayerNorm((3,), eps=0.01),
            stax.AvgPool((3, 2), (1, 2)),
        ],
    ),
    "residual": lambda: (
        (6, 2),
        [conv((3,)), residual(stax.FanInSum()), stax.AvgPool((2,)), conv((2,))],
    ),
    "concatenated channels": lambda: (
        (6, 2),
        [conv((3,)), residual(stax.FanInConcat(-1)), stax.AvgPool((2,)), conv((2,))],
    ),
    "concatenated positions": lambda: (
        (6, 2),
        [conv((3,)), residual(stax.FanInConcat(1)), stax.AvgPool((2,)), conv((2,))],
    ),
    "volumes": lambda: (
        (4, 3, 4, 2),
        [
            conv((2, 2, 3)),
            stax.Relu(),
            stax.AvgPool((2, 1, 2), (1, 1, 2)),
            conv((1, 2, 1)),
        ],
    ),
    "pool over its padding": lambda: (
        (5, 4, 2),
        [conv((3, 3)), stax.Relu(), stax.AvgPool((3, 2), (2, 1), "SAME"), conv((1, 2))],
    ),
    "dropout": lambda: (
        (8, 2),
        [
            conv((3,)),
            stax.Relu(),
            stax.Dropout(0.7),
            stax.AvgPool((2,)),
            conv((2,)),
            stax.Erf(),
            stax.Dropout(0.6),
            conv((2,)),
        ],
    ),
    "flatten": lambda: (
        (4, 3, 2),
        [conv((2, 2)), stax.Relu(), stax.Flatten(), stax.Dense(3, b_std=0.2)],
    ),
    "global pool": lambda: (
        (4, 3, 2),
        [conv((2, 2)), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(3, b_std=0.2)],
    ),
}


def before_a_nonlinearity(layers, x, width=4):
    """Features as they reach a nonlinearity after `layers`."""
    prefix, method = stax.serial(*layers), ns.RandomFeatures(width)
    space = prefix[0](jax.random.PRNGKey(0), x.shape)[0][1:-1]
    here = ((0,),) * len(space)
    offsets = prefix.rule.needs(here, x.shape, method=method)
    features = enter(jnp.asarray(x), True, offsets)
    transform = prefix.rule.fit(features, method=method, offsets=here, key=KEY)
    return jax.jit(lambda f: transform(f))(features), prefix


def diagonal(covariance, kernel):
    """NT's (n, H, H, W, W), or (n, W, W, H, H) when reversed, at equal positions: (n, H, W)."""
    axes = (covariance.ndim - 1) // 2
    for _ in range(axes):
        covariance = np.diagonal(covariance, axis1=1, axis2=2)  # appended as the last axis
    order = range(axes, 0, -1) if kernel.is_reversed else range(1, axes + 1)
    return covariance.transpose(0, *order)


#: Pools and norms that differ in a stride or an order run by hand.
KEPT = ("convolution", "overlapping pool", "padded pool", "layer norm", "residual", "volumes")


@pytest.mark.parametrize("name", others_slow(PREFIXES, *KEPT))
def test_variances_are_exact(name):
    """To 1e-10: rounding, and nothing of features of width 4."""
    shape, layers = PREFIXES[name]()
    x = np.random.default_rng(0).normal(size=(2, *shape))
    features, prefix = before_a_nonlinearity(layers, x)
    variances = features.variances
    kernel = jax.jit(lambda x: prefix[2](x, None))(x)
    exact = diagonal(np.asarray(kernel.cov1), kernel)
    ours = variances.diagonal(variances.same)
    assert ours.shape == exact.shape == (2, *features.space)
    np.testing.assert_allclose(ours, exact, rtol=1e-10)
    if name == "dropout":
        # Two independent passes: less than one.
        assert np.all(variances.diagonal(variances.independent) < exact)
    else:
        assert variances.other is None
        own = np.asarray(kernel.ntk)[np.arange(2), np.arange(2)]
        # At a kink, NT's derivative kernel turns rounding of the cosine into its square root.
        np.testing.assert_allclose(
            variances.diagonal(variances.ntk), diagonal(own, kernel), rtol=EPS**0.5
        )


def test_estimated_variances(monkeypatch):
    """Past a limit, cross terms of a global pool are those of the features: close if there are
    many.
    """
    layers = [conv((3,)), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(3, b_std=0.2)]
    x = np.random.default_rng(0).normal(size=(2, 12, 2))
    exact = before_a_nonlinearity(layers, x)[0].variances
    monkeypatch.setattr(Method, "max_positions_all_pairs", 11)
    model = stax.serial(*layers, stax.Erf(), stax.Dense(1))
    z = ns.feature_map(model, x, ns.RandomFeatures(16), key=KEY)(x)
    assert np.all(np.isfinite(z.nngp))
    assert np.all(np.isfinite(z.ntk))

    variances = before_a_nonlinearity(layers, x, 1024)[0].variances
    assert variances.offsets == ()
    # The relative error of random features is about width^(-1/2) = 0.03; four of them.
    np.testing.assert_allclose(variances.same, exact.same, rtol=0.125)
    np.testing.assert_allclose(variances.ntk, exact.ntk, rtol=0.125)
    assert not np.array_equal(variances.same, exact.same)


OFFSETS = [((-2, -1, 0, 1, 2), (-1, 0, 1)), ((-1, 0), (0, 1)), ((-3,), (-1, 1)), ((-9, 0), (0,))]


@pytest.mark.parametrize("wanted", OFFSETS)
def test_negative_offsets_are_mirror_images(wanted):
    """A band without offsets below 0 along its first axis holds all of a symmetric covariance."""
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    half = input_variances(jnp.asarray(x), ((0, 1, 2, 3), (-2, -1, 0, 1, 2)), True)
    expected = input_variances(jnp.asarray(x), wanted, True)
    selected = half.select(wanted)
    np.testing.assert_allclose(selected.same, expected.same, rtol=1e-14)
    assert np.any(np.asarray(expected.same))
    assert selected.offsets == wanted


def test_offsets_that_are_missing_are_zero():
    band = np.arange(1.0, 7.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(
        columns(jnp.asarray(band), 1, (0, 1), (2, 3)), np.zeros((1, 2, 3))
    )
    some = np.stack([np.zeros(3), [4.0, 5, 6], np.zeros(3)])[None]
    np.testing.assert_array_equal(columns(jnp.asarray(band), 1, (0, 1), (5, 1, 7)), some)


@pytest.mark.parametrize("products", [band_products, near_products])
@pytest.mark.parametrize("first", [(-1, 0), (-1, 0, 1)])
@pytest.mark.parametrize("last", [(0, 1), (1, 3), (-2, -1), (-1, 0, 2), (0, 9), (-9, 0, 9)])
def test_products_of_neighbours(first, last, products):
    """`<x_s, x_{s+δ}>` of two axes, one of which is longer than a tile; more channels than are
    summed at a time; some offsets, or all, with their opposites."""
    x = np.random.default_rng(0).normal(size=(1, 3, 40, 20))
    found = products(jnp.asarray(x), (first, last))
    for i, a in enumerate(first):
        for j, b in enumerate(last):
            expected = np.zeros((3, 40))
            for s, t in np.ndindex(3, 40):
                if 0 <= s + a < 3 and 0 <= t + b < 40:
                    expected[s, t] = x[0, s, t] @ x[0, s + a, t + b]
            np.testing.assert_allclose(found[0, i, j], expected, atol=1e-13)


def test_of_many_positions(monkeypatch):
    """By sums that are written out, which few positions are not worth compiling."""
    x, offsets = np.random.default_rng(0).normal(size=(3, 32, 32, 9)), ((0, 1), (-1, 0, 1))
    asked = []

    def counted(x, offsets):
        asked.append(x.shape)
        return near_products(x, offsets)

    monkeypatch.setattr(_variances, "near_products", counted)
    found = input_variances(jnp.asarray(x), offsets, True)
    few = [input_variances(jnp.asarray(x[i : i + 1]), offsets, True).same for i in range(3)]
    assert asked == [x.shape]
    np.testing.assert_allclose(found.same, np.concatenate(few), atol=1e-14)


def test_bands_have_no_redundant_half():
    """What is planned for a pool before a nonlinearity starts at offset 0 of the first axis."""
    model = stax.serial(conv((2, 3)), stax.Relu(), stax.AvgPool((3, 2), (1, 2)), conv((2, 1)))
    needed = model.rule.needs(((0,), (0,)), (2, 6, 5, 2), method=ns.RandomFeatures(4))
    assert needed == ((0, 1, 2), (-1, 0, 1))


@pytest.mark.parametrize(
    "layer",
    [pytest.param(conv((2, 2)), marks=pytest.mark.slow), stax.AvgPool((2, 2), (1, 1))],
)
def test_offsets_asked_for_need_not_be_symmetric(layer):
    """A user's rule may ask for any offsets of any layer."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 3)))
    method, wide = ns.RandomFeatures(4), ((-2, -1, 0, 1, 2),) * 2
    found = {}
    for wanted in (wide, ((-1, 2), (0, 1))):
        features = enter(x, True, layer.rule.needs(wanted, x.shape, method=method))
        transform = layer.rule.fit(features, method=method, offsets=wanted, key=KEY)
        found[wanted] = transform(features).variances
    narrow = found[wanted]
    np.testing.assert_allclose(narrow.same, found[wide].select(wanted).same, rtol=1e-14)
    assert np.any(np.asarray(narrow.same))


def images_net():
    return stax.serial(
        conv((3, 3)), stax.Relu(), stax.AvgPool((2, 2)), conv((3, 3)), stax.Relu(), stax.Flatten()
    )


def test_none_after_the_last_nonlinearity():
    """Nothing asks for them there; between two nonlinearities the pool does."""
    shape = jax.ShapeDtypeStruct((2, 8, 8, 2), float)
    made = ns.feature_map(images_net(), shape, ns.RandomFeatures(4), key=KEY).transform
    carried = [layer.offsets for layer in made.transforms if hasattr(layer, "expansion")]
    assert carried == [((0, 1), (-1, 0, 1)), None]


def test_a_kernel_of_zero_is_not_summed():
    """At the input Θ = 0: one sum over the windows of the first convolution, that of K."""
    model = stax.serial(conv((3, 3)), stax.Relu(), stax.GlobalAvgPool())
    shape = jax.ShapeDtypeStruct((2, 8, 8, 2), float)
    feature_map = ns.feature_map(model, shape, ns.RandomFeatures(4), key=KEY)
    program = str(jax.make_jaxpr(lambda x: feature_map(x).ntk)(shape))
    assert program.count("reduce_window") == 1


def test_cost_is_linear_in_pixels():
    """FLOPs of the whole compiled map, by XLA's count."""
    flops = []
    for side in (16, 32, 64):
        shape = jax.ShapeDtypeStruct((1, side, side, 2), float)
        feature_map = ns.feature_map(images_net(), shape, ns.RandomFeatures(4), key=KEY)
        analysis = jax.jit(lambda x, f=feature_map: f(x).ntk).lower(shape).compile().cost_analysis()
        flops.append((analysis[0] if isinstance(analysis, list) else analysis)["flops"])
    assert 3.6 < (flops[2] - flops[1]) / (flops[1] - flops[0]) < 4.4


def test_the_ntk_takes_the_kernel_of_two_passes():
    """After Dropout `K` of one pass and of two differ; Θ is that of two."""
    one = jnp.ones((1,))
    variances = Variances(same=2 * one, other=one, ntk=0 * one, offsets=())
    after = variances.affine(1.0, None, 3.0, None)
    np.testing.assert_array_equal(after.ntk, 9.0)
    np.testing.assert_array_equal(after.same, 2.0)
