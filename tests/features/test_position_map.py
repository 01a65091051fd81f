"""Patch operators against their finite layers, and variances against dense sums."""

import functools
import itertools
import tracemalloc

import jax
import neural_tangents as nt
import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.features import _position_map, _sources
from ntk_sketch.features._patch_operator import PatchOperator
from ntk_sketch.features._position_map import map_numbers, map_offsets, through_map
from ntk_sketch.features._sources import operator_sources, sources_of
from ntk_sketch.features._transposed_windows import TransposedWindows
from ntk_sketch.features._unshared_windows import UnsharedWindows
from ntk_sketch.features._variances import Variances
from ntk_sketch.features._windows import Windows

pytestmark = pytest.mark.usefixtures("float64")

PADDINGS = ("SAME", "VALID", "CIRCULAR")
TRANSPOSED = [
    *itertools.product(((2,), (4,), (7,)), ((2,), (3,)), PADDINGS),
    *(((3, 2), (2, 1), padding) for padding in PADDINGS),
]
RNG = np.random.default_rng(0)


def images(*shape):
    return RNG.normal(size=shape)


def is_patch_operator(operator, x):
    """Its members agree with each other, at every position."""
    assert isinstance(operator, PatchOperator)
    patches = operator.patches(x)
    outputs = operator.output_space(x.shape[1:-1])
    assert patches.shape == (len(x), *outputs, operator.size * x.shape[-1])
    matrix = images(patches.shape[-1], 5)
    projected = operator.project(x, jnp.asarray(matrix))
    np.testing.assert_allclose(projected, patches @ matrix, rtol=1e-12, atol=1e-12)
    index = tuple(i.ravel() for i in np.indices(patches.shape[:-1]))
    np.testing.assert_array_equal(operator.patches_at(x, index), patches[index])


# ------------------------------------------------------------------ operators


@pytest.mark.parametrize(("shape", "strides", "padding"), TRANSPOSED)
def test_transposed_windows(shape, strides, padding):
    """With the columns as filters: Neural Tangents' finite layer."""
    operator = TransposedWindows(shape, strides, padding)
    x = jnp.asarray(images(2, *(4, 3)[: len(shape)], 2))
    filters = images(*shape, 2, 3)
    projected = operator.project(x, jnp.asarray(filters.reshape(-1, 3)))
    _, apply_fn, _ = nt.stax.ConvTranspose(3, shape, strides, padding)
    expected = apply_fn((jnp.asarray(filters), None), x) * np.sqrt(filters[..., 0].size)
    np.testing.assert_allclose(projected, expected, rtol=1e-12, atol=1e-12)


def test_members_agree():
    x = jnp.asarray(images(2, 3, 2, 2))
    is_patch_operator(TransposedWindows((3, 2), (2, 1), "CIRCULAR"), x)
    is_patch_operator(UnsharedWindows(Windows((2, 2), (1, 1), "SAME"), (3, 2)), x)


@pytest.mark.parametrize("padding", PADDINGS)
def test_unshared_windows(padding):
    """Neural Tangents' finite layer, whose filters have channels before positions."""
    windows = Windows((2, 2), (1, 2), padding)
    x = jnp.asarray(images(2, 3, 4, 2))
    operator = UnsharedWindows(windows, (3, 4))
    outputs = operator.output_space((3, 4))
    filters = images(*outputs, 2, 4, 3)
    _, apply_fn, _ = nt.stax.ConvLocal(3, (2, 2), (1, 2), padding)
    params = jnp.asarray(filters.reshape(*outputs, 8, 3)), None
    expected = apply_fn(params, x) * np.sqrt(8)
    matrix = np.moveaxis(filters, -3, -2).reshape(-1, 3)
    np.testing.assert_allclose(operator.project(x, jnp.asarray(matrix)), expected, rtol=1e-12)


def test_unshared_positions_are_orthogonal():
    operator = UnsharedWindows(Windows((2,), (1,), "SAME"), (4,))
    patches = np.asarray(operator.patches(jnp.asarray(images(2, 4, 3))))
    products = np.einsum("isd,jtd->ijst", patches, patches)
    assert not products[..., ~np.eye(4, dtype=bool)].any()
    shared = np.asarray(operator.windows.patches(jnp.asarray(images(2, 4, 3))))
    assert patches.shape[-1] == 4 * shared.shape[-1]


# ------------------------------------------------------------------ variances


def resampled(x):
    """Sums with weights of either sign, to fewer positions on two axes, one of which goes."""
    return (x[:, ::2, :, :] - 0.5 * x[:, -1:, :, :]).sum(2) + 0.25 * x[:, :2, 0]


MAPS = {
    "transposed": ((3, 2), TransposedWindows((3, 2), (2, 1), "SAME").patches),
    "circular": ((4,), TransposedWindows((3,), (2,), "CIRCULAR").patches),
    "convolution": ((3, 3), Windows((2, 2), (2, 1), "SAME").patches),
    "reversed": ((5,), lambda x: x[:, ::-1]),
    "one row": ((3, 4), lambda x: x[:, 1, ::2]),
    "one position": ((3, 2), lambda x: x[:, -1, 0]),
    "resampled": ((4, 3), resampled),
    "another axis": ((3,), lambda x: x[:, None]),
    "vectors": ((), lambda x: 0.3 * x),
}


def banded(covariance, space, offsets):
    """(n, D1, ..., S1, ...) from covariances (n, S, S) of flat positions."""
    band = np.zeros((len(covariance), *map(len, offsets), *space))
    for number in np.ndindex(*map(len, offsets)):
        for s in np.ndindex(*space):
            t = tuple(i + offsets[k][d] for k, (i, d) in enumerate(zip(s, number, strict=True)))
            if all(0 <= i < size for i, size in zip(t, space, strict=True)):
                flat = [np.ravel_multi_index(at, space) if space else 0 for at in (s, t)]
                band[(slice(None), *number, *s)] = covariance[:, flat[0], flat[1]]
    return band


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize(
    ("name", "along"), [*((name, (-1, 0, 2)) for name in MAPS), ("resampled", (0,))]
)
def test_variances(name, along, matrices, monkeypatch):
    """`Σ_u W_u K W_uᵀ` with dense matrices, from no more of K than was asked for: pair by pair, and
    by products with covariances of all pairs.
    """
    space, fn = MAPS[name]
    if matrices and name in ("one position", "vectors"):
        pytest.skip("no pairs of positions")
    monkeypatch.setattr(_position_map, "_by_matrices", lambda sources, out: matrices)
    sources = sources_of(fn, space)
    count = int(np.prod(space))
    units = np.asarray(fn(jnp.eye(count).reshape(count, *space, 1)))
    assert sources.outputs == units.shape[1:-1]
    weights = units.reshape(count, -1, units.shape[-1])
    vectors = images(2, count, 3)
    covariance = np.einsum("nsc,ntc->nst", vectors, vectors)
    out = (along,) * len(sources.outputs)
    needed = map_offsets(sources, out)
    assert len(needed) == len(space)
    if space:
        assert min(needed[0]) == 0
    given = Variances(jnp.asarray(banded(covariance, space, needed)), None, None, needed)
    found = through_map(given, sources, out)
    after = np.einsum("sau,nst,tbu->nab", weights, covariance, weights)
    np.testing.assert_allclose(found.same, banded(after, sources.outputs, out), atol=1e-12)
    assert found.offsets == out


def mixed(positions, outputs, taps=1):
    """A sum of all positions for each output."""
    matrix = np.random.default_rng(5).normal(size=(positions, outputs, taps))
    return lambda x: jnp.einsum("nsc,sou->nou", x, matrix)


def windows(x, size=33):
    """Sums of so many neighbours."""
    sums = jnp.cumsum(jnp.pad(x, ((0, 0), (size, 0), (0, 0))), axis=1)
    return sums[:, size:] - sums[:, :-size]


def one_of_all(x):
    """The sum of all positions, and nine shifts."""
    total = jnp.broadcast_to(x.sum(1, keepdims=True), x.shape)
    return jnp.concatenate([total, *(jnp.roll(x, u, axis=1) for u in range(9))], axis=-1)


def enlarged(x):
    """Ten of 64 positions for each of 16,384."""
    place = (np.arange(16384)[:, None] // 256 + 5 * np.arange(10)) % 64
    numbers = np.random.default_rng(4).normal(size=place.shape)
    return (x[:, place, 0] * numbers[None]).sum(-1)[..., None]


@pytest.mark.parametrize(
    ("fn", "space", "out", "matrices"),
    [
        (mixed(100, 100), (100,), ((0,),), True),
        (mixed(60, 60, 3), (60,), ((0, 1, 2),), True),
        (mixed(200, 1), (200,), ((0,),), True),
        (enlarged, (64,), ((0, 1, 2),), False),
        (one_of_all, (100,), ((0,),), False),
        (windows, (1024,), ((0,),), False),
        (windows, (1024,), (tuple(range(1024)),), True),
        (lambda x: x + x[:, ::-1], (1024,), ((0, 1, 2),), False),
        (TransposedWindows((3, 3), (2, 2), "SAME").patches, (8, 8), ((0, 1),) * 2, False),
        (TransposedWindows((3, 3), (2, 2), "SAME").patches, (64, 64), ((0, 1),) * 2, False),
    ],
)
def test_the_way_with_less_work(fn, space, out, matrices):
    """Matrix products where outputs depend on most inputs or pairs are very many, and then only."""
    sources = sources_of(fn, space)
    assert _position_map._by_matrices(sources, out) == matrices
    of_each, of_all = map_numbers(sources, out)
    positions = max(np.prod(space), np.prod(sources.outputs))
    if matrices:
        assert of_each <= 2 * (2 + sources.source.shape[0]) * positions**2
    else:
        assert of_all == 6 * of_each
        assert of_each <= 5 * 2**20


def memory(sources, out, examples, dtype):
    """Bytes of the plan at its peak, and of what the program holds besides what it is given."""
    tracemalloc.start()
    needed = map_offsets(sources, out)
    band = jax.ShapeDtypeStruct((examples, len(needed[0]), *sources.space), dtype)
    program = jax.jit(lambda band: through_map(Variances(band, None, None, needed), sources, out))
    program = program.lower(band)
    planned = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return planned, program.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("fn", "size", "out"),
    [(one_of_all, 160, ((0,),)), (functools.partial(windows, size=48), 2048, ((0,),))],
)
def test_memory_of_pairs(fn, size, out):
    """As is counted: for each example, and beside that, where it is planned at most twice as much
    and a constant.
    """
    sources = sources_of(fn, (size,))
    of_each, of_all = map_numbers(sources, out)
    planned, used = memory(sources, out, 3, np.float32)
    assert planned < 2 * 4 * of_all + 2**26
    assert used < 1.1 * 4 * 3 * of_each + 2**20


@pytest.mark.parametrize(
    ("size", "taps", "out"),
    [(300, 1, ((0,),)), (200, 2, ((0, 1, 2),)), (150, 1, (tuple(range(-149, 150)),))],
)
def test_memory_of_sums_of_all_positions(size, taps, out):
    """Squares of the number of positions, never its cube, before and in the program."""
    sources = sources_of(mixed(size, size, taps), (size,))
    planned, used = memory(sources, out, 1, np.float64)
    square = 8 * size**2
    assert planned < (20 + 6 * taps) * square + 2**21
    assert used < (6 + 2 * taps) * square
    assert (20 + 6 * taps) * square + 2**21 < 8 * taps * size**3


def test_sources_are_found_once():
    operator = TransposedWindows((3, 2), (2, 1), "SAME")
    assert operator_sources(operator, (3, 2)) is operator_sources(
        TransposedWindows((3, 2), (2, 1), "SAME"), (3, 2)
    )


@pytest.mark.parametrize(
    ("fn", "terms"),
    [
        (lambda x: x[:, ::-1], 1),
        (lambda x: x + 0.5 * x[:, ::-1], 2),
        (lambda x: x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2], 3),
        (lambda x: jnp.cumsum(x.reshape(len(x), -1, 4, 1), axis=2), 4),
        (lambda x: (jnp.cumsum(x, 1)[:, 3:] - jnp.cumsum(x, 1)[:, :-3]) / 3, 3),
    ],
    ids=["reversed", "with its mirror image", "second difference", "sums of four", "moving mean"],
)
def test_sources_of_many_positions_by_few_vectors(fn, terms):
    """Linear in positions but for a logarithm: no unit vector of each of 4,096 positions."""
    space, given = (4096,), []
    sources = sources_of(lambda x: given.append(len(x)) or fn(x), space)
    assert sources.source.shape[-1] == terms
    assert sum(given) < 256
    x = jnp.asarray(images(2, *space, 1))
    found = (np.asarray(x)[:, sources.source, 0] * sources.weight).sum(-1)
    np.testing.assert_allclose(found.ravel(), np.ravel(fn(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("numbers", [2**22, 200])
@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_sources_of_any_matrix(density, numbers, monkeypatch):
    """More colours than vectors at a time, and parts of fewer vectors; two taps."""
    monkeypatch.setattr(_sources, "_PART", numbers)
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(70, 2, 9)) * (rng.uniform(size=(70, 2, 9)) < density)
    found = sources_of(lambda x: jnp.einsum("ns,suo->nou", x[..., 0], matrix), (70,))
    dense = np.zeros_like(matrix)
    for u, o, k in zip(*np.nonzero(found.source >= 0), strict=True):
        dense[found.source[u, o, k], u, o] = found.weight[u, o, k]
    np.testing.assert_allclose(dense, matrix, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("fn", "size", "terms"),
    [
        (lambda x, w: w[:, 1:] * x[:, 1:] - w[:, :-1] * x[:, :-1], 1e-11, 2),
        (lambda x, w: w * x, 1e-19, 1),
    ],
    ids=["differences", "one position"],
)
def test_small_weights(fn, size, terms):
    """Each output has its own largest weight, however small beside those of others."""
    weights = np.geomspace(1, size, 20)[None, :, None]
    found = sources_of(lambda x: fn(x, weights), (20,))
    assert (found.source >= 0).sum(-1).min() == terms
    assert found.weight.all()


@pytest.mark.parametrize("name", ["scaled", "moving mean", "all"])
def test_weights_by_few_vectors(name):
    """As many as an output has inputs, not one for each position."""
    weights, given = jnp.asarray(RNG.normal(size=(4, 4))), []
    fn, few = {
        "scaled": (lambda x: 0.7 * x, 1),
        "moving mean": (lambda x: x[:, 1:] + 0.3 * x[:, :-1] + 0 * weights[0, 0], 2),
        "all": (lambda x: jnp.einsum("nhwc,hk->nkwc", x, weights), 4),
    }[name]
    sources = sources_of(fn, (4, 5))
    found = sources.weighted(lambda x: given.append(len(x)) or fn(x), jnp.float64)
    assert given == [few]
    np.testing.assert_allclose(found.weight, sources.weight, rtol=1e-12)


def test_weights_under_a_trace():
    """The same inputs with other weights, which are differentiated."""
    sources = sources_of(lambda x: jnp.cumsum(2.0 * x, axis=1), (3,))

    def total(factor):
        weighted = sources.weighted(lambda x: jnp.cumsum(factor * x, axis=1), jnp.float64)
        same = jnp.ones((1, 3, 3))
        variances = Variances(same, None, None, ((0, 1, 2),))
        return jnp.sum(through_map(variances, weighted, ((0,),)).same)

    # Of ones at all offsets inside: 1 + 4 + 9, times the factor squared.
    inside = sources._replace(weight=sources.weight / 2)
    band = Variances(
        jnp.asarray(banded(np.ones((1, 3, 3)), (3,), ((0, 1, 2),))), None, None, ((0, 1, 2),)
    )
    assert float(through_map(band, inside, ((0,),)).same.sum()) == 14
    value, slope = jax.value_and_grad(total)(3.0)
    np.testing.assert_allclose((value, slope), (9 * 14, 6 * 14))
