"""Gradient flow along one eigenvector, as functions of its eigenvalue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Flow(NamedTuple):
    """Gradient flow of `f' = -(K + λI)(f - y)` from f = 0, in the eigenvectors of K.

    Times are those of that equation, `τ = learning_rate t / y.size`, infinity included.

    Attributes:
      values: eigenvalues s of K, rounding below zero removed.
      kept: which of them, with λ added, are more than rounding error (`Spectrum`).
      penalty: λ.
    """

    values: Float[np.ndarray, " r"]
    kept: Bool[np.ndarray, " r"]
    penalty: float

    @property
    def rates(self) -> Float[np.ndarray, " r"]:
        return self.values + self.penalty

    def decayed(self, tau: float) -> Float[np.ndarray, " r"]:
        """exp(-(s + λ) τ)."""
        return np.exp(-_exponents(self.rates, tau))

    def trained(self, tau: float) -> Float[np.ndarray, " r"]:
        """φ_τ(s) = (1 - exp(-(s + λ) τ)) / (s + λ), which is `τ` for small rates and, for τ = ∞,
        the inverse; zero where dropped."""
        return _integrated(self.rates, self.kept, tau)

    def remaining(self, tau: float) -> Float[np.ndarray, " r"]:
        """1 - s φ_τ(s), as a sum of what is positive: (λ + s exp(-(s + λ) τ)) / (s + λ)."""
        left = self.penalty + self.values * self.decayed(tau)
        return np.where(self.kept, left / np.where(self.kept, self.rates, 1.0), 1.0)

    def unregularised(self) -> Flow:
        """That of λ = 0."""
        return self._replace(kept=self.kept & (self.values > 0), penalty=0.0)


def _exponents(rates: Float[np.ndarray, " r"], tau: float) -> Float[np.ndarray, " r"]:
    """rates · τ, 0 for a rate of 0 also at τ = ∞."""
    moving = rates > 0
    return np.where(moving, np.where(moving, rates, 1.0) * tau, 0.0)


def _integrated(rates: np.ndarray, kept: np.ndarray, tau: float) -> np.ndarray:
    reached = -np.expm1(-_exponents(rates, tau))
    return np.where(kept, reached / np.where(kept, rates, 1.0), 0.0)
