"""Exact variances, computed next to the features: covariances of nearby positions of one example.

Nonlinearities divide by the variances `K(x_s, x_s)`. Squared norms of features only approximate
them, with errors that add up over layers, so that variances have an exact recursion of their own.
After a pool, `K(s, s)` depends on `K(s, t)` of nearby positions. The recursion therefore has a
*band* `K(x_s, x_{s+δ})` over a set of position offsets `δ`, planned backwards from the last
nonlinearity. The cost is linear in positions.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array, PerKernel, Scalar
from ._band import FEW, NEAR, band_mask, band_products, entries, here, near_products, there

#: Largest number of positions with exact covariances of all pairs, which some layers need, such as
#: a global pool before a nonlinearity. Beyond it they are estimated from the features.
MAX_POSITIONS_ALL_PAIRS = 256


class Diagonals(NamedTuple):
    """Variances of every position, (n, *space) each: `same`, `independent` and `ntk` at offset 0,
    as in `Variances`, with zeros for `Θ = 0`.
    """

    same: Array
    independent: Array
    ntk: Array | None

    @property
    def kernels(self) -> PerKernel:
        """Those of features, which are independent passes."""
        return PerKernel(self.independent, self.ntk)


class Variances(eqx.Module):
    """Covariances of positions `s` and `s + δ` of each example, for a product of offsets `δ`.

    Arrays have the shape (n, D1, D2, ..., S1, S2, ...): offsets, then positions. Pairs whose second
    position lies outside are 0. Covariances are symmetric, `K(s, s - δ) = K(t, t + δ)` with `t = s
    - δ`. Offsets of the first axis are therefore planned from 0 on, and `select` finds their
    negatives.

    Attributes:
        same: `K` within one pass of the network (NT's `cov1`): the variances in cosines.
        other: `K` of two passes with independent Dropout masks, which features estimate; `None`
            while equal to `same`.
        ntk: `Θ` of two such passes; `()` means `Θ = 0`, as at the input; `None` if the NTK was not
            asked for.
        offsets: the offsets `δ` of each spatial axis.
    """

    same: Array
    other: Array | None
    ntk: Array | tuple[()] | None
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

    def diagonals(self) -> Diagonals:
        same = self.diagonal(self.same)
        ntk = (
            jnp.zeros_like(same)
            if isinstance(self.ntk, tuple)
            else jax.tree.map(self.diagonal, self.ntk)
        )
        return Diagonals(same, self.diagonal(self.independent), ntk)

    def linear(self, fn: Callable[[Array], Array], offsets: tuple[tuple[int, ...], ...]):
        """The variances after a linear map `fn` that treats all covariances alike."""
        return Variances(
            same=fn(self.same),
            other=jax.tree.map(fn, self.other),
            ntk=jax.tree.map(fn, self.ntk),
            offsets=offsets,
        )

    def select(self, offsets: tuple[tuple[int, ...], ...]) -> "Variances":
        """The variances at these offsets; each of them or its negative must be there."""
        if offsets == self.offsets:
            return self

        def pick(values):
            for axis, want in enumerate(offsets):
                values = entries(values, self.offsets, axis, want)
            return values

        return self.linear(pick, offsets)

    def total(self) -> "Variances":
        """Sums over all pairs of positions, if all offsets are there."""
        k = len(self.offsets)
        first = self.offsets[0]
        # A pair whose mirror image is not stored counts twice.
        times = np.array([2.0 if o > 0 and -o not in first else 1.0 for o in first])
        times = times.reshape(1, len(first), *(1,) * (2 * k - 1))
        axes = tuple(range(1, 1 + 2 * k))
        return self.linear(lambda values: jnp.sum(values * times.astype(values.dtype), axes), ())

    def plus(self, others: "list[Variances]") -> "Variances":
        """The variances of a sum of independent branches, all at the same offsets."""
        branches = [self, *others]

        def total(values):
            return functools.reduce(jnp.add, values)

        dropped = any(branch.other is not None for branch in branches)
        ntk = [branch.ntk for branch in branches if not isinstance(branch.ntk, tuple)]
        return Variances(
            same=total(branch.same for branch in branches),
            other=total(branch.independent for branch in branches) if dropped else None,
            ntk=() if not ntk else None if self.ntk is None else total(ntk),
            offsets=self.offsets,
        )

    def times(self, others: "list[Variances]") -> "Variances":
        """The variances of a product of independent branches, all at the same offsets.

        `K' = Π_i K_i`, `Θ' = Σ_i Θ_i Π_{j≠i} K_j`.
        """
        branches = [self, *others]
        dropped = any(branch.other is not None for branch in branches)
        independent, ntk = self.independent, self.ntk
        for branch in others:
            terms = [] if isinstance(ntk, tuple) or ntk is None else [ntk * branch.independent]
            terms += [] if isinstance(branch.ntk, tuple | None) else [independent * branch.ntk]
            independent = independent * branch.independent
            ntk = None if self.ntk is None else functools.reduce(jnp.add, terms) if terms else ()
        return Variances(
            same=functools.reduce(jnp.multiply, (branch.same for branch in branches)),
            other=independent if dropped else None,
            ntk=ntk,
            offsets=self.offsets,
        )

    def affine(self, weight, bias, ntk_weight, ntk_bias) -> "Variances":
        """`K' = weight² K + bias²`, `Θ' = weight² Θ + ntk_weight² K + ntk_bias²`."""
        inside = band_mask(self.space, self.offsets).astype(self.same.dtype)

        def shifted(values, scale, shift):
            return scale**2 * values if shift is None else scale**2 * values + shift**2 * inside

        ntk = self.ntk
        if ntk is not None:
            before = 0.0 if isinstance(ntk, tuple) else weight**2 * ntk
            ntk = shifted(before + ntk_weight**2 * self.independent, 1.0, ntk_bias)
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
        q_here, q_there = here(q), there(q, offsets)
        same, derivative = dual(band.same, q_here, q_there)
        other = band.other
        if other is not None:
            other, derivative = dual(other, q_here, q_there)
            other = jnp.where(inside, other, 0)
        return Variances(
            same=jnp.where(inside, same, 0),
            other=other,
            ntk=jax.tree.map(lambda ntk: jnp.where(inside, derivative * ntk, 0), band.ntk),
            offsets=offsets,
        )

    def scaled(self, factor: Array, offsets: tuple[tuple[int, ...], ...]) -> "Variances":
        """`K'(s, s+δ) = f_s f_{s+δ} K(s, s+δ)` and Θ likewise, for factors `f` (n, *space)."""
        pairs = here(factor) * there(factor, offsets)
        return self.select(offsets).linear(lambda values: pairs * values, offsets)

    def masked(self, mask: Array | None) -> "Variances":
        """The variances with 0 for pairs with a masked position; `mask` (n, *space) or `None`."""
        if mask is None:
            return self
        seen = here(~mask) & there(~mask, self.offsets)
        return self.linear(lambda values: jnp.where(seen, values, 0), self.offsets)

    def dropout(self, factor: Scalar) -> "Variances":
        """Variances within one pass grow by a factor; covariances of two passes do not change."""
        centre = np.ones((), bool)
        for offsets in self.offsets:
            centre = np.multiply.outer(centre, np.array([o == 0 for o in offsets]))
        centre = centre.reshape((1, *centre.shape, *(1,) * len(self.offsets)))
        scale = jnp.where(centre, jnp.asarray(factor, self.same.dtype), 1)
        return Variances(self.same * scale, self.independent, self.ntk, self.offsets)


def input_variances(x: Array, offsets: tuple[tuple[int, ...], ...], ntk: bool) -> Variances:
    """`K(s, s+δ) = <x_s, x_{s+δ}> / c` of inputs (n, *space, c); `Θ = 0`."""
    count = math.prod(map(len, offsets))
    if count == 1:
        first = jnp.moveaxis(x, -1, 1)
        second = there(first, offsets)
        first = first.reshape((x.shape[0], *(1,) * len(offsets), *first.shape[1:]))
        values = jnp.mean(first * second, axis=1 + len(offsets))
    elif count <= NEAR and math.prod(x.shape[:-1]) > FEW:
        values = near_products(x, offsets) / x.shape[-1]
    elif x.shape[-1] <= 4:  # few channels, such as colours: one product after the other
        terms = [x[..., c] for c in range(x.shape[-1])]
        values = sum(here(term) * there(term, offsets) for term in terms) / len(terms)
    else:
        values = band_products(x, offsets) / x.shape[-1]
    values = jnp.where(band_mask(x.shape[1:-1], offsets), values, 0)
    return Variances(values, None, () if ntk else None, offsets)
