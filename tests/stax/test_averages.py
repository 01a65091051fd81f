"""Features of nets with one nonlinearity are unbiased, and their error falls as width^(-1/2).

The nets are those of Neural Tangents' examples with one nonlinearity each, and layers that make
features of their own.
"""

import functools

import jax
import numpy as np
import pytest
from architectures import attention, conv, decay
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import Method

pytestmark = pytest.mark.usefixtures("float64")
KEYS = 400

#: Patches of 2 · 9 · 48 features are still formed. Projected ones, which err more, have their tests
#: in `tests/methods/test_compression.py`.
WIDTHS = (8, 48)

RANDOM = functools.partial(ns.RandomFeatures, normalize=False)
LEVERAGE = ns.LeverageScore
SKETCH = functools.partial(ns.PolySketch, 2, normalize=False)
ZONAL = functools.partial(ns.Gegenbauer, 2, normalize=False)


def nonlinearity(method):
    """Whose series ends, for methods that cut series off."""
    return stax.Polynomial([0.3, 1.0, -0.2]) if method in (SKETCH, ZONAL) else stax.Relu()


def wide_residual(sigma):
    block = stax.parallel(stax.serial(sigma, conv((3, 3))), conv((1, 1)))
    branches = (stax.FanOut(2), block, stax.FanInSum())
    return stax.serial(conv((3, 3)), *branches, stax.AvgPool((2, 2)), stax.Flatten(), stax.Dense(1))


def myrtle(sigma):
    normed = (conv((3, 3)), stax.LayerNorm(), sigma, stax.AvgPool((2, 2), (2, 2)))
    return stax.serial(*normed, stax.GlobalAvgPool(), stax.Dense(1))


def upsampled(sigma):
    up = stax.ConvTranspose(1, (3, 2), (1, 2), "SAME", W_std=1.3, b_std=0.1)
    resized = stax.ImageResize((-1, 3, 3, -1), "linear")
    return stax.serial(up, sigma, resized, conv((2, 2)), stax.Flatten(), stax.Dense(1))


def graph(sigma):
    mixed = stax.Aggregate(), stax.GlobalAvgPool()
    return stax.serial(stax.Dense(1, 1.2, 0.1), sigma, *mixed, stax.Dense(1))


def attending(sigma):
    layer = attention(pos_emb_type="SUM", pos_emb_decay_fn=decay)
    return stax.serial(conv((2,)), layer, sigma, stax.GlobalAvgPool(), stax.Dense(1))


def locally_connected(sigma):
    return stax.serial(
        stax.ConvLocal(4, (2,), b_std=0.2), sigma, stax.GlobalAvgPool(), stax.Dense(1)
    )


def product(_):
    pair = stax.parallel(stax.Dense(4, 1.1, 0.2), stax.Dense(4, 0.9, 0.3))
    return stax.serial(stax.FanOut(2), pair, stax.FanInProd(), stax.Dense(1, 1.2, 0.1))


def attending_to_pairs(_):
    layer = attention(linear_scaling=False, attention_mechanism="IDENTITY")
    return stax.serial(conv((2,)), layer, stax.GlobalAvgPool(), stax.Dense(1))


def normalised_exponential(_):
    return stax.serial(stax.Dense(4, 1.3), stax.ExpNormalized(0.3, -0.8), stax.Dense(1))


NETS = {
    "wide residual": (wide_residual, (3, 3, 2)),
    "Myrtle, layer norm": (myrtle, (4, 4, 2)),
    "upsampled": (upsampled, (2, 2, 2)),
    "graph": (graph, (4, 2)),
    "attention": (attending, (4, 2)),
    "locally connected": (locally_connected, (3, 2)),
    "product": (product, (3,)),
    "quadratic attention": (attending_to_pairs, (4, 2)),
    "normalised exponential": (normalised_exponential, (3,)),
}


def converged(name, method):
    """The method, of degree 8 where a series does not end."""
    if name == "normalised exponential" and method in (SKETCH, ZONAL):
        return functools.partial(method.func, 8, normalize=False)
    return method


PATTERN = np.random.default_rng(2).uniform(size=(3, 4, 4))

#: By their names; in CI two nets under `RandomFeatures`, and two other methods where a layer makes
#: features of its own.
KEPT = ("wide residual", "product")
ROWS = [
    pytest.param(
        name,
        RANDOM,
        id=f"{name}-RandomFeatures",
        marks=() if name in KEPT else pytest.mark.slow,
    )
    for name in NETS
]
for _name in NETS:
    for _method in (LEVERAGE, SKETCH, ZONAL):
        _method = converged(_name, _method)
        _id = f"{_name}-{getattr(_method, 'func', _method).__name__}"
        _kept = (_name, _method) in (("product", SKETCH), ("product", LEVERAGE))
        _marks = () if _kept else pytest.mark.slow
        ROWS.append(pytest.param(_name, _method, id=_id, marks=_marks))


def draws_of(model, x, method, options):
    """Kernels of independent maps: (keys, n, n) each."""

    def one(key):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        z = ns.feature_map(model, shape, method, key=key, **options)(x, **options)
        return z.nngp @ z.nngp.T, z.ntk @ z.ntk.T

    return map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), KEYS)))


def net(name, method):
    make, shape = NETS[name]
    model, x = make(nonlinearity(method)), np.random.default_rng(1).normal(size=(3, *shape))
    options = {"pattern": PATTERN} if name == "graph" else {}
    pairs = {"pattern": (PATTERN, PATTERN)} if name == "graph" else {}
    exact = model[2](x, None, ("nngp", "ntk"), **pairs)
    return model, x, options, [np.asarray(kernel) for kernel in exact]


@pytest.mark.parametrize(("name", "method"), ROWS)
def test_unbiased(name, method):
    """Within four standard errors at every entry."""
    model, x, options, exact = net(name, method)
    draws = draws_of(model, x, method(8), options)
    for values, right in zip(draws, exact, strict=True):
        error = np.abs(values.mean(0) - right)
        rounding = 100 * np.finfo(float).eps * np.abs(right)
        assert np.all(error <= 4 * values.std(0, ddof=1) / np.sqrt(KEYS) + rounding)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [n for n in NETS if n not in ("product", "quadratic attention", "normalised exponential")],
)
def test_landmarks_and_residual_features_are_unbiased(name):
    """Landmarks of other examples, anew for every key, with residual features; not calibrated."""
    model, x, options, exact = net(name, RANDOM)
    rng = np.random.default_rng(4)
    sample = rng.normal(size=(12, *NETS[name][1]))
    graphs = {"pattern": rng.uniform(size=(12, 4, 4))} if name == "graph" else {}
    method, draws = ns.Nystroem(6, residual=0.5, calibrate=False), ([], [])
    for key in jax.random.split(jax.random.key(3), KEYS // 4):
        z = ns.feature_map(model, sample, method, key=key, **graphs)(x, **options)
        for values, features in zip(draws, (z.nngp, z.ntk), strict=True):
            values.append(np.asarray(features @ features.T))
    for values, right in zip(map(np.stack, draws), exact, strict=True):
        error = np.abs(values.mean(0) - right)
        rounding = 1e-9 * np.abs(right).max()  # of roots of Gram matrices
        assert np.all(error <= 4 * values.std(0, ddof=1) / np.sqrt(len(values)) + rounding)


#: Independent directions, since orthogonal ones do better at first.
RATES = {
    "RandomFeatures": functools.partial(RANDOM, orthogonal=False),
    "LeverageScore": functools.partial(LEVERAGE, orthogonal=False),
    "PolySketch": SKETCH,
    "Gegenbauer": ZONAL,
}
FEW = ("wide residual-RandomFeatures", "product-RandomFeatures")


@pytest.mark.parametrize("case", others_slow([f"{n}-{m}" for n in NETS for m in RATES], *FEW))
def test_error_falls_with_the_width(case, monkeypatch):
    """As width^(-1/2), within four standard errors of the exponent.

    Sketches of products err by products of their factors' errors too, which fall as 1/width: they
    are compared where those are small.
    """
    name, method = case.rsplit("-", 1)
    make, widths = RATES[method], WIDTHS
    if make in (SKETCH, ZONAL):
        widths = (32, 128)
        monkeypatch.setattr(Method, "compresses", lambda *_: (False, False))
    model, x, options, exact = net(name, make)
    squares: list[list] = [[], []]
    for width in widths:
        draws = draws_of(model, x, converged(name, make)(width), options)
        for found, values, right in zip(squares, draws, exact, strict=True):
            found.append(np.sum((values - right) ** 2, axis=(1, 2)))
    octaves = np.log(widths[1] / widths[0])
    for few, many in squares:
        rate = np.log(many.mean() / few.mean()) / octaves / 2
        relative = [s.std(ddof=1) / s.mean() / np.sqrt(KEYS) for s in (few, many)]
        assert abs(rate + 0.5) < 4 * np.hypot(*relative) / octaves / 2, rate
