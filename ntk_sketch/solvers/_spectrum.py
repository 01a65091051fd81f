"""One eigendecomposition in float64; after it every regulariser is cheap."""

from __future__ import annotations

import abc

import numpy as np
from jaxtyping import Float

from .._typing import Inputs
from ..numerics import _linalg
from ._decomposition import Decomposition, Roots, scaled

_EPS = float(np.finfo(np.float64).eps)


class Spectrum(Decomposition):
    """Eigenvalues s of ZᵀZ or ZZᵀ, and what a regression needs of the eigenvectors.

    A direction is *dropped* (a zero in place of 1 / (s + λ)) where s + λ is rounding error for
    certain. The evidence is in the spectrum itself: the matrix was positive semi-definite before
    rounding, so its most negative eigenvalue is at most the spectral norm of the error (Weyl);
    `floor` is twice that. At λ = 0, where no regulariser limits the weights, `cut` is used, which
    adds an a priori lower estimate of the error. Both err on the side of keeping: a direction of
    pure rounding that is kept has weights of the order ‖Y‖ / ‖Z‖, and hardly any effect on examples
    like those of the training; one that is dropped in error is lost.

    Attributes:
      values: s, ascending, rounding below zero removed; p of them (primal) or n (dual, one less
        with an intercept).
      cut, floor: in the units of s.
      vectors: in columns; on a GPU if they were made there.
    """

    values: Float[np.ndarray, " r"]
    vectors: Float[Inputs, "s r"]
    cut: float
    floor: float

    @property
    def size(self) -> int:
        return len(self.values)

    def kept(self, penalty: float) -> np.ndarray:
        return self.values + penalty > (self.floor if penalty > 0 else self.cut)

    def inverse(self, penalty: float) -> Float[np.ndarray, " r"]:
        """1 / (s + λ), zero where dropped."""
        kept = self.kept(penalty)
        return np.where(kept, 1.0 / np.where(kept, self.values + penalty, 1.0), 0.0)

    def rank(self, penalty: float) -> int:
        return int(self.kept(penalty).sum())

    def condition(self, penalty: float) -> float:
        kept = self.values[self.kept(penalty)] + penalty
        return float(kept[-1] / kept[0]) if kept.size else float("inf")

    def deficiency(self, penalty: float) -> str:
        dropped = self.size - self.rank(penalty)
        if not dropped:
            return ""
        error = self.floor if penalty > 0 else self.cut
        return (
            f"{dropped} of {self.size} eigenvalues of the Gram matrix, with λ added, are below "
            f"its rounding error of {error:.3g} and their directions are dropped; the condition "
            f"number of the others is {self.condition(penalty):.3g} and the largest eigenvalue "
            f"{self.values[-1]:.3g}"
        )

    @abc.abstractmethod
    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        """(C, d): residuals of examples with rows R are `base * √D T + R C`, T targets in `units`,
        and I - H is, up to a common factor, `base * I + R diag(d) Rᵀ`."""

    @abc.abstractmethod
    def rotated(self, rows: Float[np.ndarray, "b q"]) -> Float[np.ndarray, "b r"]:
        """R of the rows that `Factors` of the same regression make of examples."""

    def left_out(
        self,
        rows: Float[np.ndarray, "b r"],
        y: Float[np.ndarray, "b k"],
        penalty: float,
        roots: Roots = None,
    ) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, " b"]]:
        coefficients, diagonal = self.residual_system(penalty)
        return (
            rows @ coefficients + self.base * scaled(self.units.of(y), roots),
            self.base + rows**2 @ diagonal,
        )


def eigh(
    matrix: Float[Inputs, "r r"],
) -> tuple[Float[np.ndarray, " r"], Float[Inputs, "r r"], float]:
    """Eigenvalues without what is below zero, eigenvectors, and `Spectrum.floor`. Overwrites the
    matrix."""
    values, vectors = _linalg.eigh(matrix, overwrite=True)
    floor = max(len(values) * _EPS * float(values[-1]), -2.0 * float(values[0]), 0.0)
    return np.maximum(values, 0.0), vectors, floor
