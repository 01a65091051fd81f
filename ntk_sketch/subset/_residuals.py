"""What the items chosen so far leave of all others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_integer
from ..numerics._pivoted_cholesky import ROUNDING
from ._rows import Rows

RELATIVE_ROUNDING = ROUNDING * float(np.finfo(np.float64).eps)


class Selection(NamedTuple):
    """The chosen items S, in order.

    Attributes:
      indices: of the items (k,).
      gains: squared distances (k,) of each item's vector from the span of those before it. The sum
        of their logarithms is log det(Z_S Z_Sᵀ).
      basis: orthonormal rows (k, p) that span the items. `z @ basis.T` (n, k) are the features of
        the Nyström approximation of Z Zᵀ on S, a partial Cholesky factor.
      residual: the sum over all items of squared distances from the span, which is the trace of
        Z Zᵀ minus that approximation. None: it was not computed.
    """

    indices: Int[np.ndarray, " k"]
    gains: Float[np.ndarray, " k"]
    basis: Float[np.ndarray, "k p"]
    residual: float | None


class Span:
    """The span of the rows chosen so far.

    In place of a factor (n, k) there is a basis (k, p).
    """

    def __init__(self, rows: Rows):
        self._rows, self._p = rows, rows.shape[1]
        self._found: list[np.ndarray] = []
        self._gains: list[np.ndarray] = []
        self._bases: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(map(len, self._found))

    @property
    def basis(self) -> Float[np.ndarray, "k p"]:
        if len(self._bases) > 1:
            self._bases = [np.concatenate(self._bases)]
        return self._bases[0] if self._bases else np.zeros((0, self._p))

    def left(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b p"]:
        """What the span leaves of some rows."""
        return self.projected(self._rows.take(index))

    def projected(self, vectors: Float[np.ndarray, "b p"]) -> Float[np.ndarray, "b p"]:
        """Vectors minus their projection on the span. Twice, as once leaves an error of eps times
        what was subtracted."""
        for _ in range(2):
            vectors = vectors - (vectors @ self.basis.T) @ self.basis
        return vectors

    def add(self, index: Any, gains: Any, basis: Any) -> None:
        """Items with their orthonormal directions."""
        self._found.append(np.asarray(index, int))
        self._gains.append(np.asarray(gains, np.float64))
        self._bases.append(np.asarray(basis))

    def add_rows(self, index: Any, left: Float[np.ndarray, "b p"]) -> None:
        """Items, in their order, by what the span leaves of their rows."""
        directions, triangle = np.linalg.qr(left.T)
        directions = self.projected(directions.T)  # again, as small rows have large errors
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.add(index, np.diagonal(triangle) ** 2, directions)

    def selection(self, residual: float | None = None) -> Selection:
        return Selection(
            np.concatenate(self._found), np.concatenate(self._gains), self.basis, residual
        )


class Residuals(Span):
    """With the squared distances of all rows, `squares` (n,): 2 n p k FLOPs for all k, as matrix
    products over a block of items.

    Attributes:
      rounding: (n,), squares up to which are rounding and become 0.
    """

    def __init__(self, rows: Rows):
        super().__init__(rows)
        self.squares = np.empty(rows.shape[0])
        for start, stop, z in rows.blocks():
            self.squares[start:stop] = squared_norms(z)
        if not np.isfinite(self.squares.sum()):
            raise ValueError("squares of the features overflow float64: scale them down")
        self.rounding = RELATIVE_ROUNDING * self.squares

    def add(self, index: Any, gains: Any, basis: Any) -> None:
        """By a pass over all rows."""
        super().add(index, gains, basis)
        for start, stop, z in self._rows.blocks():
            self.squares[start:stop] -= squared_norms(z @ basis.T)
        self.squares[self.squares <= self.rounding] = 0.0
        self.squares[np.asarray(index, int)] = 0.0


def squared_norms(rows: Float[np.ndarray, "b p"]) -> Float[np.ndarray, " b"]:
    return np.einsum("ij,ij->i", rows, rows)


def checked_size(k: Any, shape: tuple[int, int]) -> int:
    """A number of items that can have a determinant."""
    n, p = shape
    k = checked_integer(k, "k")
    if k > n:
        raise ValueError(f"k={k} of {n} items: at most {n} can be chosen")
    if k > p:
        raise ValueError(
            f"k={k} items with {p} features each are linearly dependent, so that the determinant is"
            f" 0 for every choice: choose {p} at most, or use wider features"
        )
    return k


def rank_error(k: int, rank: int) -> ValueError:
    if not rank:
        return ValueError(
            "all features are 0, or so small that their squares are: the determinant is 0 for every"
            " choice. Scale them up"
        )
    return ValueError(
        f"the features have numerical rank {rank}, below k={k}: every further item lies in the span"
        f" of those chosen, and the determinant is 0. Choose {rank} at most"
    )
