"""Feature vectors of many items: in an array, or streamed."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._arguments import as_array, check_finite, on_host
from ..streaming import FeatureCache
from ..streaming._passes import Passes
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs

_BLOCK = 8192

Block = tuple[int, int, Float[np.ndarray, "b p"]]


class Rows(abc.ABC):
    """Rows of a matrix Z (n, p), in float64 when they are needed."""

    shape: tuple[int, int]

    @abc.abstractmethod
    def blocks(self) -> Iterator[Block]:
        """`(start, stop, z)` for all rows, one pass."""

    @abc.abstractmethod
    def take(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b p"]:
        """Some rows."""

    def times(self, matrix: Float[np.ndarray, "p k"]) -> Rows:
        """Z W, computed again in every pass."""
        return _Products(self, matrix)


class _ArrayRows(Rows):
    def __init__(self, z: Any):
        self._z, self.shape = z, z.shape

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self._z), _BLOCK):
            z = self._z[start : start + _BLOCK]
            yield start, start + len(z), np.asarray(z).astype(np.float64, copy=False)

    def take(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b p"]:
        return np.asarray(self._z[index]).astype(np.float64)

    def times(self, matrix: Float[np.ndarray, "p k"]) -> Rows:
        """Z W, kept: with k <= p columns no more than Z."""
        return _ArrayRows(np.concatenate([z @ matrix for _, _, z in self.blocks()]))


class FeatureRows(Rows):
    """Streamed features as items for the functions of `ntk_sketch.subset`.

    Use this when the features of all examples (n p numbers) do not fit in memory. They are computed
    again in every pass, unless `cache` keeps them.

    Args:
      feature_map, x, batch_size, progress: as in `ntk_sketch.ridge`; x is an array (n, ...).
      get: the kernel whose features are taken, 'ntk' or 'nngp'.
      cache: path of a file or `streaming.FeatureCache`, which the first pass writes and the others
        read.

    Raises:
      TypeError, ValueError: as `ntk_sketch.ridge`, of examples and map.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> rows = ns.subset.FeatureRows(features, x)
      >>> streamed = ns.subset.greedy_map(rows, 5).indices
      >>> bool(np.array_equal(streamed, ns.subset.greedy_map(features(x).ntk, 5).indices))
      True
    """

    def __init__(
        self,
        feature_map: FeatureMapLike,
        x: Inputs,
        *,
        get: str = "ntk",
        batch_size: int | None = None,
        progress: Progress = None,
        cache: FeatureCache | str | os.PathLike | None = None,
    ):
        how = {"get": get, "batch_size": batch_size, "progress": progress, "cache": cache}
        self._passes = Passes.of(feature_map, x, **how)
        self.shape = self._passes.shape

    def blocks(self) -> Iterator[Block]:
        for part in self._passes:
            yield part.start, part.stop, part.rows()

    def take(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b p"]:
        return self._passes.take(index)


class _Products(Rows):
    """Z W, of rows Z and a matrix W (p, k)."""

    def __init__(self, rows: Rows, matrix: Float[np.ndarray, "p k"]):
        self._rows, self._matrix = rows, matrix
        self.shape = rows.shape[0], matrix.shape[1]

    def blocks(self) -> Iterator[Block]:
        for start, stop, z in self._rows.blocks():
            yield start, stop, z @ self._matrix

    def take(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b k"]:
        return self._rows.take(index) @ self._matrix


def checked_rows(z: Any) -> Rows:
    """Of an array (n, p) or `FeatureRows`.

    Raises:
      TypeError, ValueError: anything else, or entries that are not finite.
    """
    if isinstance(z, Rows):
        return z
    if hasattr(z, "ntk") and hasattr(z, "nngp"):
        raise TypeError(
            "z is features of two kernels: give one array of them, z.ntk or z.nngp, or"
            " FeatureRows(feature_map, x)"
        )
    z = on_host(as_array(z, "z", "of shape (n, p), or FeatureRows"))
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(
            f"z has shape {tuple(z.shape)}; needed: (n, p), a feature vector for each of n items"
        )
    if not jnp.issubdtype(z.dtype, jnp.floating):
        raise TypeError(f"z has dtype {z.dtype}; needed: real floating point (z.astype(float))")
    check_finite(z, "z")
    return _ArrayRows(z)
