"""ZᵀZ + λI of a primal regression, and its right-hand sides, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._typing import Inputs
from ..numerics import _linalg
from ..numerics._precision import float64
from ._decomposition import Decomposition, residuals_of
from ._gram_state import GramState
from ._targets import Units, mean_to_spread


class Centred(NamedTuple):
    """Sums of targets that lose their mean to an intercept, or get back what they were shifted by.

    Attributes: as in `NormalEquations`.
    """

    cross: Float[np.ndarray, "p k"]
    target_norm: Float[np.ndarray, " k"]
    feature_mean: Float[np.ndarray, " p"]
    units: Units
    mean_to_spread: float

    @classmethod
    def of(cls, sums: Any, units: Units, fit_intercept: bool) -> Centred:
        """
        Args:
          sums: `HostSums`, of which ZᵀZ is not looked at.
          units: of their targets.
        """
        total, inner_mean = float(sums.weight), sums.target_sum / sums.weight
        spread = np.maximum(sums.target_norm / total - inner_mean**2, 0.0).sum()
        shifted = np.ldexp(units.shift, -units.exponent)
        lost = inner_mean if fit_intercept else -shifted
        shift = units.shift + np.ldexp(inner_mean, units.exponent)
        return cls(
            cross=sums.cross - sums.feature_sum[:, None] * lost,
            target_norm=sums.target_norm - total * lost * (2 * inner_mean - lost),
            feature_mean=sums.feature_sum / total * fit_intercept,
            units=Units(shift if fit_intercept else np.zeros_like(shift), units.exponent),
            mean_to_spread=mean_to_spread(np.sum((shifted + inner_mean) ** 2), spread),
        )


@dataclass(frozen=True)
class NormalEquations:
    """(gram + λ I) W = cross, of features and targets that are centred if there is an intercept.

    Attributes:
      gram (p, p), cross (p, k), target_norm (k,): sums over examples, targets in `units`. The
        first stays on a GPU if the statistics are there.
      state: the statistics themselves.
      rounding_error: estimate of the spectral norm of the error of `gram`.
      other: as in `Decomposition`.
    """

    gram: Float[Inputs, "p p"]
    cross: Float[np.ndarray, "p k"]
    target_norm: Float[np.ndarray, " k"]
    state: GramState
    rounding_error: float
    n_examples: int
    total_weight: float
    weighted: bool
    dtype: np.dtype
    mean_square_norm: float
    feature_mean: Float[np.ndarray, " p"]
    units: Units
    mean_to_spread: float
    fit_intercept: bool

    @classmethod
    def of(cls, state: GramState, fit_intercept: bool = False) -> NormalEquations:
        """
        Raises:
          ValueError: the state has seen no example, or overflows.
        """
        n, dtype = int(state.n_examples), np.dtype(state.gram.high.dtype)
        sums = state.in_float64()
        if n < 1:
            raise ValueError("the GramState has seen no example: update it first")
        if not np.isfinite(sums.feature_norm):
            raise ValueError(
                f"the sum of the squared feature norms overflows {dtype}: scale the inputs or "
                "W_std down"
            )
        total = float(sums.weight)
        centred = Centred.of(sums, state.units(), fit_intercept)
        gram, feature_mean = sums.gram, centred.feature_mean
        if fit_intercept:
            with float64():  # NumPy's in place: p² numbers less
                gram -= _linalg.namespace(gram).outer(total * feature_mean, feature_mean)
        return cls(
            gram=gram,
            cross=centred.cross,
            target_norm=centred.target_norm,
            state=state,
            rounding_error=state.rounding_error(),
            n_examples=n,
            total_weight=total,
            weighted=state.weighted,
            dtype=dtype,
            mean_square_norm=float(sums.feature_norm) / total,
            feature_mean=feature_mean,
            units=centred.units,
            mean_to_spread=centred.mean_to_spread,
            fit_intercept=fit_intercept,
        )

    def product(self, w: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
        """`gram @ w` by the statistics: decompositions overwrite `gram`."""
        result = self.state.gram.product(w)
        if self.fit_intercept:
            result -= np.outer(self.total_weight * self.feature_mean, self.feature_mean @ w)
        return result


class PrimalDecomposition(Decomposition):
    """What every decomposition of normal equations says of itself."""

    base = 1.0

    def __init__(self, equations: NormalEquations):
        self.equations = equations
        self.n_examples = equations.n_examples
        self.total_weight, self.weighted = equations.total_weight, equations.weighted
        self.dtype = equations.dtype
        self.mean_square_norm = equations.mean_square_norm
        self.feature_mean = equations.feature_mean
        self.units = equations.units
        self.mean_to_spread = equations.mean_to_spread
        self.fit_intercept = equations.fit_intercept
        # of one leverage, a sum of p rounded squares
        eps = float(np.finfo(self.dtype).eps)
        self.leverage_tolerance = 8 * float(np.sqrt(len(equations.gram))) * eps

    def with_intercept(self, rows: Float[np.ndarray, "b p"]) -> Float[np.ndarray, "b r"]:
        """With the intercept's own coordinate of an example, before weights."""
        if not self.fit_intercept:
            return rows
        return np.concatenate([rows, np.full((len(rows), 1), self.total_weight**-0.5)], axis=1)

    def residuals(
        self, penalties: Sequence[float], weights: Sequence[Float[np.ndarray, "p k"]]
    ) -> list[float]:
        w = np.ldexp(np.concatenate(weights, axis=1), -self.units.exponent)
        cross = self.equations.cross
        products = self.equations.product(w) - np.tile(cross, len(penalties))
        return residuals_of(products, w, penalties, cross)

    def of_sums(self, explained: float, freedom: float) -> tuple[float, float, float]:
        """`residual_sums` from `2 tr(WᵀC) - tr(Wᵀ G W)` and `trace(H)` without the intercept's."""
        total = float(self.equations.target_norm.sum())
        rounding = float(np.finfo(self.dtype).eps) * total
        return total - explained, rounding, self.n_examples - self.fit_intercept - freedom
