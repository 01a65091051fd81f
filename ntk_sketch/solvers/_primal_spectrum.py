"""Primal regressions, from the statistics alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ..numerics import _linalg
from ..numerics._precision import on_device
from ._decomposition import Roots, Rows, scaled
from ._normal_equations import NormalEquations, PrimalDecomposition
from ._spectrum import Spectrum, eigh
from ._sums import project


class PrimalSpectrum(PrimalDecomposition, Spectrum):
    """From the statistics alone: ZᵀZ = U diag(s) Uᵀ and c = Uᵀ ZᵀY.

    W = U diag(1 / (s + λ)) c. Cost: about 9 p³ FLOPs and 3 p² float64 numbers.
    """

    def __init__(self, equations: NormalEquations):
        """Overwrites `equations.gram`."""
        super().__init__(equations)
        self.values, self.vectors, self.floor = eigh(equations.gram)
        # errors that were measured are a half to a 200th of the estimate (GramState)
        self.cut = max(self.floor, equations.rounding_error / 100)
        self._rotated = _linalg.transposed_product(self.vectors, equations.cross)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        inner = _linalg.product(self.vectors, self.inverse(penalty)[:, None] * self._rotated)
        return np.ldexp(inner, self.units.exponent)

    def residual_sums(self, penalty: float) -> tuple[float, float, float]:
        inverse = self.inverse(penalty)
        explained = (2 * inverse - self.values * inverse**2) @ self._rotated**2
        return self.of_sums(float(explained.sum()), float(self.values @ inverse))

    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        inverse = self.inverse(penalty)
        coefficients, diagonal = -inverse[:, None] * self._rotated, -inverse
        if not self.fit_intercept:
            return coefficients, diagonal
        # the mean of T is 0 already; w / Σ w is the intercept's own share of every leverage
        none = np.zeros((1, coefficients.shape[1]))
        return np.concatenate([coefficients, none]), np.append(diagonal, -1.0)

    def example_rows(
        self, features: Rows, order: Int[np.ndarray, " n"], roots: Roots = None
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """R = √D Z U, or √D [(Z - mean) U, 1 / √Σw]: a second pass over the features, and 2 n p²
        FLOPs on the device."""
        vectors = on_device(self.vectors, self.dtype)
        mean = _linalg.transposed_product(self.vectors, self.feature_mean)
        for start, stop, z in features(order):
            rows = np.asarray(project(z, vectors))[: stop - start].astype(np.float64)
            own = None if roots is None else roots[start:stop]
            yield start, stop, scaled(self.with_intercept(rows - mean), own)

    def rotated(self, rows: Float[np.ndarray, "b q"]) -> Float[np.ndarray, "b r"]:
        """R of rows of `PrimalFactors`."""
        p = len(self.vectors)
        turned = _linalg.transposed_product(self.vectors, rows[:, :p].T).T
        return np.concatenate([turned, rows[:, p:]], axis=1)
