"""Exact variances beside the features: covariances of nearby positions of one example.

Nonlinearities divide by the variances `K(x_s, x_s)`. A feature map only approximates them, and the
energy that each layer loses compounds, so they are carried by their own exact recursion. After a
pool, `K(s, s)` needs `K(s, t)` of nearby positions: what is carried is therefore a *band* `K(x_s,
x_{s+δ})` over a set of position offsets `δ`, planned backwards from the last nonlinearity. The cost
is linear in positions.
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from ._typing import Array, Offsets
from ._windows import Windows

#: Where every pair of positions is needed (a global pool before a nonlinearity) and there are more
#: positions than this, cross-position terms are estimated from the features.
MAX_POSITIONS_ALL_PAIRS = 256


class Variances(eqx.Module):
    """Covariances of positions `s` and `s + δ` of each example, for every `δ` of a product of
    offsets.

    Arrays have the shape (n, D1, D2, ..., S1, S2, ...): offsets, then positions, which lie side by
    side in memory. Pairs whose second position lies outside are 0. A covariance is symmetric, `K(s,
    s - δ)` that of `s - δ` and its offset `δ`: offsets of the first axis are planned from 0 on, and
    `select` finds the others in them.

    Attributes:
        same: `K` within one pass of the network (NT's `cov1`): the variances that cosines divide
            by.
        other: `K` of two passes with independent Dropout masks, which is what features estimate;
            `None` while equal to `same`.
        ntk: `Θ` of two such passes; `None` if the NTK was not asked for.
        offsets: the offsets `δ` of each spatial axis.
    """

    same: Array
    other: Array | None
    ntk: Array | None
    offsets: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @property
    def space(self) -> tuple[int, ...]:
        return self.same.shape[1 + len(self.offsets) :]

    @property
    def independent(self) -> Array:
        """`K` of two independent passes."""
        return self.same if self.other is None else self.other

    def diagonal(self, values: Array) -> Array:
        """`values` at offset 0: (n, *space)."""
        return values[(slice(None), *(offsets.index(0) for offsets in self.offsets))]

    def diagonals(self) -> tuple[Array, Array, Array | None]:
        """`same`, `independent` and `ntk` at offset 0: (n, *space) each."""
        ntk = None if self.ntk is None else self.diagonal(self.ntk)
        return self.diagonal(self.same), self.diagonal(self.independent), ntk

    def linear(self, fn: Callable[[Array], Array], offsets: tuple[tuple[int, ...], ...]):
        """The variances after a linear map `fn` that treats all covariances alike."""
        return Variances(
            same=fn(self.same),
            other=None if self.other is None else fn(self.other),
            ntk=None if self.ntk is None else fn(self.ntk),
            offsets=offsets,
        )

    def select(self, offsets: tuple[tuple[int, ...], ...]) -> "Variances":
        """Only these offsets, each of which, or its negative, must be there."""
        if offsets == self.offsets:
            return self

        def pick(values):
            values = _with_mirrored(values, self.offsets, offsets[0])
            for axis, (have, want) in enumerate(zip(self.offsets, offsets, strict=True)):
                if axis > 0:
                    values = _columns(values, 1 + axis, have, want)
            return values

        return self.linear(pick, offsets)

    def total(self) -> "Variances":
        """Sums over all pairs of positions, where all offsets are there."""
        k = len(self.offsets)
        first = self.offsets[0]
        # A pair that stands for its mirror image too counts twice.
        times = np.array([2.0 if o > 0 and -o not in first else 1.0 for o in first])
        times = times.reshape(len(first), *(1,) * (2 * k - 1))
        axes = tuple(range(1, 1 + 2 * k))
        return self.linear(lambda values: jnp.sum(values * times.astype(values.dtype), axes), ())

    def affine(self, weight, bias, ntk_weight, ntk_bias) -> "Variances":
        """`K' = weight² K + bias²`, `Θ' = weight² Θ + ntk_weight² K + ntk_bias²`."""
        inside = band_mask(self.space, self.offsets).astype(self.same.dtype)

        def shifted(values, scale, shift):
            return scale**2 * values if shift is None else scale**2 * values + shift**2 * inside

        ntk = self.ntk
        if ntk is not None:
            ntk = shifted(weight**2 * ntk + ntk_weight**2 * self.independent, 1.0, ntk_bias)
        return Variances(
            same=shifted(self.same, weight, bias),
            other=None if self.other is None else shifted(self.other, weight, bias),
            ntk=ntk,
            offsets=self.offsets,
        )

    def nonlinearity(self, dual, offsets: tuple[tuple[int, ...], ...]) -> "Variances":
        """`K' = k_σ(K, q, q')`, `Θ' = k_σ'(K, q, q') Θ`, offset by offset."""
        q = self.diagonal(self.same)
        band = self.select(offsets)
        inside = band_mask(self.space, offsets)
        q_here, q_there = _here(q), _there(q, offsets)
        same, derivative = dual(band.same, q_here, q_there)
        other = band.other
        if other is not None:
            other, derivative = dual(other, q_here, q_there)
            other = jnp.where(inside, other, 0)
        return Variances(
            same=jnp.where(inside, same, 0),
            other=other,
            ntk=None if band.ntk is None else jnp.where(inside, derivative * band.ntk, 0),
            offsets=offsets,
        )

    def scaled(self, factor: Array, offsets: tuple[tuple[int, ...], ...]) -> "Variances":
        """`K'(s, s+δ) = f_s f_{s+δ} K(s, s+δ)` and Θ likewise, for factors `f` (n, *space)."""
        pairs = _here(factor) * _there(factor, offsets)
        return self.select(offsets).linear(lambda values: pairs * values, offsets)

    def dropout(self, rate: float) -> "Variances":
        """Variances of one pass grow by `1 / rate`; two independent passes do not see it."""
        centre = np.ones((), bool)
        for offsets in self.offsets:
            centre = np.multiply.outer(centre, np.array([o == 0 for o in offsets]))
        centre = centre.reshape((*centre.shape, *(1,) * len(self.offsets)))
        scale = jnp.where(centre, 1 / rate, 1.0).astype(self.same.dtype)
        return Variances(self.same * scale, self.independent, self.ntk, self.offsets)


def input_variances(x: Array, offsets: tuple[tuple[int, ...], ...], ntk: bool) -> Variances:
    """`K(s, s+δ) = <x_s, x_{s+δ}> / c` of inputs (n, *space, c); `Θ = 0`."""
    if x.shape[-1] <= 4:  # colours: one after the other, in loops over pixels
        terms = [x[..., c] for c in range(x.shape[-1])]
        values = sum(_here(term) * _there(term, offsets) for term in terms) / len(terms)
    else:
        here = jnp.moveaxis(x, -1, 1)
        there = _there(here, offsets)
        here = here.reshape((len(x), *(1,) * len(offsets), *here.shape[1:]))
        values = jnp.mean(here * there, axis=1 + len(offsets))
    values = jnp.where(band_mask(x.shape[1:-1], offsets), values, 0)
    return Variances(values, None, jnp.zeros_like(values) if ntk else None, offsets)


def band_mask(space: tuple[int, ...], offsets: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Which pairs `(s, s + δ)` lie inside: (D1, D2, ..., S1, S2, ...)."""
    k = len(space)
    mask = np.ones((1,) * 2 * k, bool)
    for axis, (size, along) in enumerate(zip(space, offsets, strict=True)):
        there = np.arange(size) + np.array(along)[:, None]
        shape = [1] * 2 * k
        shape[axis], shape[k + axis] = there.shape
        mask = mask & ((there >= 0) & (there < size)).reshape(shape)
    return mask


def _here(q: Array) -> Array:
    """`q` (n, *space) at `s`, beside any offset."""
    return q.reshape((len(q), *(1,) * (q.ndim - 1), *q.shape[1:]))


def _there(x: Array, offsets: tuple[tuple[int, ...], ...]) -> Array:
    """`x` (n, ..., *space) at `s + δ`, 0 outside: (n, D1, D2, ..., ..., *space)."""
    for axis in reversed(range(len(offsets))):
        at = x.ndim - len(offsets) + axis
        x = jnp.stack([_shifted(x, at, o) for o in offsets[axis]], axis=1)
    return x


def _shifted(x: Array, axis: int, offset: int) -> Array:
    """`x` at index `i + offset` of an axis, 0 outside."""
    size = x.shape[axis]
    kept = jax.lax.slice_in_dim(
        x, min(max(offset, 0), size), max(min(size + offset, size), 0), axis=axis
    )
    pads = [(0, 0)] * x.ndim
    pads[axis] = (min(max(-offset, 0), size), min(max(offset, 0), size))
    return jnp.pad(kept, pads)


# ------------------------------------------------------------------ windows


def window_offsets(windows: Windows, space, out: Offsets, *, pool: bool) -> Offsets:
    """Input offsets that output offsets `out` need, behind a convolution or a pool: of the first
    axis none below 0.
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
    """What `offset` amounts to: on a circle, also one lap less; of these pairs one is inside."""
    if windows.padding != "CIRCULAR":
        return (offset,)
    return (offset % size, offset % size - size)


def through_convolution(
    variances: Variances, windows: Windows, out: tuple[tuple[int, ...], ...]
) -> Variances:
    """Covariances after a convolution: `K` summed over pairs of equal taps of two windows; the
    scale is the caller's.

    The taps u of the windows at `s` and `s + δ` are `stride s + u - low` and what lies `stride δ`
    further: for every δ a sum over windows of positions. Pairs that lie outside are 0 already.
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
    """Covariances after a pool, one spatial axis after the other: `K` summed over all pairs of taps
    of two windows (`"sum"`), or averaged, over all taps (`"average"`) or those that lie inside
    (`"average inside"`).
    """
    have, wanted = variances.offsets, mirrorable(out)
    inside = band_mask(windows.output_space(variances.space), wanted)

    def apply(values):
        # The first axis last: what it needs mirrored is least then.
        for axis in reversed(range(len(wanted))):
            before = (*have[: axis + 1], *wanted[axis + 1 :])
            values = _pooled(values, windows, axis, before, wanted[axis], weights)
        return jnp.where(inside, values, 0)

    return variances.linear(apply, wanted).select(out)


def _pooled(values: Array, windows: Windows, axis: int, offsets, out, weights: str) -> Array:
    """`through_pool` along one spatial axis, from a band at `offsets` to `out` of this axis.

    The taps `(u, v)` of the windows at `s` and `s + δ` are the positions `(i, i + o)` with
    `i = stride s + u - low` and `o = stride δ + v - u`: for all `s` and `δ` at once a strided slice
    of the band. Pairs that lie outside are 0 already.
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
            _columns(seen[u], 1 + axis, steps, tuple(stride * o + v - u for o in out))
            for u in taps
            for v in taps
        ),
    )
    if weights == "sum":
        return result
    inside = (windows.taps(space, axis) >= 0).sum(1)
    sizes = inside if weights == "average inside" else np.full(count, len(taps))
    there = np.clip(np.arange(count) + np.array(out)[:, None], 0, count - 1)
    shape = [1] * values.ndim
    shape[1 + axis], shape[at] = there.shape
    return result / jnp.asarray((sizes * sizes[there]).reshape(shape), values.dtype)


def _at_steps(values: Array, windows: Windows, axis: int, offsets, steps) -> Array:
    """The band at offsets `steps` of one axis; on a circle the sum of both laps, one of which is
    0.
    """
    size = values.shape[1 + len(offsets) + axis]
    laps = zip(*(_laps(windows, size, o) for o in steps), strict=True)
    pick = functools.partial(_columns, values, 1 + axis, offsets[axis])
    if axis == 0:
        pick = functools.partial(_with_mirrored, values, offsets)
    return functools.reduce(jnp.add, map(pick, laps))


def _padded(values: Array, windows: Windows, axes) -> Array:
    """`values` (n, D1, D2, ..., S1, S2, ...) with positions padded along some spatial axes."""
    first = values.ndim - len(windows.shape)
    pads = [(0, 0)] * values.ndim
    for axis in axes:
        pads[first + axis] = windows.pads(values.shape[first:])[axis]
    return jnp.pad(values, pads, mode="wrap" if windows.padding == "CIRCULAR" else "constant")


def _with_mirrored(values: Array, offsets, want) -> Array:
    """The entries of `want` along the first axis of offsets; what is not there is the mirror image
    of its negative, or else 0.

    `K(s, s + (-a, b)) = K(t, t + (a, -b))` at `t = s + (-a, b)`.
    """
    first, *others = offsets
    missing = [o for o in want if o not in first and -o in first]
    if missing:
        images = _columns(values, 1, first, tuple(-o for o in missing))
        images = jnp.stack(
            [_shifted(images[:, i], len(offsets), o) for i, o in enumerate(missing)], axis=1
        )
        for axis, along in enumerate(others, start=1):
            images = _columns(images, 1 + axis, along, tuple(-o for o in along))
            images = jnp.stack(
                [
                    _shifted(jnp.take(images, i, axis=1 + axis), len(offsets) + axis, o)
                    for i, o in enumerate(along)
                ],
                axis=1 + axis,
            )
        values = jnp.concatenate([images, values], axis=1)
    return _columns(values, 1, (*missing, *first), want)


def _columns(values: Array, axis: int, have, want) -> Array:
    """The entries of `want` along an axis that holds `have`; 0 for what is not there."""
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
