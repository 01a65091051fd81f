"""Primal regressions, by a Cholesky factor of ZᵀZ + λI."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ._decomposition import Roots, Rows, scaled
from ._factors import Factors
from ._normal_equations import NormalEquations, PrimalDecomposition
from ._primal_spectrum import PrimalSpectrum


class PrimalFactors(PrimalDecomposition, Factors):
    """From the statistics alone: (ZᵀZ + λI) W = ZᵀY."""

    def __init__(self, equations: NormalEquations):
        super().__init__(equations)
        self._set_system(equations.gram, equations.cross)

    def example_rows(
        self, features: Rows, order: Int[np.ndarray, " n"], roots: Roots = None
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """R = √D (Z - mean), or √D [Z - mean, 1 / √Σw]."""
        for start, stop, z in features(order):
            rows = np.asarray(z)[: stop - start].astype(np.float64) - self.feature_mean
            own = None if roots is None else roots[start:stop]
            yield start, stop, scaled(self.with_intercept(rows), own)

    def _decomposed(self) -> PrimalSpectrum:
        return PrimalSpectrum(self.equations)

    def _weights(self, solution: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
        return solution

    def _residual_sums(
        self, penalty: float, solution: Float[np.ndarray, "p k"]
    ) -> tuple[float, float, float]:
        w = solution  # Wᵀ G W = Wᵀ (C - λ W)
        explained = np.sum(w * self.equations.cross) + penalty * np.sum(w * w)
        return self.of_sums(float(explained), self.size - penalty * self._inverse_trace(penalty))

    def _left_out(
        self,
        rows: Float[np.ndarray, "b r"],
        y: Float[np.ndarray, "b k"],
        penalty: float,
        roots: Roots,
        solution: Float[np.ndarray, "p k"],
    ) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, " b"]]:
        rows, constant = rows[:, : self.size], rows[:, self.size :]
        residuals = scaled(self.units.of(y), roots) - rows @ solution
        return residuals, 1.0 - np.sum(constant**2, axis=1) - self._squares(penalty, rows.T)
