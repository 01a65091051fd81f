"""GlobalSelfAttention: every mechanism and embedding, what is refused, and what is estimated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import attention, decay
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.maps._diagonals import exact_diagonals
from ntk_sketch.methods import Method
from ntk_sketch.numerics._memory import peak_bytes
from ntk_sketch.stax._cubic import Sides, kernels
from ntk_sketch.stax._embedding import Embedding

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def net(*options):
    """The last attention is before a nonlinearity, which needs its variances; so is every other."""
    layers = [layer for own in options for layer in (attention(**own), stax.LayerNorm())]
    return stax.serial(stax.Dense(6, 1.2, 0.1), *layers, stax.Erf(), stax.Flatten())


def relative(close, exact):
    return float(np.linalg.norm(close - exact) / np.linalg.norm(exact))


def exact_kernel(model, x):
    return jax.jit(lambda x: model[2](x, None, ("nngp", "ntk")))(x)


def root_decay(distance):
    return jnp.exp(-(distance**0.5))


IDENTITY = {"attention_mechanism": "IDENTITY"}
SQUARE_ROOT = {"linear_scaling": False} | IDENTITY
KINDS = stax.PositionalEmbedding
OPTIONS = {
    "softmax": (
        {},
        {"pos_emb_type": "CONCAT", "n_chan_pos_emb": 3, "W_pos_emb_std": 1.3},
        {"pos_emb_type": "SUM", "pos_emb_decay_fn": root_decay, "val_pos_emb": True},
    ),
    "others": (
        IDENTITY | {"b_std": None, "pos_emb_type": "CONCAT", "val_pos_emb": True},
        {"attention_mechanism": "ABS", "pos_emb_type": "SUM", "pos_emb_p_norm": 1}
        | {"pos_emb_decay_fn": decay},
        {"attention_mechanism": stax.AttentionMechanism.RELU, "pos_emb_type": KINDS.CONCAT}
        | {"pos_emb_decay_fn": decay, "n_chan_pos_emb": 2, "val_pos_emb": True},
    ),
    "square root scaling, embedding of keys": (
        SQUARE_ROOT | {"pos_emb_type": "CONCAT", "pos_emb_decay_fn": decay, "W_pos_emb_std": 0.8},
    ),
    "square root scaling, embedding of all": (
        SQUARE_ROOT | {"pos_emb_type": "SUM", "val_pos_emb": True, "b_std": None},
    ),
}


@pytest.mark.parametrize("name", others_slow(OPTIONS, *list(OPTIONS)[:2]))
def test_gram_is_the_kernel(name):
    model = net(*OPTIONS[name])
    x = inputs(3, 4, 3) if "root" in name else inputs(3, 3, 2, 3)
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY)
    close, exact = feature_map.kernel_fn(x), exact_kernel(model, x)
    for kind in ("nngp", "ntk"):
        assert relative(getattr(close, kind), getattr(exact, kind)) < 1e-8


@pytest.mark.slow
def test_first_layer_and_dropout():
    """Θ = 0 before it; and variances of one pass make the weights. Exact diagonals are those of the
    features, of two passes.
    """
    options = {"pos_emb_type": "SUM", "pos_emb_decay_fn": decay, "val_pos_emb": True}
    model = stax.serial(
        attention(**options), stax.Erf(), stax.Dropout(0.7), attention(), stax.GlobalAvgPool()
    )
    x = inputs(4, 4, 3)
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY)
    close, exact = feature_map.kernel_fn(x[:2], x[2:]), model[2](x[:2], x[2:], ("nngp", "ntk"))
    for kind in ("nngp", "ntk"):
        assert relative(getattr(close, kind), getattr(exact, kind)) < 1e-8
    for found, kernel in zip(feature_map.diagonals(x), feature_map.kernel_fn(x), strict=True):
        np.testing.assert_allclose(found, np.diag(kernel), rtol=1e-8)


@pytest.mark.slow
def test_contracts(tmp_path):
    """Landmarks and random functions: under `jit`, row by row, in both dtypes, from a file, with
    gradients that are finite at the sample and at 0, and exact diagonals.
    """
    model, x = net({"pos_emb_type": "SUM", "pos_emb_decay_fn": decay}), inputs(4, 5, 3)
    method, eps = ns.Nystroem(4, residual=0.5), jnp.finfo(float).eps
    feature_map = ns.feature_map(model, x, method, key=KEY)
    z, alone = feature_map(x), feature_map(x[1:2])
    jitted = jax.jit(lambda feature_map, x: feature_map(x))(feature_map, x)
    for kind in ("nngp", "ntk"):
        whole, again, row = (getattr(features, kind) for features in (z, jitted, alone))
        scale = np.linalg.norm(whole, axis=1, keepdims=True)
        # Roots of the Gram matrix of two landmarks: a condition number below 10.
        assert np.all(np.abs(again - whole) <= 1000 * eps * scale)
        assert np.all(np.abs(row - whole[1:2]) <= 1000 * eps * scale[1:2])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(feature_map(x).ntk))))
    assert np.all(np.isfinite(gradient(x)))
    assert np.all(np.isfinite(gradient(np.zeros_like(x))))
    for found, kernel in zip(feature_map.diagonals(x), exact_kernel(model, x), strict=True):
        np.testing.assert_allclose(found, np.diag(kernel), rtol=1e-10)
    feature_map.save(tmp_path / "map.safetensors")
    loaded = ns.load(tmp_path / "map.safetensors")
    np.testing.assert_array_equal(loaded(x).ntk, z.ntk)
    single = ns.feature_map(model, x.astype("f"), method, key=KEY)(x.astype("f")).ntk
    assert single.dtype == np.float32
    np.testing.assert_allclose(single @ single.T, z.ntk @ z.ntk.T, rtol=1e-3)


def tokens_net():
    return stax.serial(
        stax.Dense(8, 1.4, 0.1),
        stax.Relu(),
        attention(pos_emb_type="SUM", pos_emb_decay_fn=decay),
        stax.Dense(8, 1.4),
        stax.Relu(),
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )


@pytest.mark.slow
def test_64_tokens(monkeypatch):
    """Exact features, and landmarks on examples that are not in the sample; with pairs of positions
    exact, and estimated.
    """
    model, x = tokens_net(), inputs(24, 64, 4)
    sample, new, kernels = x[:16], x[16:], ("nngp", "ntk")
    feature_map = ns.feature_map(model, x[:2], ns.Exact(), key=KEY)
    exact = exact_kernel(model, x[:2])
    for kind in kernels:
        assert relative(feature_map.kernel_fn(x[:2], None, kind), getattr(exact, kind)) < 1e-8
    exact = jax.jit(lambda a, b: model[2](a, b, kernels))(new, sample)
    for limit in (256, 32):
        monkeypatch.setattr(Method, "max_positions_all_pairs", limit)
        feature_map = ns.feature_map(model, sample, ns.Nystroem(256), key=KEY)
        for kind in kernels:
            error = relative(feature_map.kernel_fn(new, sample, kind), getattr(exact, kind))
            assert error < 0.02, (limit, kind, error)


def test_memory_of_pairs():
    """Landmarks of many examples: pairs of positions with one of them at a time."""
    sides = Sides(*(jax.ShapeDtypeStruct((30, 20, 8), np.float64) for _ in range(4)))
    place = tuple(jax.ShapeDtypeStruct((50,), int) for _ in range(2))
    pairs = 8 * 30 * 20**2
    # Values with 50 landmarks are 2.5 times as many as pairs with one example.
    assert 2.5 * pairs < peak_bytes(kernels, sides, sides, place) < 20 * pairs < 8 * (30 * 20) ** 2


def test_estimated_pairs(monkeypatch):
    """Past a limit, covariances of different positions are products of features, which are exact
    ones under `Exact()`.
    """
    model, x = net({}, SQUARE_ROOT), inputs(3, 5, 4)
    exact = exact_kernel(model, x)
    monkeypatch.setattr(Method, "max_positions_all_pairs", 4)
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY)
    assert feature_map._input_offsets == ((0,),)
    assert relative(feature_map.kernel_fn(x, None, "ntk"), exact.ntk) < 1e-8


def test_refusals():
    x = inputs(3, 5, 4)

    def made(model, x=x):
        return ns.feature_map(model, x, ns.RandomFeatures(4), key=KEY)

    for name in ("SOFTMAX", "ABS", "RELU"):
        quadratic = {"linear_scaling": False, "attention_mechanism": name}
        with pytest.raises(NotImplementedError, match=rf"GlobalSelf.*No known closed form.*{name}"):
            made(net(quadratic))
    options = {"pos_emb_type": "SUM", "pos_emb_decay_fn": lambda d: 1 - d}
    with pytest.raises(ValueError, match=r"pos_emb_decay_fn gives no covariance.*eigenvalue is -"):
        made(net(options | {"val_pos_emb": True}))
    with pytest.raises(NotImplementedError, match="batch_axis=0 and channel_axis=-1"):
        made(stax.serial(attention(channel_axis=1), stax.Flatten()))
    for layer in (attention(), attention(**SQUARE_ROOT)):
        with pytest.raises(NotImplementedError, match=r"shape \(n, 4\) have no positions"):
            made(stax.serial(layer), x[:, 0])


def test_dropout_before_square_root_scaling():
    """Covariances of two passes stay those without it, after a sum over their products too."""
    x, layers = inputs(2, 3, 4), [stax.Dense(6, 1.2, 0.1), attention(**SQUARE_ROOT)]
    with_it = stax.serial(layers[0], stax.Dropout(0.6, "train"), layers[1])
    found, expected = (
        exact_diagonals(model.specification, x, ("nngp", "ntk"), "float64")
        for model in (with_it, stax.serial(*layers))
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_decays_in_float32_have_roots():
    """Their rounding makes eigenvalues slightly negative."""

    def slow(distance):
        return jnp.exp(-0.01 * distance.astype(jnp.float32))

    embedding = Embedding("SUM", 2, slow, None, 1.0, True)
    embedded = embedding.of((8,), 3, "attention", root=True)
    assert np.linalg.eigvalsh(embedded.covariance)[0] < -1e-9
    np.testing.assert_allclose(embedded.root @ embedded.root.T, embedded.covariance, atol=1e-6)


def test_bytes_are_said_beforehand(monkeypatch):
    """6,000 positions: 4 matrices of float32, 549 MiB, before anything is computed."""

    def work(*args, **kwargs):
        raise AssertionError("work was begun")

    monkeypatch.setattr(ns.RandomFeatures, "expand", work)
    model = stax.serial(stax.Dense(1), stax.serial(attention()), stax.Relu())
    shape = jax.ShapeDtypeStruct((1, 6000, 1), np.float32)
    with (
        pytest.warns(UserWarning, match=r"pairs of positions.*about 549 MiB for every example"),
        pytest.raises(AssertionError, match="work was begun"),
    ):
        ns.feature_map(model, shape, ns.RandomFeatures(4), key=KEY)


def test_gradients_with_respect_to_the_layer():
    """Standard deviations are traced like those of other layers."""
    x = inputs(3, 5, 4)

    @jax.jit
    def total(std):
        options = {"W_key_std": std, "pos_emb_type": "SUM", "W_pos_emb_std": std}
        model = stax.serial(attention(**options), stax.Flatten())
        return jnp.sum(ns.feature_map(model, x, ns.RandomFeatures(2), key=KEY)(x).ntk ** 3)

    step = 1e-5
    difference = (total(1.1 + step) - total(1.1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(total)(1.1), difference, rtol=1e-6)


def test_random_products_are_unbiased():
    """Of square root scaling: within 4 standard errors of the mean over 400 maps."""
    options = {"pos_emb_type": "SUM", "pos_emb_decay_fn": decay, "b_std": 0.3}
    layer = attention(linear_scaling=False, attention_mechanism="IDENTITY", **options)
    model, x = stax.serial(stax.Dense(3), layer, stax.Flatten()), inputs(2, 3, 2)
    exact, method = exact_kernel(model, x), ns.RandomFeatures(8, normalize=False)

    @jax.vmap
    def grams(key):
        z = ns.feature_map(model, x, method, key=key)(x)
        return z.nngp @ z.nngp.T, z.ntk @ z.ntk.T

    for gram, kernel in zip(jax.jit(grams)(jax.random.split(KEY, 400)), exact, strict=True):
        error = jnp.std(gram, 0) / 400**0.5
        assert np.all(np.abs(jnp.mean(gram, 0) - kernel) <= 4 * error)
        assert np.all(error < 0.15 * jnp.max(kernel))


@pytest.mark.slow
def test_square_root_scaling_inside_a_net():
    """Landmarks of all positions are exact, of two thirds close; random products keep norms."""
    layer = attention(**SQUARE_ROOT)
    model = stax.serial(stax.Dense(3), layer, stax.GlobalAvgPool())
    x = inputs(6, 5, 4)
    exact = exact_kernel(model, x)

    def error(method):
        made = ns.feature_map(model, x, method, key=KEY)
        return relative(made.kernel_fn(x, None, "ntk"), exact.ntk)

    assert error(ns.Nystroem(30)) < 1e-8 < error(ns.Nystroem(20)) < 0.5
    made = ns.feature_map(stax.serial(stax.Dense(3), layer), x, ns.RandomFeatures(8), key=KEY)
    covariance = stax.serial(stax.Dense(3), layer)[2](x, None, "nngp")
    norms = jnp.sum(made(x).nngp ** 2, -1)
    np.testing.assert_allclose(norms, np.einsum("nnss->ns", covariance), rtol=1e-10)
