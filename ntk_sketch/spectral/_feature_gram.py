"""Gram matrices of streamed features as operators, which are never formed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import scipy.sparse.linalg

from .._arguments import checked_choice
from ..streaming import FeatureCache
from ..streaming._passes import Passes
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs

SIDES = ("features", "examples")


class FeatureGram(scipy.sparse.linalg.LinearOperator):
    """ZᵀZ (p, p) or ZZᵀ (n, n) of a feature map's features Z of examples, as a SciPy operator.

    Use this when neither matrix fits in memory, for `log_determinant` and `trace_of_function`, or
    for solvers of SciPy. Choose the smaller side: with a shift λ

        log det(ZZᵀ + λI) = log det(ZᵀZ + λI) + (n - p) log λ.

    A product with k vectors is a pass over the features with 4 n p k FLOPs in float64, and the
    features of one batch in memory. They are computed again in every pass unless `cache` has them.

    Args:
      feature_map, x, batch_size, progress: as in `ntk_sketch.ridge`; x is an array (n, ...).
      get: the kernel whose features are taken, 'ntk' or 'nngp'.
      side: 'features' for ZᵀZ, 'examples' for ZZᵀ.
      cache: path of a file or `streaming.FeatureCache`, which the first pass writes.

    Raises:
      TypeError, ValueError: as `ntk_sketch.ridge`, of examples and map; another side.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> gram = ns.spectral.FeatureGram(features, x)
      >>> gram.shape
      (16, 16)
      >>> z = np.asarray(features(x).ntk, float)
      >>> bool(np.allclose(gram @ np.eye(16), z.T @ z))
      True
    """

    def __init__(
        self,
        feature_map: FeatureMapLike,
        x: Inputs,
        *,
        get: str = "ntk",
        side: str = "features",
        batch_size: int | None = None,
        progress: Progress = None,
        cache: FeatureCache | str | os.PathLike | None = None,
    ):
        self.side = checked_choice(side, "side", SIDES)
        how = {"get": get, "batch_size": batch_size, "progress": progress, "cache": cache}
        self._passes = Passes.of(feature_map, x, **how)
        n, p = self._passes.shape
        rows = p if self.side == "features" else n
        super().__init__(dtype=np.dtype(np.float64), shape=(rows, rows))

    def _matmat(self, v: Any) -> np.ndarray:
        v = np.asarray(v, np.float64)
        if self.side == "features":
            return self._turned(lambda part, z: z @ v)
        inner = self._turned(lambda part, z: v[part.start : part.stop])
        found = np.empty((self.shape[0], v.shape[1]))
        for part in self._passes:
            found[part.start : part.stop] = part.rows() @ inner
        return found

    def _matvec(self, v: Any) -> np.ndarray:
        return self._matmat(np.reshape(v, (-1, 1)))

    def _adjoint(self) -> FeatureGram:
        return self

    def _turned(self, rows: Any) -> np.ndarray:
        """Σ zᵀ rows(z) over batches z of features."""
        total: Any = 0.0
        for part in self._passes:
            z = part.rows()
            total = total + z.T @ rows(part, z)
        return total
