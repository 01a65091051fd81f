"""Random degrees, with which a truncated series is unbiased."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._series import Series


class RandomDegree(NamedTuple):
    """A distribution of degrees.

    The series with coefficients c_j / survival_j up to a random degree has the whole series as its
    expectation.

    Attributes:
      survival: probabilities of a degree of j or more, j = 0, 1, ...
    """

    survival: Float[np.ndarray, " l"]

    @staticmethod
    def of(series: Series, mean: int) -> RandomDegree:
        """The distribution of this mean and least variance for coefficients that fall as ρ^-j.

        It has no degree below mean - k, with k = min(mean, ⌊ρ / (ρ - 1)⌋), and a geometric tail,

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
        """Degrees from uniform numbers u in [0, 1): how many j >= 1 have survival_j > u."""
        return np.searchsorted(-self.survival[1:], -uniform, side="left")

    def weights(self, coefficients: Float[np.ndarray, " l"]) -> Float[np.ndarray, " l"]:
        """Coefficients divided by their probabilities; 0 where these are 0."""
        seen = self.survival > 0
        return np.where(seen, coefficients / np.where(seen, self.survival, 1.0), 0.0)
