"""Vectors that wait for one linear map of their channels."""

from typing import Any

import equinox as eqx
import numpy as np
from jax import numpy as jnp

from .._typing import Array, Inputs
from ..numerics._precision import matmul


class Rooted(eqx.Module):
    """The vectors `values @ root`, not multiplied out.

    Landmarks give kernel values, and the root of their Gram matrix makes features of these. The
    root mixes channels and leaves positions alone, so that it commutes with pools, with resizing
    and with everything that treats channels alike. It is multiplied into the filters of the next
    projection, or applied where positions are fewest.

    Attributes:
        values: (n, *space, m).
        root: (m, r).
    """

    values: Any  # an array; a shape alone while a map is planned
    root: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.values.shape[:-1], self.root.shape[-1])

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def dtype(self):
        return self.values.dtype

    def map(self, fn) -> "Rooted":
        """`fn`, which acts on positions and treats channels alike, applied to the vectors."""
        return Rooted(fn(self.values), self.root)

    def formed(self) -> Array:
        """The vectors: `2 n |space| m r` FLOPs."""
        return matmul(self.values, self.root, "full")

    def folds(self, window: int, columns: int) -> bool:
        """Whether a projection of windows of so many positions on so many columns costs less with
        the root in its filters, where it is multiplied in once, than with the vectors formed.
        """
        m, r = self.root.shape
        return window * m * columns <= m * r + window * r * columns

    def fold(self, rows: Inputs, numpy: Any = jnp) -> Any:
        """Rows of filters for `values` (window m, columns), from those for the vectors (window r,
        columns), computed by NumPy or by JAX.
        """
        precision = {} if numpy is np else {"precision": "highest"}
        taps = rows.reshape(-1, self.root.shape[1], rows.shape[-1])
        folded = numpy.matmul(numpy.asarray(self.root), taps, **precision)
        return folded.reshape(-1, rows.shape[-1])


def formed(block: Any) -> Any:
    """The array of a block."""
    return block.formed() if isinstance(block, Rooted) else block


def mapped(fn, block: Any) -> Any:
    """`fn`, which acts on positions and treats channels alike, of a block."""
    return block.map(fn) if isinstance(block, Rooted) else fn(block)


def raw(block: Any, window: int, columns: int) -> Any:
    """What a projection of a block on so many columns multiplies: its values, if they fold."""
    if isinstance(block, Rooted) and block.folds(window, columns):
        return block.values
    return formed(block)
