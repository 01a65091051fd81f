"""`Rooted`: vectors whose multiplication by a matrix is pending."""

from typing import Any

import equinox as eqx
import numpy as np
from jax import numpy as jnp

from .._typing import Array, Inputs
from ..numerics._precision import matmul


class Rooted(eqx.Module):
    """The vectors `values @ root`, not multiplied out.

    Kernel values with landmarks become features when the inverse root of the landmarks' Gram matrix
    multiplies them. The root acts on channels and so commutes with pools, resizing and every other
    layer that treats channels alike. It is multiplied into the filters of the next projection, or
    applied where there are fewest positions.

    Attributes:
        values: (n, *space, m).
        root: (m, r).
    """

    values: Any  # an array, or a shape while a map is planned
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
        """The vectors after `fn`, which acts on positions and treats channels alike."""
        return Rooted(fn(self.values), self.root)

    def formed(self) -> Array:
        """The vectors as an array. Cost: `2 n |space| m r` FLOPs."""
        return matmul(self.values, self.root, "full")

    def folds(self, window: int, columns: int) -> bool:
        """Whether a projection costs less with the root multiplied into its filters than with the
        vectors formed, for windows of `window` positions and for `columns` columns.
        """
        m, r = self.root.shape
        return window * m * columns <= m * r + window * r * columns

    def fold(self, rows: Inputs, numpy: Any = jnp) -> Any:
        """Filters (window m, columns) for `values`, from filters (window r, columns) for the
        vectors, computed by NumPy or JAX.
        """
        precision = {} if numpy is np else {"precision": "highest"}
        taps = rows.reshape(-1, self.root.shape[1], rows.shape[-1])
        folded = numpy.matmul(numpy.asarray(self.root), taps, **precision)
        return folded.reshape(-1, rows.shape[-1])


def formed(block: Any) -> Any:
    """A block as an array, with its root applied."""
    return block.formed() if isinstance(block, Rooted) else block


def mapped(fn, block: Any) -> Any:
    """A block after `fn`, which acts on positions and treats channels alike."""
    return block.map(fn) if isinstance(block, Rooted) else fn(block)


def raw(block: Any, window: int, columns: int) -> Any:
    """The array that a projection on `columns` columns multiplies: the values if the root folds
    into the filters, else the formed block.
    """
    if isinstance(block, Rooted) and block.folds(window, columns):
        return block.values
    return formed(block)
