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
    side in memory. Pairs whose second position lies outside are 0.

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
        """Only these offsets, each of which must be there."""
        if offsets == self.offsets:
            return self

        def pick(values):
            for axis, (have, want) in enumerate(zip(self.offsets, offsets, strict=True)):
                values = _columns(values, 1 + axis, have, want)
            return values

        return self.linear(pick, offsets)

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
    """Input offsets that output offsets `out` need, behind a convolution or a pool."""
    if out is None:
        return None
    needed = []
    for axis, (offsets, size) in enumerate(zip(out, space, strict=True)):
        steps = _tap_offsets(windows, axis, offsets, pool)
        inside = {lap for o in steps for lap in _laps(windows, size, o) if abs(lap) < size}
        needed.append(tuple(sorted(inside)) or (0,))
    return tuple(needed)


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


def through_windows(
    variances: Variances, windows: Windows, out: tuple[tuple[int, ...], ...], *, weights: str
) -> Variances:
    """Covariances after a convolution or a pool, one spatial axis after the other.

    A convolution sums `K` over pairs of equal taps (`weights="equal taps"`; its scale is the
    caller's). A pool sums over all pairs of taps: `"sum"`, `"average"`, or `"average inside"` (by
    the taps that lie inside).
    """
    space, have = variances.space, variances.offsets
    counts = windows.output_space(space)
    inside = band_mask(counts, out)

    def apply(values):
        for axis in range(len(space)):
            values = _along(values, windows, space, axis, have[axis], out[axis], weights)
        return jnp.where(inside, values, 0)

    return variances.linear(apply, out)


def _along(values: Array, windows: Windows, space, axis: int, have, out, weights: str) -> Array:
    """`through_windows` along one spatial axis.

    A pair of taps `(u, v)` of the windows at `s` and `s + δ` is the pair of input positions
    `(i, i + o)` with `i = stride s + u - low` and `o = stride δ + v - u`: for all `s` and `δ` at
    once a strided slice of the band. Pairs that lie outside are 0 in the band already.
    """
    offset_axis, at = 1 + axis, 1 + len(space) + axis
    size, stride = space[axis], windows.strides[axis]
    pool = weights != "equal taps"
    taps, count = range(windows.shape[axis]), len(windows.taps(space, axis))

    # The band at the offsets between taps; on a circle the sum of both laps, one of which is 0.
    steps = _tap_offsets(windows, axis, out, pool)
    laps = zip(*(_laps(windows, size, o) for o in steps), strict=True)
    band = functools.reduce(jnp.add, (_columns(values, offset_axis, have, lap) for lap in laps))

    low, _ = windows.pads(space)[axis]
    pads = [(0, 0)] * band.ndim
    pads[at] = (low, max(stride * (count - 1) + windows.shape[axis] - low - size, 0))
    band = jnp.pad(band, pads, mode="wrap" if windows.padding == "CIRCULAR" else "constant")
    seen = [
        jax.lax.slice_in_dim(band, u, u + stride * (count - 1) + 1, stride, axis=at) for u in taps
    ]
    terms = (
        _columns(seen[u], offset_axis, steps, tuple(stride * o + v - u for o in out))
        for u in taps
        for v in (taps if pool else (u,))
    )
    result = functools.reduce(jnp.add, terms)
    if not weights.startswith("average"):
        return result
    inside = (windows.taps(space, axis) >= 0).sum(1)
    sizes = inside if weights == "average inside" else np.full(count, len(taps))
    there = np.clip(np.arange(count) + np.array(out)[:, None], 0, count - 1)
    shape = [1] * values.ndim
    shape[offset_axis], shape[at] = there.shape
    return result / jnp.asarray((sizes * sizes[there]).reshape(shape), values.dtype)


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
    if step > 0 and (np.diff(index) == step).all():
        start, end = int(index[0]), int(index[-1]) + 1
        return jax.lax.slice_in_dim(values, start, end, step, axis=axis)
    return jnp.take(values, index, axis=axis)
