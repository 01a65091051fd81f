"""Variances after a linear map of positions that treats channels alike."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax import numpy as jnp

from .._typing import Offsets
from ._position_pairs import exact_matrices, pair_bands
from ._sources import Sources
from ._variances import Variances

#: Up to this number, pairs of inputs are gathered one by one if that is less work.
_PAIRS = 2**22
#: Multiplications in a matrix product that take the time of one gathered number.
_PRODUCTS = 16
#: Numbers held for a gathered pair: its index, its weight and what this is found from.
_NUMBERS = 6
#: Pairs looked at at a time.
_PART = 2**18


def map_offsets(sources: Sources, out: Offsets) -> Offsets:
    """Input offsets that output offsets `out` need. Those of the first axis are not negative."""
    if out is None:
        return None
    return _all_offsets(sources.space) if _by_matrices(sources, out) else _offsets(sources, out)


def map_numbers(sources: Sources, out: tuple[tuple[int, ...], ...]) -> tuple[int, int]:
    """About how many numbers `through_map` holds at once beside the bands: for each example, and
    for all of them together.
    """
    taps, outputs, _ = sources.source.shape
    count = math.prod(sources.space)
    if _by_matrices(sources, out):
        weights = taps * outputs * count
        return 2 * (count**2 + weights + outputs**2), weights  # K and Θ
    pairs = _count(sources, out)
    return pairs, _NUMBERS * pairs


def through_map(
    variances: Variances, sources: Sources, out: tuple[tuple[int, ...], ...]
) -> Variances:
    """Covariances after the map, summed over its taps: `K(S, S+δ) = Σ_u Σ_st W_u[S, s] W_u[S+δ, t]
    K(s, t)`.

    Cost: one product for each pair of inputs, of every output and offset. Where that is more work
    than matrix products `Σ_u W_u K W_uᵀ` with covariances of all pairs, as where each output
    depends on most inputs, it is these.
    """
    if _by_matrices(sources, out):
        return _through_matrices(variances, sources, out)
    index, one, other, valid = _gathered(sources, variances.offsets, out)
    flat = sources.weight.reshape(-1)
    products = flat[one] * flat[other]
    shape = (*map(len, out), *sources.outputs)

    def apply(values):
        weights = jnp.where(valid, jnp.asarray(products, values.dtype), 0)
        band = values.reshape(len(values), -1)
        return jnp.sum(band[:, index] * weights[None], axis=-1).reshape(len(values), *shape)

    return variances.linear(apply, out)


def _through_matrices(variances: Variances, sources: Sources, out) -> Variances:
    axes = tuple(range(len(sources.space)))
    matrices = exact_matrices(variances, axes, _all_offsets(sources.space))
    weights = sources.matrix()

    def apply(values):
        w = jnp.asarray(weights, values.dtype)
        left = jnp.einsum("uSs,nst->nuSt", w, values, precision="highest")
        return jnp.einsum("nuSt,uTt->nST", left, w, precision="highest")

    after = matrices.linear(apply, out)
    return pair_bands(after, sources.outputs, tuple(range(len(out))), out)


def _by_matrices(sources: Sources, out: tuple[tuple[int, ...], ...]) -> bool:
    """Whether matrix products are less work than pairs one by one, or these are too many."""
    if not (sources.space and sources.outputs):
        return False
    taps, outputs, _ = sources.source.shape
    count, pairs = math.prod(sources.space), _count(sources, out)
    band = count * math.prod(map(len, _all_offsets(sources.space)))
    if pairs > max(_PAIRS, band + taps * outputs * count + outputs**2):
        return True
    work = taps * outputs * count * (count + outputs) / _PRODUCTS
    # Bands are of at least `count` numbers, and of all at most.
    if work >= pairs or band + work < count + pairs:
        return work < pairs
    return band + work < count * math.prod(map(len, _offsets(sources, out))) + pairs


def _count(sources: Sources, out: tuple[tuple[int, ...], ...]) -> int:
    """How many pairs of inputs are gathered: as many for each output and offset."""
    return _most_pairs(sources, out) * math.prod((*sources.outputs, *map(len, out)))


def _most_pairs(sources: Sources, out: tuple[tuple[int, ...], ...]) -> int:
    """Of one output, at one offset."""
    terms = (sources.source >= 0).sum(axis=-1)
    return max(
        int((terms * np.where(inside, terms[:, there], 0)).sum(axis=0).max(initial=1))
        for there, inside in _moved(sources, out)
    )


def _all_offsets(space: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(1 - size if axis else 0, size)) for axis, size in enumerate(space))


def _offsets(sources: Sources, out: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """The offsets of pairs of inputs that outputs have in common at the offsets `out`."""
    needed: list[set[int]] = [{0} for _ in sources.space]
    for _, pairs in _pairs(sources, out):
        steps = _coordinates(pairs.second, sources.space) - _coordinates(pairs.first, sources.space)
        for axis, along in enumerate(steps[:, pairs.valid]):
            found = set(np.unique(along).tolist())
            needed[axis] |= {*found, *(-o for o in found)} if axis else set(map(abs, found))
    return tuple(tuple(sorted(along)) for along in needed)


class _Pairs(NamedTuple):
    """Pairs of inputs of some outputs at one offset: (outputs, pairs).

    `first` and `second` are flat inputs, `places` the indices of their weights.
    """

    first: np.ndarray
    second: np.ndarray
    places: tuple[np.ndarray, np.ndarray]
    valid: np.ndarray


def _moved(sources: Sources, out) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each offset, every output's neighbour, and whether it is inside."""
    at = _coordinates(np.arange(math.prod(sources.outputs)), sources.outputs)
    sizes = np.array(sources.outputs, int)[:, None]
    for offset in itertools.product(*out):
        moved = at + np.array(offset, int)[:, None]
        inside = np.all((moved >= 0) & (moved < sizes), axis=0)
        yield np.where(inside, _flat(moved, sources.outputs), 0), inside


def _pairs(sources: Sources, out) -> Iterator[tuple[tuple[int, slice], _Pairs]]:
    """The pairs of so many outputs at a time as have `_PART` of them, with these outputs' places:
    the number of the offset and a slice.
    """
    taps, outputs, _ = sources.source.shape
    source = sources.source.reshape(-1)
    place = np.arange(source.size).reshape(sources.source.shape)
    terms = [int(most) for most in (sources.source >= 0).sum(axis=-1).max(axis=-1)]
    step = max(_PART // max(sum(most**2 for most in terms), 1), 1)
    for number, (there, inside) in enumerate(_moved(sources, out)):
        for start in range(0, outputs, step):
            rows = slice(start, start + step)
            # An output's terms come first: no tap has more than its own number of them.
            both = [
                np.broadcast_arrays(place[u, rows, :most, None], place[u, there[rows], None, :most])
                for u, most in zip(range(taps), terms, strict=True)
            ]
            one, other = (
                np.concatenate([part.reshape(len(part), -1) for part in parts], axis=-1)
                for parts in zip(*both, strict=True)
            )
            first, second = source[one], source[other]
            valid = (first >= 0) & (second >= 0) & inside[rows, None]
            yield (number, rows), _Pairs(first, second, (one, other), valid)


def _gathered(sources: Sources, have, out) -> tuple[np.ndarray, ...]:
    """Of every offset and output its pairs' places in a band, the places of both weights, and
    whether there is such a pair: (offsets, outputs, pairs) each.
    """
    offsets, width = math.prod(map(len, out)), _most_pairs(sources, out)
    shape = (offsets, math.prod(sources.outputs), width)
    index, one, other = (np.zeros(shape, np.int32) for _ in range(3))
    valid = np.zeros(shape, bool)
    for (number, rows), pairs in _pairs(sources, out):
        order = np.argsort(~pairs.valid, axis=-1, kind="stable")[:, :width]
        found = (_band_index(pairs, sources.space, have), *pairs.places, pairs.valid)
        for whole, part in zip((index, one, other, valid), found, strict=True):
            whole[number, rows, : order.shape[-1]] = np.take_along_axis(part, order, axis=-1)
    return index, one, other, valid


def _band_index(pairs: _Pairs, space: tuple[int, ...], have) -> np.ndarray:
    """Indices of the pairs' covariances in a flat band at offsets `have`. A pair whose offset is
    missing is found by its mirror image.
    """
    first, second = _coordinates(pairs.first, space), _coordinates(pairs.second, space)
    step, at = second - first, first
    if have:
        mirrored = ~np.isin(step[0], have[0])
        step, at = np.where(mirrored, -step, step), np.where(mirrored, second, first)
    index = np.zeros(pairs.valid.shape, int)
    for along, offsets in zip(step, have, strict=True):
        where = np.searchsorted(offsets, along)
        where = np.minimum(where, len(offsets) - 1)
        assert np.all((np.array(offsets)[where] == along) | ~pairs.valid), "an offset is not there"
        index = index * len(offsets) + where
    index = index * math.prod(space) + _flat(at, space)
    return np.where(pairs.valid, index, 0)


def _coordinates(flat: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    """Coordinates (axes, ...) of flat positions (...)."""
    parts = []
    for size in reversed(space):
        flat, part = np.divmod(flat, size)
        parts.append(part)
    return np.stack(parts[::-1]) if parts else np.zeros((0, *np.shape(flat)), int)


def _flat(coordinates: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    flat = np.zeros(coordinates.shape[1:], int)
    for part, size in zip(coordinates, space, strict=True):
        flat = flat * size + part
    return flat
