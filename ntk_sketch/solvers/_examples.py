"""What a regression needs of its examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_examples, warn_of_lost_variation
from ..streaming._feature_stream import FeatureStream, batches_of
from ..streaming._stream import Batch, Inputs
from . import _checks
from ._cholesky import CholeskyFactors
from ._decomposition import Decomposition
from ._dual_spectrum import DualSpectrum
from ._gram_state import GramState
from ._normal_equations import NormalEquations
from ._primal_spectrum import PrimalSpectrum
from ._sums import gram_of_stream

# Features from which one factor for each regulariser costs less than all eigenvalues.
FACTORED_ONE, FACTORED_PATH = 1024, 4097


class Examples:
    """What a regression needs of its examples: the statistics or, of few examples, all features.

    `plus` adds examples.
    """

    def __init__(
        self,
        features: FeatureStream,
        spec: jax.ShapeDtypeStruct,
        one_output: bool,
        found: GramState | np.ndarray | None = None,
        y: Float[np.ndarray, "n k"] | None = None,
    ):
        self.features, self.spec, self.one_output = features, spec, one_output
        self.found, self.y = found, y

    def plus(
        self, x: Inputs, y: Float[np.ndarray, "n k"], order: Int[np.ndarray, " n"] | None = None
    ) -> Examples:
        whole = y if self.y is None else np.concatenate([self.y, y])
        if isinstance(self.found, GramState):
            found = self.found.merge(self._gram(self.features(x, order), y))
        elif len(whole) > self.spec.shape[1] and self.found is None:
            found = self._gram(self.features(x, order), y)
        else:
            z = [self.features.all_of(x, order)]
            found = np.concatenate(z if self.found is None else [self.found, *z])
            if len(whole) > self.spec.shape[1]:
                found = self._gram(batches_of(found, self.features.rows(len(found))), whole)
        return Examples(self.features, self.spec, self.one_output, found, whole)

    def _gram(self, parts: Iterator[Batch], y: Float[np.ndarray, "n k"]) -> GramState:
        rows = self.features.rows(len(y))
        return gram_of_stream(parts, y, rows=rows, spec=self.spec, one_output=self.one_output)

    def decomposition(self, fit_intercept: bool, whole: bool, path: int) -> Decomposition:
        """As `decomposed`; of few examples the eigendecomposition of ZZᵀ."""
        if isinstance(self.found, GramState):
            return decomposed(self.found, fit_intercept, whole, path)
        assert self.found is not None
        assert self.y is not None
        return DualSpectrum(self.found, self.y, fit_intercept)


def decomposed(state: GramState, fit_intercept: bool, whole: bool, path: int) -> Decomposition:
    """Of a primal regression: by what costs less for a path of so many regularisers.

    Args:
      whole: the eigendecomposition is needed anyway, for leave-one-out or λ = 0.
    """
    equations = NormalEquations.of(state, fit_intercept)
    fewest = FACTORED_PATH if path > 1 else FACTORED_ONE
    if whole or len(equations.gram) < fewest:
        return PrimalSpectrum(equations)
    return CholeskyFactors(equations)


def checked_data(features: FeatureStream, x: Any, y: Any):
    """Examples, targets as (n, k), whether these were (n,), and the features' shape and dtype."""
    _checks.check_feature_map(features.feature_map)
    x = checked_examples(x)
    y, one_output = _checks.checked_targets(y, len(x))
    warn_of_lost_variation(x)
    spec = features.spec(x)
    _checks.check_range(y, spec.dtype)
    return x, y, one_output, spec
