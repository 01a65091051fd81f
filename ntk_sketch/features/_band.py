"""Arrays over a band of position offsets: one number for every pair of positions `s`, `s + δ`.

Shapes are (n, D1, D2, ..., S1, S2, ...): offsets, then positions. Pairs whose second position lies
outside are 0.
"""

import functools
import itertools

import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array


def band_mask(space: tuple[int, ...], offsets: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Which pairs `(s, s + δ)` lie inside: (1, D1, D2, ..., S1, S2, ...), the same for all n."""
    k = len(space)
    mask = np.ones((1,) * (1 + 2 * k), bool)
    for axis, (size, along) in enumerate(zip(space, offsets, strict=True)):
        second = np.arange(size) + np.array(along)[:, None]
        shape = [1] * (1 + 2 * k)
        shape[1 + axis], shape[1 + k + axis] = second.shape
        mask = mask & ((second >= 0) & (second < size)).reshape(shape)
    return mask


def here(q: Array) -> Array:
    """`q` (n, *space) at `s`, with axes for offsets."""
    return q.reshape((q.shape[0], *(1,) * (q.ndim - 1), *q.shape[1:]))


def there(x: Array, offsets: tuple[tuple[int, ...], ...]) -> Array:
    """`x` (n, ..., *space) at `s + δ`, 0 outside: (n, D1, D2, ..., ..., *space)."""
    for axis in reversed(range(len(offsets))):
        at = x.ndim - len(offsets) + axis
        x = jnp.stack([shifted(x, at, o) for o in offsets[axis]], axis=1)
    return x


def shifted(x: Array, axis: int, offset: int) -> Array:
    """`x` at index `i + offset` of an axis, 0 outside."""
    size = x.shape[axis]
    kept = jax.lax.slice_in_dim(
        x, min(max(offset, 0), size), max(min(size + offset, size), 0), axis=axis
    )
    pads = [(0, 0)] * x.ndim
    pads[axis] = (min(max(-offset, 0), size), min(max(offset, 0), size))
    return jnp.pad(kept, pads)


#: Offsets that are few enough for `near_products`, and channels that it sums at a time. With 5 to 7
#: channels XLA on a CPU makes one loop of all sums, which takes three times as long.
NEAR, _CHANNELS = 32, 8
#: Positions of all examples that are too few for it: it takes a second to compile.
FEW = 2048


def near_products(x: Array, offsets: tuple[tuple[int, ...], ...]) -> Array:
    """`<x_s, x_{s+δ}>` of vectors `x` (n, *space, c), for few offsets (but more than one).

    Sums of shifted products, written out for a few channels at a time. The products at -δ are those
    at δ, shifted. On a CPU this takes .15 to .8 of the time of `band_products`, for 27 and 64
    channels and 2 to 32 offsets.
    """
    n, *space, c = x.shape
    channels = c if c <= _CHANNELS // 2 else _CHANNELS
    parts = -(-c // channels)
    home = tuple(max(-min(along), 0) for along in offsets)
    pads = [(first, max(*along, 0)) for first, along in zip(home, offsets, strict=True)]
    padded = jnp.pad(jnp.moveaxis(x, -1, 0), [(0, channels * parts - c), (0, 0), *pads])
    place: dict[tuple[int, ...], int] = {}  # of the offsets that are summed
    for offset in itertools.product(*offsets):
        if tuple(-o for o in offset) not in place:
            place[offset] = len(place)

    def window(plane, offset):
        start = tuple(map(sum, zip(home, offset, strict=True)))
        stop = map(sum, zip(start, space, strict=True))
        return jax.lax.slice(plane, (0, *start), (n, *stop))

    def of_channels(values):
        planes = [jax.lax.index_in_dim(values, k, keepdims=False) for k in range(channels)]
        own, bands = [window(plane, (0,) * len(space)) for plane in planes], []
        for offset in place:
            others = (window(plane, offset) for plane in planes)
            bands.append(functools.reduce(jax.lax.add, map(jax.lax.mul, own, others)))
        return jnp.stack(bands)

    blocks = padded.reshape(parts, channels, *padded.shape[1:])
    total, _ = jax.lax.scan(
        lambda total, block: (total + of_channels(block), None),
        jnp.zeros((len(place), n, *space), x.dtype),
        blocks,
    )

    return _all_bands(total, place, offsets).reshape(n, *map(len, offsets), *space)


def _all_bands(
    total: Array, place: dict[tuple[int, ...], int], offsets: tuple[tuple[int, ...], ...]
) -> Array:
    """Those of `total` (k, n, *space) and, shifted, those at the offsets of opposite sign, in the
    order of `offsets`, as (n, offsets, *space).

    A loop of copies, which compiles in no time.
    """
    reach = [max(map(abs, along)) for along in offsets]
    padded = jnp.pad(total, [(0, 0), (0, 0), *((r, r) for r in reach)])
    starts = []
    for offset in itertools.product(*offsets):
        here = offset in place
        at = place[offset] if here else place[tuple(-o for o in offset)]
        starts.append([at, 0, *(r if here else r + o for r, o in zip(reach, offset, strict=True))])

    def band(start):
        return jax.lax.dynamic_slice(padded, tuple(start), (1, *total.shape[1:]))[0]

    return jnp.moveaxis(jax.lax.map(band, np.array(starts, np.int32)), 0, 1)


#: Positions of the last axis in one tile of `band_products`.
_TILE = 32


def band_products(x: Array, offsets: tuple[tuple[int, ...], ...]) -> Array:
    """`<x_s, x_{s+δ}>` of vectors `x` (n, *space, c).

    Along the last axis, matrix products multiply tiles of positions with the positions around them,
    and only the band is kept. For many offsets that takes less time than sums of shifted products.
    """
    *before, last = offsets
    k, width, low = len(offsets), x.shape[-2], min(last)
    span, tile = max(last) - low, min(width, _TILE)
    tiles = -(-width // tile)
    pads = [(0, 0)] * x.ndim
    pads[-2] = (0, tiles * tile - width)
    own = jnp.pad(x, pads).reshape(*x.shape[:-2], tiles, tile, -1)
    pads[-2] = (max(-low, 0), max(tiles * tile + low + span - width, 0))
    around = jax.lax.slice_in_dim(jnp.pad(x, pads), max(low, 0), None, axis=x.ndim - 2)
    around = jnp.stack(
        [
            jax.lax.slice_in_dim(around, i * tile, (i + 1) * tile + span, axis=x.ndim - 2)
            for i in range(tiles)
        ],
        axis=-3,
    )
    bands = []
    for shift in np.ndindex(*map(len, before)):
        there = around
        for axis, index in enumerate(shift):
            there = shifted(there, 1 + axis, before[axis][index])
        # The band of row w is in columns w to w + span: one more column aligns the rows.
        product = jnp.einsum("...wc,...vc->...wv", own, there, precision="highest")
        flat = product.reshape(*product.shape[:-2], -1)
        flat = jnp.pad(flat, ((0, 0),) * (flat.ndim - 1) + ((0, tile),))
        band = flat.reshape(*flat.shape[:-2], tiles * tile, tile + span + 1)
        band = band[..., :width, np.array(last) - low]
        bands.append(jnp.moveaxis(band, -1, 1))
    return jnp.stack(bands, 1).reshape(len(x), *map(len, offsets), *x.shape[1 : 1 + k])


def entries(values: Array, offsets, axis: int, want) -> Array:
    """A band at `offsets`, with the offsets `want` of one axis instead; 0 where one is missing."""
    if axis == 0:
        return _with_mirrored(values, offsets, want)
    return columns(values, 1 + axis, offsets[axis], want)


def _with_mirrored(values: Array, offsets, want) -> Array:
    """The entries of `want` along the first axis of offsets. A missing offset is the mirror image
    of its negative, `K(s, s + (-a, b)) = K(t, t + (a, -b))` at `t = s + (-a, b)`, or else 0.
    """
    first, *others = offsets
    missing = [o for o in want if o not in first and -o in first]
    if missing:
        images = columns(values, 1, first, tuple(-o for o in missing))
        images = jnp.stack(
            [shifted(images[:, i], len(offsets), o) for i, o in enumerate(missing)], axis=1
        )
        for axis, along in enumerate(others, start=1):
            images = columns(images, 1 + axis, along, tuple(-o for o in along))
            images = jnp.stack(
                [
                    shifted(jnp.take(images, i, axis=1 + axis), len(offsets) + axis, o)
                    for i, o in enumerate(along)
                ],
                axis=1 + axis,
            )
        values = jnp.concatenate([images, values], axis=1)
    return columns(values, 1, (*missing, *first), want)


def columns(values: Array, axis: int, have, want) -> Array:
    """The entries of `want` along an axis that holds `have`; 0 where one is missing."""
    if tuple(want) == tuple(have):
        return values
    where = {o: i for i, o in enumerate(have)}
    index = np.array([where.get(o, len(have)) for o in want])
    if (index == len(have)).any():
        pads = [(0, 0)] * values.ndim
        pads[axis] = (0, 1)
        values = jnp.pad(values, pads)
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step == 0 or (np.diff(index) != step).any():
        return jnp.take(values, index, axis=axis)
    start, end = int(index.min()), int(index.max()) + 1
    values = jax.lax.slice_in_dim(values, start, end, abs(step), axis=axis)
    return values if step > 0 else jnp.flip(values, axis)
