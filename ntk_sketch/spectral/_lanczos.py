"""Lanczos's recurrence for a block of vectors, each on its own: quadrature, extreme eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from jaxtyping import Float

Product = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]


class Lanczos:
    """The tridiagonal matrices T of A in the Krylov spaces of the columns of V (n, k).

    Without reorthogonalisation: three blocks of vectors in memory. Rounding then gives copies of
    eigenvalues that have converged, which changes neither extreme ones nor quadratures: vᵀ f(A) v ≈
    ‖v‖² (f(T))₁₁.

    Source: G. H. Golub, G. Meurant, Matrices, Moments and Quadrature (2010); of rounding: A.
      Greenbaum, Linear Algebra Appl. 113 (1989), 7-63.
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
        """‖v‖² (f(T))₁₁ of each column."""
        found = []
        for column, norm in enumerate(self._norms):
            values, vectors = self._eigenpairs(column)
            found.append(norm**2 * float(vectors[0] ** 2 @ np.asarray(f(values))))
        return np.array(found)

    def extremes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The least and the largest eigenvalue of the first T, each with the distance within which
        A has one: the norm of its residual."""
        values, vectors = self._eigenpairs(0)
        errors = self._beside[-1][0] * np.abs(vectors[-1])
        return (float(values[0]), float(errors[0])), (float(values[-1]), float(errors[-1]))

    def rest(self) -> float:
        """What the next step of the first vector starts from: the norm of A V - V T."""
        return float(self._beside[-1][0])

    def _eigenpairs(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        diagonal = np.array([entries[column] for entries in self._diagonal])
        beside = np.array([entries[column] for entries in self._beside[:-1]])
        # where a Krylov space ended, what follows is another one
        ended = np.flatnonzero(beside <= np.finfo(np.float64).eps * np.abs(diagonal).max())
        if len(ended):
            diagonal, beside = diagonal[: ended[0] + 1], beside[: ended[0]]
        values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside)
        return np.asarray(values), np.asarray(vectors)
