"""Variances after convolutions and pools: covariances of windows of positions."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array, Offsets
from ._band import band_mask, columns, entries
from ._variances import Variances
from ._windows import Windows


def window_offsets(windows: Windows, space, out: Offsets, *, pool: bool) -> Offsets:
    """Input offsets that output offsets `out` of a convolution or pool need. Those of the first
    axis are not negative.
    """
    if out is None:
        return None
    needed = []
    for axis, (offsets, size) in enumerate(zip(mirrorable(out), space, strict=True)):
        steps = _tap_offsets(windows, axis, offsets, pool)
        inside = {lap for o in steps for lap in _laps(windows, size, o) if abs(lap) < size}
        inside = inside if axis else set(map(abs, inside))
        needed.append(tuple(sorted(inside)) or (0,))
    return tuple(needed)


def mirrorable(offsets: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """`offsets`, and the negatives of those of all axes but the first."""
    first, *others = offsets
    return first, *(tuple(sorted({*o, *(-at for at in o)})) for o in others)


def _tap_offsets(windows: Windows, axis: int, offsets: tuple[int, ...], pool: bool):
    """Offsets between the taps of two windows, ignoring the border."""
    reach = windows.shape[axis] - 1 if pool else 0
    stride = windows.strides[axis]
    return sorted({stride * o + d for o in offsets for d in range(-reach, reach + 1)})


def _laps(windows: Windows, size: int, offset: int) -> tuple[int, ...]:
    """`offset` itself; with periodic padding both offsets that are equal to it modulo `size`, of
    which one has its pair inside.
    """
    if windows.padding != "CIRCULAR":
        return (offset,)
    return (offset % size, offset % size - size)


def through_convolution(
    variances: Variances, windows: Windows, out: tuple[tuple[int, ...], ...]
) -> Variances:
    """Covariances after a convolution: `K` summed over pairs of equal taps of two windows.

    Tap u of the window at `s` is the position `stride s + u - low`; that of the window at `s + δ`
    is `stride δ` further. For every δ this is a sum over windows of the band at offset `stride δ`,
    in which pairs outside are 0.
    """
    space, have, wanted = variances.space, variances.offsets, mirrorable(out)
    inside = band_mask(windows.output_space(space), wanted)

    def apply(values):
        for axis, along in enumerate(wanted):
            steps = tuple(windows.strides[axis] * o for o in along)
            values = _at_steps(values, windows, axis, (*wanted[:axis], *have[axis:]), steps)
        single = (1,) * (1 + len(space))
        values = jax.lax.reduce_window(
            _padded(values, windows, range(len(space))),
            np.zeros((), values.dtype),
            jax.lax.add,
            (*single, *windows.shape),
            (*single, *windows.strides),
            "VALID",
        )
        return jnp.where(inside, values, 0)

    return variances.linear(apply, wanted).select(out)


def through_pool(
    variances: Variances, windows: Windows, out: tuple[tuple[int, ...], ...], *, weights: str
) -> Variances:
    """Covariances after a pool, one spatial axis after the other.

    `K` is summed over all pairs of taps of two windows (`"sum"`), or averaged over all taps
    (`"average"`) or those inside of the image (`"average inside"`).
    """
    have, wanted = variances.offsets, mirrorable(out)
    inside = band_mask(windows.output_space(variances.space), wanted)

    def apply(values):
        # The first axis comes last, when the arrays to mirror along it are smallest.
        for axis in reversed(range(len(wanted))):
            before = (*have[: axis + 1], *wanted[axis + 1 :])
            values = _pooled(values, windows, axis, before, wanted[axis], weights)
        return jnp.where(inside, values, 0)

    return variances.linear(apply, wanted).select(out)


def _pooled(values: Array, windows: Windows, axis: int, offsets, out, weights: str) -> Array:
    """`through_pool` along one spatial axis, from a band at `offsets` to `out` of this axis.

    The taps `(u, v)` of the windows at `s` and `s + δ` are the positions `(i, i + o)` with
    `i = stride s + u - low` and `o = stride δ + v - u`. For all `s` and `δ` together these are a
    strided slice of the band, in which pairs outside are 0.
    """
    at, stride = 1 + len(offsets) + axis, windows.strides[axis]
    space = values.shape[1 + len(offsets) :]
    taps, count = range(windows.shape[axis]), len(windows.taps(space, axis))
    steps = _tap_offsets(windows, axis, out, pool=True)
    band = _padded(_at_steps(values, windows, axis, offsets, tuple(steps)), windows, (axis,))
    seen = [
        jax.lax.slice_in_dim(band, u, u + stride * (count - 1) + 1, stride, axis=at) for u in taps
    ]
    result = functools.reduce(
        jnp.add,
        (
            columns(seen[u], 1 + axis, steps, tuple(stride * o + v - u for o in out))
            for u in taps
            for v in taps
        ),
    )
    if weights == "sum":
        return result
    inside = (windows.taps(space, axis) >= 0).sum(1)
    sizes = inside if weights == "average inside" else np.full(count, len(taps))
    second = np.clip(np.arange(count) + np.array(out)[:, None], 0, count - 1)
    shape = [1] * values.ndim
    shape[1 + axis], shape[at] = second.shape
    return result / jnp.asarray((sizes * sizes[second]).reshape(shape), values.dtype)


def _at_steps(values: Array, windows: Windows, axis: int, offsets, steps) -> Array:
    """The band at offsets `steps` of one axis. With periodic padding it is the sum over both
    offsets of `_laps`, one of which is 0.
    """
    size = values.shape[1 + len(offsets) + axis]
    laps = zip(*(_laps(windows, size, o) for o in steps), strict=True)
    return functools.reduce(jnp.add, (entries(values, offsets, axis, lap) for lap in laps))


def _padded(values: Array, windows: Windows, axes) -> Array:
    """`values` (n, D1, D2, ..., S1, S2, ...) with positions padded along some spatial axes."""
    first = values.ndim - len(windows.shape)
    pads = [(0, 0)] * values.ndim
    for axis in axes:
        pads[first + axis] = windows.pads(values.shape[first:])[axis]
    return jnp.pad(values, pads, mode="wrap" if windows.padding == "CIRCULAR" else "constant")
