"""The diagonal of the residual kernel: the part of a prior variance that features do not have."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._typing import PerKernel
from ..streaming._stream import FeatureMapLike
from ._training import Training


def has_diagonals(feature_map: FeatureMapLike) -> bool:
    """Whether the map has exact variances k(x, x). A map averaged over transforms has none."""
    averaged = getattr(getattr(feature_map, "views", None), "transforms", ())
    return callable(getattr(feature_map, "diagonals", None)) and not averaged


def warn_without_diagonals(feature_map: FeatureMapLike, stacklevel: int) -> None:
    if has_diagonals(feature_map):
        return
    warnings.warn(
        "this feature map does not know the exact variances k(x, x): predictive variances are those"
        " of the features alone, too small by whatever the features miss, k(x, x) - |z(x)|². Pass"
        " exact_diagonal=False where that is meant",
        RuntimeWarning,
        stacklevel=stacklevel + 1,
    )


class Missing:
    """Computes max(k(x, x) - |z(x)|², 0) of test examples, batch by batch.

    Attributes:
      variances: for each kernel, (m,), after the last batch.
    """

    def __init__(self, training: Training, kernels: Iterable[str], x: Any):
        self._diagonals, self._x = training.feature_map.diagonals, x
        self.variances = {kernel: np.zeros(len(x)) for kernel in kernels}

    def __call__(self, start: int, stop: int, z: dict[str, Any]) -> None:
        """Adds a batch of features, with rows of zeros after the last example."""
        rows = len(next(iter(z.values())))
        index = np.minimum(np.arange(start, start + rows), stop - 1)  # as many as the batch has
        exact = PerKernel(*self._diagonals(self._x[index]))
        for kernel, variances in self.variances.items():
            features = np.asarray(z[kernel])[: stop - start].astype(np.float64)
            whole = np.asarray(getattr(exact, kernel))[: stop - start].astype(np.float64)
            variances[start:stop] = np.maximum(whole - np.sum(features**2, axis=1), 0.0)
