"""Lanczos's recurrence for several vectors independently: quadrature and extreme eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from jaxtyping import Float

Product = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]


class Lanczos:
    """The tridiagonal matrices T of A in the Krylov spaces of the columns of V (n, k).

    There is no reorthogonalisation, so that three blocks of vectors are in memory. By rounding,
    converged eigenvalues appear several times in T. This changes neither the extreme eigenvalues
    nor quadratures: vᵀ f(A) v ≈ ‖v‖² (f(T))₁₁.

    Source: G. H. Golub, G. Meurant, Matrices, Moments and Quadrature (2010); effects of rounding:
      A. Greenbaum, Linear Algebra Appl. 113 (1989), 7-63.
    """

    def __init__(self, product: Product, v: Float[np.ndarray, "n k"]):
        self._product = product
        self._norms = np.linalg.norm(v, axis=0)
        self._now, self._before = v / self._norms, np.zeros_like(v)
        self._diagonal: list[np.ndarray] = []
        self._beside: list[np.ndarray] = []

    @property
    def steps(self) -> int:
        return len(self._diagonal)

    def extend(self, steps: int) -> None:
        for _ in range(steps):
            image = self._product(self._now)
            if self._beside:
                image -= self._beside[-1] * self._before
            along = np.einsum("ij,ij->j", self._now, image)
            image -= along * self._now
            norms = np.linalg.norm(image, axis=0)
            self._diagonal.append(along)
            self._beside.append(norms)
            self._before, self._now = self._now, image / np.where(norms > 0, norms, 1.0)

    def quadratic_forms(self, f: Callable) -> Float[np.ndarray, " k"]:
        """‖v‖² (f(T))₁₁ for each column v."""
        found = []
        for column, norm in enumerate(self._norms):
            values, vectors = self._eigenpairs(column)
            found.append(norm**2 * float(vectors[0] ** 2 @ np.asarray(f(values))))
        return np.array(found)

    def extremes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The smallest and largest eigenvalue of the first T, each with its residual norm.

        A has an eigenvalue within this distance.
        """
        values, vectors = self._eigenpairs(0)
        errors = self._beside[-1][0] * np.abs(vectors[-1])
        return (float(values[0]), float(errors[0])), (float(values[-1]), float(errors[-1]))

    def bracket(self, f: Callable, low: float) -> tuple[float, float]:
        """Upper and lower bound of vᵀ f(A) v for the first vector.

        They are the quadratures of Gauss and of Gauss-Radau with a node at `low`. They hold if no
        eigenvalue is below `low` and the derivatives of f alternate in sign, as the logarithm's do.

        Source: G. H. Golub, G. Meurant (2010), theorem 6.4 and section 6.2.1.
        """
        diagonal, beside = self._entries(0)
        if len(diagonal) < self.steps:  # the Krylov space ended: Gauss quadrature is exact
            gauss = float(self.quadratic_forms(f)[0])
            return gauss, gauss
        last = self.rest()
        banded = np.stack([np.append(0.0, beside), diagonal - low, np.append(beside, 0.0)])
        right = np.append(np.zeros(len(diagonal) - 1), last**2)
        end = low + float(scipy.linalg.solve_banded((1, 1), banded, right)[-1])
        both = (diagonal, beside), (np.append(diagonal, end), np.append(beside, last))
        found = []
        for entries in both:
            values, vectors = scipy.linalg.eigh_tridiagonal(*entries)
            weights = self._norms[0] ** 2 * np.asarray(vectors)[0] ** 2
            found.append(float(weights @ f(np.maximum(values, low))))
        return max(found), min(found)

    def steps_for(self, f: Callable, low: float, width: float, most: int) -> float:
        """Adds steps until the bracket is at most `width` wide, or `most` are done; its width."""
        while True:
            upper, lower = self.bracket(f, low)
            if upper - lower <= width or self.steps >= most:
                return upper - lower
            self.extend(min(10, most - self.steps))

    def rest(self) -> float:
        """The norm of A V - V T for the first vector, with V its Lanczos vectors."""
        return float(self._beside[-1][0])

    def _eigenpairs(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = scipy.linalg.eigh_tridiagonal(*self._entries(column))
        return np.asarray(values), np.asarray(vectors)

    def _entries(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """The diagonal and off-diagonal entries of T."""
        diagonal = np.array([entries[column] for entries in self._diagonal])
        beside = np.array([entries[column] for entries in self._beside[:-1]])
        # a zero beside the diagonal ends the Krylov space; later entries belong to another one
        ended = np.flatnonzero(beside <= np.finfo(np.float64).eps * np.abs(diagonal).max())
        if len(ended):
            diagonal, beside = diagonal[: ended[0] + 1], beside[: ended[0]]
        return diagonal, beside
