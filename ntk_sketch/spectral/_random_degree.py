"""Degrees drawn at random, so that a truncated series is right on average."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._series import Series


class RandomDegree(NamedTuple):
    """A distribution of degrees, by the probability of a degree of j or more, j = 0, 1, ...

    The series with coefficients c_j / survival_j up to a random degree is, on average, the whole
    one.
    """

    survival: Float[np.ndarray, " l"]

    @staticmethod
    def of(series: Series, mean: int) -> RandomDegree:
        """The distribution of least variance among those of a mean, for coefficients that fall as
        ρ^-j: no degree below mean - k, k = min(mean, ⌊ρ / (ρ - 1)⌋), and a geometric tail,

            survival_{mean - k + m} = k (ρ - 1) ρ^-m,   m = 1, 2, ...

        Source: I. Han, H. Avron, J. Shin, Stochastic Chebyshev gradient descent for spectral
          optimization (2018), arXiv 1802.06355, theorem 3.
        """
        rho, terms = series.rate, len(series.values)
        k = min(mean, int(rho / (rho - 1)))
        beyond = np.arange(terms) - (mean - k)
        with np.errstate(under="ignore"):
            tail = k * (rho - 1) * rho ** -np.maximum(beyond, 1).astype(np.float64)
        return RandomDegree(np.where(beyond <= 0, 1.0, np.minimum(tail, 1.0)))

    def degrees(self, uniform: Float[np.ndarray, " k"]) -> np.ndarray:
        """Those that uniform numbers in [0, 1) stand for: how many j >= 1 survive."""
        return np.searchsorted(-self.survival[1:], -uniform, side="left")

    def weights(self, coefficients: Float[np.ndarray, " l"]) -> Float[np.ndarray, " l"]:
        """Coefficients over their probabilities; 0 where the latter vanish."""
        seen = self.survival > 0
        return np.where(seen, coefficients / np.where(seen, self.survival, 1.0), 0.0)
