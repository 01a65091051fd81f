"""Dual regressions, by the spectrum of ZZᵀ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ..numerics import _linalg
from ._decomposition import Roots, Rows
from ._dual_equations import DualDecomposition, DualEquations
from ._spectrum import Spectrum, eigh


class DualSpectrum(DualDecomposition, Spectrum):
    """From the features themselves: ZZᵀ = U diag(s) Uᵀ and q = Uᵀ Y; for n <= p.

    W = Zᵀ U diag(1 / (s + λ)) q. Cost: 2 n² p + 9 n³ FLOPs; 3 n² float64 numbers and the features.
    With weights these are √D Z and √D Y, of the examples of weight > 0.
    """

    def __init__(self, equations: DualEquations):
        """Overwrites `equations.kernel`."""
        super().__init__(equations)
        self.values, vectors, self.floor = eigh(equations.kernel)
        self.vectors = equations.with_constant(vectors)
        self.cut = max(self.floor, equations.rounding_error)
        self._rotated = _linalg.transposed_product(self.vectors, equations.targets)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        dual = _linalg.product(self.vectors, self.inverse(penalty)[:, None] * self._rotated)
        return np.ldexp(self.equations.onto_features(dual), self.units.exponent)

    def _residual_filter(self, penalty: float) -> Float[np.ndarray, " n"]:
        """I - H = U diag(·) Uᵀ: λ / (s + λ), one where dropped. Where that is all zero (λ = 0 at
        full rank, an interpolant), its limit up to the factor λ, which every use divides out."""
        inverse = self.inverse(penalty)
        complement = np.where(self.kept(penalty), penalty * inverse, 1.0)
        return complement if complement.any() else inverse

    def residual_sums(self, penalty: float) -> tuple[float, float, float]:
        residual_filter = self._residual_filter(penalty)
        residual = float((residual_filter**2 @ self._rotated**2).sum())
        return residual, 0.0, float(residual_filter.sum())

    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        residual_filter = self._residual_filter(penalty)
        return residual_filter[:, None] * self._rotated, residual_filter

    def example_rows(
        self, features: Rows, order: Int[np.ndarray, " n"], roots: Roots = None
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """R = U; no second pass. The examples are of weight > 0."""
        for start, stop, places in self.equations.places(order):
            yield start, stop, _linalg.rows(self.vectors, places)

    def rotated(self, rows: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b r"]:
        """R of rows of `DualFactors`."""
        return _linalg.transposed_product(self.vectors, rows.T).T
