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
from ._gram_state import GramState
from ._spectrum import DualSpectrum, PrimalSpectrum, Spectrum
from ._sums import gram_of_stream


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

    def spectrum(self, fit_intercept: bool) -> Spectrum:
        if isinstance(self.found, GramState):
            return PrimalSpectrum(self.found, fit_intercept)
        assert self.found is not None
        assert self.y is not None
        return DualSpectrum(self.found, self.y, fit_intercept)


def checked_data(features: FeatureStream, x: Any, y: Any):
    """Examples, targets as (n, k), whether these were (n,), and the features' shape and dtype."""
    _checks.check_feature_map(features.feature_map)
    x = checked_examples(x)
    y, one_output = _checks.checked_targets(y, len(x))
    warn_of_lost_variation(x)
    spec = features.spec(x)
    _checks.check_range(y, spec.dtype)
    return x, y, one_output, spec
