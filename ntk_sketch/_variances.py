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

    Arrays have the shape (n, S1, D1, S2, D2, ...): positions and offsets of each spatial axis side
    by side. Pairs whose second position lies outside are 0.

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
        return self.same.shape[1::2]

    @property
    def independent(self) -> Array:
        """`K` of two independent passes."""
        return self.same if self.other is None else self.other

    def diagonal(self, values: Array) -> Array:
        """`values` at offset 0: (n, *space)."""
        index: tuple = (slice(None),)
        for offsets in self.offsets:
            index += (slice(None), offsets.index(0))
        return values[index]

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
                values = jnp.take(
                    values, np.array([have.index(o) for o in want]), axis=2 + 2 * axis
                )
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

    def dropout(self, rate: float) -> "Variances":
        """Variances of one pass grow by `1 / rate`; two independent passes do not see it."""
        centre = np.ones((), bool)
        for offsets in self.offsets:
            centre = np.multiply.outer(centre, np.array([[o == 0 for o in offsets]]))
        scale = jnp.where(centre, 1 / rate, 1.0).astype(self.same.dtype)
        return Variances(self.same * scale, self.independent, self.ntk, self.offsets)


def input_variances(x: Array, offsets: tuple[tuple[int, ...], ...], ntk: bool) -> Variances:
    """`K(s, s+δ) = <x_s, x_{s+δ}> / c` of inputs (n, *space, c); `Θ = 0`."""
    here = x
    for axis in range(x.ndim - 2):
        here = jnp.expand_dims(here, 2 + 2 * axis)
    values = jnp.sum(here * _there(x, offsets), axis=-1) / x.shape[-1]
    values = jnp.where(band_mask(x.shape[1:-1], offsets), values, 0)
    return Variances(values, None, jnp.zeros_like(values) if ntk else None, offsets)


def band_mask(space: tuple[int, ...], offsets: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Which pairs `(s, s + δ)` lie inside: (S1, D1, S2, D2, ...)."""
    mask = np.ones((), bool)
    for size, axis in zip(space, offsets, strict=True):
        there = np.arange(size)[:, None] + np.array(axis)
        mask = np.multiply.outer(mask, (there >= 0) & (there < size))
    return mask


def _here(q: Array) -> Array:
    for axis in range(q.ndim - 1):
        q = jnp.expand_dims(q, 2 + 2 * axis)
    return q


def _there(x: Array, offsets: tuple[tuple[int, ...], ...]) -> Array:
    """`x` (n, *space, ...) at position `s + δ` (clipped at the border): (n, S1, D1, S2, D2, ...,
    ...).
    """
    for axis in reversed(range(len(offsets))):
        size = x.shape[1 + axis]
        there = np.arange(size)[:, None] + np.array(offsets[axis])
        x = jnp.take(x, np.clip(there, 0, size - 1), axis=1 + axis)
    return x


# ------------------------------------------------------------------ windows


def window_offsets(windows: Windows, space, out: Offsets, *, pool: bool) -> Offsets:
    """Input offsets that output offsets `out` need, behind a convolution or a pool."""
    if out is None:
        return None
    needed = []
    for axis, offsets in enumerate(out):
        _, first, second = _pairs(windows, space, axis, offsets, pool)
        needed.append(tuple(np.unique((second - first)[first >= 0]).tolist()) or (0,))
    return tuple(needed)


def through_windows(
    variances: Variances, windows: Windows, out: tuple[tuple[int, ...], ...], *, weights: str
) -> Variances:
    """Covariances after a convolution or a pool, one spatial axis after the other.

    A convolution sums `K` over pairs of equal taps (`weights="equal taps"`; its scale is the
    caller's). A pool sums over all pairs of taps: `"sum"`, `"average"`, or `"average inside"` (by
    the taps that lie inside).
    """
    space, have = variances.space, variances.offsets

    def apply(values):
        for axis in range(len(space)):
            source, weight = _table(windows, space, axis, have[axis], out[axis], weights)
            count = len(windows.taps(space, axis))
            flat = values.reshape(*values.shape[: 1 + 2 * axis], -1, *values.shape[3 + 2 * axis :])
            broadcast = (slice(None),) + (None,) * (flat.ndim - 2 - 2 * axis)
            terms = (
                jnp.take(flat, source[:, tap], axis=1 + 2 * axis)
                * jnp.asarray(weight[:, tap], values.dtype)[broadcast]
                for tap in range(source.shape[1])
            )
            total = functools.reduce(jnp.add, terms)
            values = total.reshape(
                *values.shape[: 1 + 2 * axis], count, len(out[axis]), *values.shape[3 + 2 * axis :]
            )
        return values

    return variances.linear(apply, out)


def _pairs(windows: Windows, space, axis: int, offsets: tuple[int, ...], pool: bool):
    """Taps under `s` and `s + δ`: two arrays (outputs, offsets, pairs), and the tap numbers; -1
    where there is no pair.
    """
    taps = windows.taps(space, axis)
    count, width = taps.shape
    there = np.arange(count)[:, None] + np.array(offsets)
    inside = (there >= 0) & (there < count)
    tap = np.arange(width)
    u, v = np.meshgrid(tap, tap, indexing="ij") if pool else (tap, tap)
    u, v = u.ravel(), v.ravel()
    first = np.broadcast_to(taps[:, None, u], (count, len(offsets), len(u)))
    second = taps[np.clip(there, 0, count - 1)][:, :, v]
    valid = inside[..., None] & (first >= 0) & (second >= 0)
    return there, np.where(valid, first, -1), np.where(valid, second, -1)


@functools.lru_cache(maxsize=512)
def _table(windows: Windows, space, axis: int, have, out, weights: str):
    """Row of the flattened (position, offset) axis and weight of every term: (outputs · offsets,
    terms).
    """
    there, first, second = _pairs(windows, space, axis, out, pool=weights != "equal taps")
    valid = first >= 0
    position = {o: i for i, o in enumerate(have)}
    column = np.vectorize(lambda o: position.get(o, -1), otypes=[int])(second - first)
    assert (column[valid] >= 0).all(), "a rule asked for fewer offsets than it uses"
    weight = valid.astype(np.float64)
    if weights.startswith("average"):
        taps = windows.taps(space, axis)
        size = (
            (taps >= 0).sum(1) if weights == "average inside" else np.full(len(taps), taps.shape[1])
        )
        weight /= (size[:, None] * size[np.clip(there, 0, len(taps) - 1)])[..., None]
    source = np.where(valid, first * len(have) + column, 0)
    rows = source.shape[0] * source.shape[1]
    return source.reshape(rows, -1), weight.reshape(rows, -1)
