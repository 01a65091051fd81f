"""Masks: batches of sentences of different lengths, against Neural Tangents' kernel."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from architectures import attention, conv, decay
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import Method
from ntk_sketch.methods._products import ProductLandmarks
from ntk_sketch.stax._cubic import Landmarks

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
MARK = -1000.0


def sentences(lengths, longest, channels, mark=MARK, seed=0):
    x = np.random.default_rng(seed).normal(size=(len(lengths), longest, channels))
    for row, length in zip(x, lengths, strict=True):
        row[length:] = mark
    return x


def exact_kernel(model, x, mark=MARK, **options):
    """NT's, which counts what is not masked in integers."""

    def kernel(x, options):
        with jax.numpy_dtype_promotion("standard"):
            return model[2](x, None, ("nngp", "ntk"), mask_constant=mark, **options)

    return jax.jit(kernel)(x, options)


def relative(close, exact):
    return float(np.linalg.norm(close - exact) / np.linalg.norm(exact))


NETS = {
    "bag of words": lambda: (
        stax.Dense(4, 1.2, 0.3),
        stax.LayerNorm(),
        stax.Relu(),
        stax.GlobalAvgPool(),
        stax.Dense(3, b_std=0.2),
        stax.Relu(),
        stax.Dense(1),
    ),
    "windows": lambda: (
        conv((3,)),
        stax.Cos(),
        conv((2,), strides=(2,)),
        stax.Relu(),
        stax.AvgPool((3,), padding="SAME"),
        stax.SumPool((2,)),
        stax.Dense(3, b_std=0.2),
        stax.Relu(),
        stax.GlobalSumPool(),
    ),
    "without padding": lambda: (
        conv((2,), padding="VALID"),
        stax.LayerNorm((1, 2), eps=0.1),
        stax.Rbf(0.7),
        conv((3,), padding="VALID"),
        stax.Gelu(),
        stax.Flatten(),
        stax.Dense(3, b_std=0.2),
        stax.Relu(),
        stax.Dense(1),
    ),
    "branches": lambda: (
        conv((3,)),
        stax.FanOut(2),
        stax.parallel(stax.serial(stax.Erf(), conv((2,))), stax.Identity()),
        stax.FanInSum(),
        stax.FanOut(2),
        stax.parallel(stax.serial(stax.Relu(), conv((2,), strides=(2,))), conv((1,))),
        stax.FanInConcat(1),
        stax.FanOut(2),
        stax.parallel(stax.Relu(), stax.Erf()),
        stax.FanInConcat(-1),
        stax.Dense(2, b_std=0.1),
        stax.GlobalAvgPool(),
    ),
    "attention": lambda: (
        attention(attention_mechanism="ABS"),
        stax.Gelu(),
        attention(pos_emb_type="CONCAT", pos_emb_decay_fn=decay, val_pos_emb=True),
        stax.Erf(),
        attention(linear_scaling=False, attention_mechanism="IDENTITY", pos_emb_type="SUM"),
        stax.LayerNorm(),
        stax.Erf(),
        stax.GlobalAvgPool(),
    ),
}
NETS |= {
    "positions": lambda: (
        conv((3,)),
        stax.Relu(),
        stax.ImageResize((-1, 4, -1), "linear"),
        conv((2,)),
        stax.Erf(),
        stax.Index(stax.Slice[:, ::-1]),
        conv((2,)),
        stax.Gelu(),
        stax.GlobalAvgPool(),
    ),
    "transposed": lambda: (
        conv((2,)),
        stax.Relu(),
        stax.ConvTranspose(4, (3,), (2,), "SAME", 1.2, 0.1),
        stax.Erf(),
        stax.GlobalAvgPool(),
    ),
    "weights of each position": lambda: (
        stax.ConvLocal(4, (3,), (1,), "SAME", 1.2, 0.1),
        stax.Erf(),
        stax.ConvLocal(4, (2,), (2,), "SAME", 1.2, 0.1),
        stax.Relu(),
        stax.Flatten(),
        stax.Dense(1),
    ),
    "product": lambda: (
        conv((3,)),
        stax.FanOut(2),
        stax.parallel(stax.serial(stax.Erf(), conv((2,))), conv((1,))),
        stax.FanInProd(),
        stax.GlobalAvgPool(),
    ),
}
NETS |= {
    "repeated": lambda: (
        stax.Dense(8),
        stax.repeat(stax.serial(conv((2,)), stax.ExpNormalized(0.5)), 2),
        stax.Dropout(0.7),
        stax.Dense(3, b_std=0.2),
        stax.Erf(),
        stax.Flatten(),
    ),
}
LENGTHS, LONGEST = (6, 3, 1, 5), 6


@pytest.mark.parametrize("name", others_slow(NETS, "windows"))
def test_gram_is_the_kernel(name):
    """The lengths of sentences as they are: 1 is shorter than a window, 6 is all."""
    model, x = stax.serial(*NETS[name]()), sentences(LENGTHS, LONGEST, 3)
    exact = exact_kernel(model, x)
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY, mask_constant=MARK)
    close = feature_map.kernel_fn(x)
    for kind in ("nngp", "ntk"):
        found, right = getattr(close, kind), getattr(exact, kind)
        if name == "repeated":  # with Dropout, NT's diagonal is of one pass
            found, right = (kernel - np.diag(np.diag(kernel)) for kernel in (found, right))
        assert relative(found, right) < 1e-8


@pytest.mark.parametrize("sigma", [stax.Polynomial([0.5, 1.0, 0.3]), stax.Monomial(0)], ids=repr)
def test_functions_that_are_not_zero_at_zero(sigma):
    """NT forgets the mask behind them until the next layer with weights; ours stays."""
    x = sentences(LENGTHS, LONGEST, 3)
    model = stax.serial(stax.Dense(4, b_std=0.2), sigma, stax.Dense(2, b_std=0.1), stax.Flatten())
    exact = exact_kernel(model, x)
    close = ns.feature_map(model, x, ns.Exact(), key=KEY, mask_constant=MARK).kernel_fn(x)
    for kind in ("nngp", "ntk"):
        assert relative(getattr(close, kind), getattr(exact, kind)) < 1e-8
    bare = stax.serial(stax.Dense(4, b_std=0.2), sigma)
    z = ns.feature_map(bare, x, ns.Exact(), key=KEY, mask_constant=MARK)(x)
    hidden = np.all(x == MARK, axis=-1)
    assert np.all(z.nngp[hidden] == 0)
    assert np.all(np.any(z.nngp[~hidden] != 0, axis=-1))


@pytest.mark.parametrize("joined", [stax.Flatten(), stax.GlobalAvgPool()], ids=repr)
def test_sentences_without_words(joined):
    """They have no features; sentences with some words have those of these, before a bias too."""
    x = sentences((6, 3, 0), LONGEST, 3)
    model = stax.serial(stax.Dense(1), joined, stax.Dense(2, b_std=0.5), stax.Relu())
    made = ns.feature_map(model, x, ns.Exact(), key=KEY, mask_constant=MARK)
    bare = stax.serial(stax.Dense(1), joined)
    for feature_map in (made, ns.feature_map(bare, x, ns.Exact(), key=KEY, mask_constant=MARK)):
        assert np.all(np.asarray(feature_map(x).ntk)[2] == 0)
    close, exact = made.kernel_fn(x[:2]), exact_kernel(model, x[:2])
    for kind in ("nngp", "ntk"):
        assert relative(getattr(close, kind), getattr(exact, kind)) < 1e-8


def test_attention_to_no_words():
    """A softmax over nothing: neither features nor derivatives by weights are NaN."""
    x = sentences((3, 0), 3, 2)

    def features(w_std):
        model = stax.serial(stax.Dense(2), attention(W_out_std=w_std), stax.Flatten())
        made = ns.feature_map(model, x, ns.RandomFeatures(4), key=KEY, mask_constant=MARK)
        return made(x).ntk

    assert np.all(np.asarray(features(1.2))[1] == 0)
    assert np.isfinite(jax.grad(lambda w_std: jnp.sum(features(w_std) ** 2))(1.2))


def test_layer_norm_over_positions_counts_words():
    """The sum of `eps + v` over all positions, divided by the number of words."""
    x = sentences(LENGTHS, LONGEST, 3)
    model = stax.serial(stax.Dense(1), stax.LayerNorm((1, 2), eps=0.3))
    z = ns.feature_map(model, x, ns.Exact(), key=KEY, mask_constant=MARK)(x).nngp
    v = np.mean(np.where(x == MARK, 0, x) ** 2, axis=-1)
    scale = np.sum(0.3 + v, axis=1) / np.array(LENGTHS)
    np.testing.assert_allclose(np.sum(np.square(z), axis=-1), v / scale[:, None], rtol=1e-9)


@pytest.mark.slow
def test_where_neural_tangents_has_nan():
    """Behind `RectifiedMonomial`; ours are the kernels of sentences without padding."""
    x = sentences(LENGTHS, LONGEST, 3)
    layers = stax.Dense(4, b_std=0.2), stax.RectifiedMonomial(2), stax.GlobalAvgPool()
    model = stax.serial(*layers)
    assert np.isnan(exact_kernel(model, x).nngp).any()
    close = ns.feature_map(model, x, ns.Exact(), key=KEY, mask_constant=MARK).kernel_fn(x)
    for i, a in enumerate(LENGTHS):
        for j, b in enumerate(LENGTHS):
            alone = model[2](x[i : i + 1, :a], x[j : j + 1, :b], ("nngp", "ntk"))
            for kind in ("nngp", "ntk") if i != j else ():  # NaN too, at cosine one
                found, right = getattr(close, kind)[i, j], getattr(alone, kind)[0, 0]
                np.testing.assert_allclose(found, right, rtol=1e-7)


def test_images_and_graphs():
    """Two spatial axes, masked anywhere; and vertices that are not there."""
    images = np.random.default_rng(0).normal(size=(4, 4, 3, 2))
    images[0, 2:] = images[1, :, 1] = images[2, 0, 0, 1] = MARK  # the last: of a channel alone
    images[3, 1:, 2] = MARK
    image_net = stax.serial(
        conv((2, 3)), stax.Erf(), conv((3, 2), strides=(2, 1)), stax.GlobalAvgPool()
    )
    rows_net = stax.serial(  # of which the first counts for nothing
        stax.DotGeneral(rhs=(0.0, 1, -2, 0.5), dimension_numbers=(((1,), (0,)), ((), ()))),
        conv((2,)),
        stax.Cos(),
        conv((2,)),
        stax.Erf(),
        stax.Flatten(),
    )
    graph = np.random.default_rng(1).uniform(size=(4, 4, 4))
    vertices = sentences((4, 2, 3, 1), 4, 3)
    net = stax.serial(
        stax.Dense(3),
        stax.Relu(),
        stax.Aggregate(),
        stax.Dense(2, b_std=0.1),
        stax.Erf(),
        stax.GlobalAvgPool(),
    )
    for model, x, options in (
        (image_net, images, {}),
        (rows_net, images, {}),
        (net, vertices, {"pattern": graph}),
    ):
        pairs = {key: (value, value) for key, value in options.items()}
        exact = exact_kernel(model, x, **pairs)
        made = ns.feature_map(model, x, ns.Exact(), key=KEY, mask_constant=MARK, **options)
        close = made.kernel_fn(x, **options)
        for kind in ("nngp", "ntk"):
            assert relative(getattr(close, kind), getattr(exact, kind)) < 1e-8


METHODS = {
    "random": ns.RandomFeatures(16),
    "nystroem": ns.Nystroem(4, residual=0.5),
    "poly sketch": ns.PolySketch(3, 16),
}


@pytest.mark.parametrize("name", others_slow(METHODS, "random", "nystroem"))
def test_masked_positions_have_no_features(name):
    """Though `cos(0) = 1`; gradients are finite, and 0 there."""
    model = stax.serial(stax.Dense(3, b_std=0.3), stax.Cos())
    x = sentences(LENGTHS, LONGEST, 3)
    mask = np.all(x == MARK, axis=-1)
    feature_map = ns.feature_map(model, x, METHODS[name], key=KEY, mask_constant=MARK)
    z = feature_map(x)
    for features in (z.nngp, z.ntk):
        assert not np.any(np.asarray(features)[mask])
        assert np.all(np.any(np.asarray(features)[~mask] != 0, axis=-1))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(feature_map(x).ntk))))(x)
    assert np.all(np.isfinite(gradient))
    assert not np.any(np.asarray(gradient)[mask])


def test_padding_does_not_matter():
    """Sentences have the same features at any length of the others of their batch."""
    model, x = small_net(), sentences(LENGTHS, LONGEST, 3)
    longer = np.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=MARK)
    short, long = (
        ns.feature_map(model, given, METHODS["random"], key=KEY, mask_constant=MARK)(given).ntk
        for given in (x, longer)
    )
    np.testing.assert_allclose(short, long, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "method", [ns.Nystroem(4, sampling="diagonal"), ns.Nystroem(4), ns.Exact()]
)
def test_masked_positions_are_no_landmarks(method):
    """Though their kernel is the largest of all there: cos(0) = 1."""
    model = stax.serial(stax.Dense(1, 3.0), stax.Cos(), stax.GlobalAvgPool())
    x = sentences((1, 2, 0, 1), LONGEST, 2)
    made = ns.feature_map(model, x, method, key=KEY, mask_constant=MARK)
    expansion = made.transform.transforms[1].expansion
    assert len(expansion.q) == 4  # as many as there are words
    assert np.all(np.asarray(expansion.q) > 0)
    assert 2 not in np.asarray(expansion.examples)


@pytest.mark.parametrize("name", ["product", "attention"])
def test_landmarks_of_products_are_words(name):
    """Where a layer makes features of its own."""
    layers = {
        "product": NETS["product"]()[:-1],
        "attention": (
            attention(linear_scaling=False, attention_mechanism="IDENTITY"),
            stax.GlobalAvgPool(),
        ),
    }[name]
    x = sentences(LENGTHS, LONGEST, 3)
    made = ns.feature_map(
        stax.serial(*layers), x, ns.Exact(), key=KEY, get="nngp", mask_constant=MARK
    )
    kinds = ProductLandmarks, Landmarks
    nodes = jax.tree.leaves(made.transform, is_leaf=lambda node: isinstance(node, kinds))
    (node,) = (node for node in nodes if isinstance(node, kinds))
    count = len(node.place[0]) if isinstance(node, Landmarks) else len(node.q)
    assert count == sum(LENGTHS)


def small_net():
    return stax.serial(stax.Dense(2), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1, b_std=0.1))


def test_a_map_masks_every_batch():
    """Given by NaN or a number, in float32 and float64; other batches, and other constants."""
    model = small_net()
    x, y = (sentences(LENGTHS, LONGEST, 3, mark=mark) for mark in (MARK, np.nan))
    first, second = (
        ns.feature_map(model, given, ns.RandomFeatures(8), key=KEY, mask_constant=mark)
        for given, mark in ((x, MARK), (y, np.nan))
    )
    assert first.mask_constant == MARK
    assert np.isnan(second.mask_constant)
    np.testing.assert_array_equal(first(x).ntk, second(y).ntk)
    np.testing.assert_array_equal(first(x, mask_constant=MARK).ntk, first(x).ntk)
    np.testing.assert_array_equal(second(y, mask_constant=float("nan")).ntk, first(x).ntk)
    with pytest.raises(ValueError, match=r"made with mask_constant=-1000\.0\. Leave it out"):
        first(x, mask_constant=0.0)
    rows = x.astype(np.float32)
    made = ns.feature_map(model, rows, ns.RandomFeatures(8), key=KEY, mask_constant=MARK)
    assert made(rows).ntk.dtype == np.float32
    uneven = np.where(rows == np.float32(MARK), np.float32(0.1), rows)  # 0.1 is no float
    again = ns.feature_map(model, uneven, ns.RandomFeatures(8), key=KEY, mask_constant=0.1)
    np.testing.assert_array_equal(made(rows).ntk, again(uneven).ntk)
    whole = uneven.astype(float)
    whole[rows == np.float32(MARK)] = 0.1
    wide = ns.feature_map(model, whole, ns.RandomFeatures(8), key=KEY, mask_constant=0.1)
    np.testing.assert_allclose(wide(uneven).ntk, wide(whole).ntk)  # each in its own dtype


def test_regression_on_sentences(tmp_path):
    """Batches, solvers, files and copies know the mask."""
    model = small_net()
    lengths = np.random.default_rng(0).integers(1, LONGEST + 1, 20)
    x, y = sentences(lengths, LONGEST, 3), np.random.default_rng(1).normal(size=20)
    feature_map = ns.feature_map(model, x, ns.Nystroem(6), key=KEY, mask_constant=MARK)
    solution = ns.ridge(feature_map, x, y, diag_reg=1e-2, batch_size=8)
    kernel = np.asarray(feature_map.kernel_fn(x, None, "ntk"))
    penalty = 1e-2 * np.trace(kernel) / 20
    wanted = kernel @ np.linalg.solve(kernel + penalty * np.eye(20), y)
    np.testing.assert_allclose(np.ravel(solution.predict(x)), wanted, rtol=1e-8)
    feature_map.save(tmp_path / "map.safetensors")
    for found, wanted in zip(feature_map.diagonals(x), exact_kernel(model, x), strict=True):
        np.testing.assert_allclose(found, np.diag(wanted), rtol=1e-6)  # NT's kink at cosine 1
    loaded = ns.load(tmp_path / "map.safetensors")
    np.testing.assert_array_equal(loaded(x).ntk, feature_map(x).ntk)
    assert loaded.fingerprint == feature_map.fingerprint
    with jax.numpy_dtype_promotion("standard"):  # of NT
        error = ns.approximation_error(feature_map, x, pairs=60, key=KEY)["ntk"]
    assert error.relative.value < 0.5  # of six landmarks; without the mask they would not compare
    reversed_too = feature_map.averaged(lambda x: x[:, ::-1])
    np.testing.assert_allclose(reversed_too(x).ntk, feature_map(x).ntk, rtol=1e-6, atol=1e-8)


def test_estimated_variances_behind_a_global_pool(monkeypatch):
    model = stax.serial(
        stax.Dense(2), stax.Erf(), stax.GlobalAvgPool(), stax.Dense(1, b_std=0.1), stax.Gelu()
    )
    x = sentences(LENGTHS, LONGEST, 3)
    exact = exact_kernel(model, x)
    monkeypatch.setattr(Method, "max_positions_all_pairs", 2)
    made = ns.feature_map(model, x, ns.Exact(), key=KEY, mask_constant=MARK)
    assert relative(made.kernel_fn(x, None, "ntk"), exact.ntk) < 1e-8


def test_refusals():
    x, y = sentences(LENGTHS, LONGEST, 3), np.full((2, 4, 3), MARK)

    def made(*layers, x=x, method=METHODS["random"], mark=MARK):
        model = stax.serial(*layers)
        return ns.feature_map(model, x, method, key=KEY, mask_constant=mark)

    with pytest.raises(NotImplementedError, match=r"In layer AvgPool.*channel-wise masks"):
        made(stax.AvgPool((2,)), stax.Flatten())  # NT's own: it masks channels one by one
    with pytest.raises(NotImplementedError, match='scope="network" has no masks'):
        made(stax.Dense(1), x=x[:, 0], method=ns.Nystroem(2, scope="network"))
    with pytest.raises(TypeError, match="the number that marks masked entries"):
        made(stax.Dense(1), mark=[1.0])
    with pytest.raises(ValueError, match=r"all entries of x are mask_constant=-1000\.0"):
        made(stax.Dense(1), x=y)
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"x \(but for what is masked\) is not finite"):
        made(stax.Dense(1), x=x)
    x[0, 0] = 1e200
    with pytest.raises(ValueError, match="squares overflow float64"):
        made(stax.Dense(1), x=x)
    other = stax.layer(nt.stax.Identity(), Unaware())
    with pytest.raises(NotImplementedError, match="Identity: features have no masks"):
        made(stax.Dense(1), stax.serial(other))


class Unaware(stax.Rule):
    def fit(self, features, *, method, offsets, key):
        return lambda features, **kwargs: features
