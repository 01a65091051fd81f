"""How rows of numbers are kept in a file."""

from __future__ import annotations

import numpy as np
from jax import numpy as jnp
from jaxtyping import Float, Int


class Plain:
    """Numbers one after the other, rounded to a dtype."""

    def __init__(self, p: int, dtype: str):
        self._p, self.dtype = p, np.dtype(jnp.dtype(dtype))

    def shape(self, n: int) -> tuple[int, ...]:
        return n, self._p

    def encoded(self, z: Float[np.ndarray, "m p"]) -> np.ndarray:
        return z.astype(self.dtype)

    def decoded(self, data: np.ndarray, place: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m p"]:
        """The rows at these places."""
        one_piece = len(place) > 0 and bool(np.all(np.diff(place) == 1))
        rows = data[place[0] : place[-1] + 1] if one_piece else data[place]
        return np.asarray(rows).astype(self.dtype if self.dtype.itemsize > 2 else np.float32)


class Levels:
    """256 levels for each column of a block of rows, from its least to its largest number there.

    Blocks (8 + rows, p) of bytes: least numbers and steps as float32, then the numbers of levels.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, p: int, rows: int):
        self._p, self._rows = p, rows

    def shape(self, n: int) -> tuple[int, ...]:
        return -(-n // self._rows), 8 + self._rows, self._p

    def encoded(self, z: Float[np.ndarray, "m p"]) -> np.ndarray:
        """One block; all before it were full."""
        z = z.astype(np.float32)
        least = z.min(axis=0)
        step = (z.max(axis=0) - least) / 255
        levels = np.rint((z - least) / np.where(step > 0, step, 1))
        block = np.zeros((1, 8 + self._rows, self._p), np.uint8)
        block[0, :8] = np.stack([least, step]).view(np.uint8).reshape(8, self._p)
        block[0, 8 : 8 + len(z)] = levels
        return block

    def decoded(self, data: np.ndarray, place: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m p"]:
        """The rows at these places."""
        rows = np.empty((len(place), self._p), np.float32)
        number, within = np.divmod(place, self._rows)
        for block in np.unique(number):
            here = np.flatnonzero(number == block)
            head = np.ascontiguousarray(data[block, :8]).reshape(2, -1).view(np.float32)
            rows[here] = data[block, 8 + within[here]] * head[1] + head[0]
        return rows


def row_format(p: int, dtype: str, rows: int) -> Plain | Levels:
    """
    Args:
      rows: of a block.
    """
    return Levels(p, rows) if dtype == "uint8" else Plain(p, dtype)
