"""Rows of a table, dense or sparse, as the library reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float

_DENSE = 1 << 22  # entries of a sparse matrix that are made dense at a time


class Rows:
    """A checked table (n, d). Sparse rows become dense a few at a time."""

    def __init__(self, table: Any):
        self.table = table
        self.shape: tuple[int, int] = table.shape
        self.dtype = np.dtype(table.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Float[np.ndarray, "m d"]:
        found = self.table[index]
        return found.toarray() if scipy.sparse.issparse(found) else found

    def sample(self, size: int, rng: np.random.RandomState) -> Float[np.ndarray, "m d"]:
        if size >= len(self):
            return self[:]
        return self[np.sort(rng.choice(len(self), size, replace=False))]

    def of(self, dtype: np.dtype) -> Rows:
        return self if self.dtype == dtype else Rows(self.table.astype(dtype))

    def inputs(self) -> Any:
        """The array, or batches of dense rows."""
        if not scipy.sparse.issparse(self.table):
            return self.table
        return self.chunks

    def chunks(self) -> Iterator[Float[np.ndarray, "m d"]]:
        """Dense rows, a few at a time."""
        for start, stop in self._chunks():
            yield self[start:stop]

    def examples(self, y: np.ndarray, weights: np.ndarray | None) -> tuple[Any, Any, Any]:
        """(x, y, weights), or for sparse rows (batches of all three, None, None)."""
        if not scipy.sparse.issparse(self.table):
            return self.table, y, weights
        beside = [y] if weights is None else [y, weights]

        def batches() -> Iterator[tuple[np.ndarray, ...]]:
            for start, stop in self._chunks():
                yield (self[start:stop], *(a[start:stop] for a in beside))

        return batches, None, None

    def digest(self) -> bytes:
        """A hash of shape, dtype and numbers."""
        if not scipy.sparse.issparse(self.table):
            return digest_of(self.table)
        return digest_of(self.table.data, self.table.indices, self.table.indptr)

    def _chunks(self) -> Iterator[tuple[int, int]]:
        step = max(1, _DENSE // max(self.shape[1], 1))
        for start in range(0, len(self), step):
            yield start, min(start + step, len(self))


def digest_of(*arrays: np.ndarray) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()
