"""Exact covariances of pairs of inputs, propagated through the rules like variances."""

import math

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array, PerKernel
from ._variances import Variances


class PairedVariances(eqx.Module):
    """Covariances of inputs of one set with those of another, and the variances of both.

    It replaces `Variances` for inputs without positions. Rules then act on every pair as they act
    on variances, and at the output the covariances are the exact kernel of the network.

    Attributes:
        own: variances of the first set, followed by those of the second.
        pairs: each pair as an example: its covariance of two passes, and Θ.
        shapes: of the arrays of pairs, and of the variances of either set, which broadcast.
    """

    own: Variances
    pairs: Variances
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @property
    def same(self) -> Array:
        return self.own.same

    @property
    def offsets(self) -> tuple[tuple[int, ...], ...]:
        return self.own.offsets

    def diagonal(self, values: Array) -> Array:
        return self.own.diagonal(values)

    def kernels(self) -> PerKernel:
        """K and Θ of every pair."""
        kernels = self.pairs.diagonals().kernels
        return jax.tree.map(lambda k: k.reshape(self.shapes[0]), kernels)

    def linear(self, fn, offsets) -> "PairedVariances":
        return self._with(self.own.linear(fn, offsets), self.pairs.linear(fn, offsets))

    def select(self, offsets) -> "PairedVariances":
        return self._with(self.own.select(offsets), self.pairs.select(offsets))

    def affine(self, *scales) -> "PairedVariances":
        return self._with(self.own.affine(*scales), self.pairs.affine(*scales))

    def masked(self, mask: None) -> "PairedVariances":
        """Unchanged: inputs without positions have no masks."""
        del mask
        return self

    def dropout(self, factor) -> "PairedVariances":
        """Variances grow; pairs, which are covariances of two passes, do not change."""
        return self._with(self.own.dropout(factor), self.pairs)

    def plus(self, others: "list[PairedVariances]") -> "PairedVariances":
        own = self.own.plus([other.own for other in others])
        return self._with(own, self.pairs.plus([other.pairs for other in others]))

    def times(self, others: "list[PairedVariances]") -> "PairedVariances":
        own = self.own.times([other.own for other in others])
        return self._with(own, self.pairs.times([other.pairs for other in others]))

    def nonlinearity(self, dual, offsets) -> "PairedVariances":
        covariance = self.pairs.same.reshape(self.shapes[0])
        k, derivative = (values.reshape(-1) for values in dual(covariance, *self._sides(self.same)))
        ntk = jax.tree.map(lambda ntk: derivative * ntk, self.pairs.ntk)
        return self._with(self.own.nonlinearity(dual, offsets), Variances(k, None, ntk, offsets))

    def scaled(self, factor: Array, offsets) -> "PairedVariances":
        rows, columns = self._sides(factor)
        both = jnp.broadcast_to(rows * columns, self.shapes[0]).reshape(-1)
        pairs = self.pairs.linear(lambda values: both * values, offsets)
        return self._with(self.own.scaled(factor, offsets), pairs)

    def _sides(self, values: Array) -> tuple[Array, Array]:
        """`values` of either set, in shapes that broadcast to the pairs."""
        pairs, first, second = self.shapes
        count = math.prod(first)
        axes = (1,) * len(pairs)
        rows = values[:count].reshape((*axes, *first)[len(first) :])
        return rows, values[count:].reshape((*axes, *second)[len(second) :])

    def _with(self, own: Variances, pairs: Variances) -> "PairedVariances":
        return PairedVariances(own, pairs, self.shapes)


def paired_variances(c: Array, q: Array, q_other: Array) -> PairedVariances:
    """The pairs of inputs with covariances `c` and variances `q`, `q'`, broadcast; with Θ = 0."""
    shape = jnp.broadcast_shapes(c.shape, q.shape, q_other.shape)
    own = jnp.concatenate([q.reshape(-1), q_other.reshape(-1)])
    pairs = jnp.broadcast_to(c, shape).reshape(-1)
    return PairedVariances(
        Variances(own, None, None, ()),
        Variances(pairs, None, (), ()),
        (shape, q.shape, q_other.shape),
    )
