"""Dual regressions, by a Cholesky factor of ZZᵀ + λI."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ._decomposition import Roots, Rows
from ._dual_equations import DualDecomposition, DualEquations
from ._dual_spectrum import DualSpectrum
from ._factors import Factors


class DualFactors(DualDecomposition, Factors):
    """From the features themselves: (ZZᵀ + λI) A = Y and W = ZᵀA; for n <= p.

    With H = ZZᵀ (ZZᵀ + λI)⁻¹, I - H is λ (ZZᵀ + λI)⁻¹.
    """

    def __init__(self, equations: DualEquations):
        super().__init__(equations)
        self._set_system(equations.kernel, equations.without_constant(equations.targets))

    def example_rows(
        self, features: Rows, order: Int[np.ndarray, " n"], roots: Roots = None
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """R = I; no second pass. The examples are of weight > 0."""
        for start, stop, places in self.equations.places(order):
            rows = np.zeros((stop - start, self.n_examples))
            rows[np.arange(stop - start), places] = 1.0
            yield start, stop, rows

    def _decomposed(self) -> DualSpectrum:
        return DualSpectrum(self.equations)

    def _weights(self, solution: Float[np.ndarray, "s k"]) -> Float[np.ndarray, "p k"]:
        return self.equations.onto_features(self.equations.with_constant(solution))

    def _residual_sums(
        self, penalty: float, solution: Float[np.ndarray, "s k"]
    ) -> tuple[float, float, float]:
        residual = penalty**2 * float(np.sum(solution**2))
        return residual, 0.0, penalty * self._inverse_trace(penalty)

    def _left_out(
        self,
        rows: Float[np.ndarray, "b n"],
        y: Float[np.ndarray, "b k"],
        penalty: float,
        roots: Roots,
        solution: Float[np.ndarray, "s k"],
    ) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, " b"]]:
        columns = self.equations.without_constant(rows.T)
        return penalty * (columns.T @ solution), penalty * self._squares(penalty, columns)
