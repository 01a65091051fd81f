"""A preconditioner from the features of a few examples."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from jaxtyping import Float


class Reservoir:
    """Rows drawn from a stream of unknown length, each with the same probability.

    J. S. Vitter, ACM Trans. Math. Softw. 11 (1985), 37-57, algorithm R; with a fixed seed.
    """

    def __init__(self, size: int):
        self._size, self._seen = size, 0
        self._random = np.random.default_rng(0)
        self._rows: list[np.ndarray] = []

    def add(self, rows: Float[np.ndarray, "m p"]) -> None:
        free = min(self._size - len(self._rows), len(rows))
        self._rows += [row.copy() for row in rows[:free]]
        numbers = np.arange(self._seen + free, self._seen + len(rows))
        places = self._random.integers(0, numbers + 1)
        for i in np.flatnonzero(places < self._size):
            self._rows[places[i]] = rows[free + i].copy()
        self._seen += len(rows)

    def rows(self) -> Float[np.ndarray, "m p"]:
        return np.array(self._rows)


class SampledInverse:
    """(SᵀS + λI)⁻¹ = (I - Sᵀ (SSᵀ + λI)⁻¹ S) / λ for m rows S.

    Cost: m² p FLOPs once, m³ / 3 for each λ, 4 m p for each vector.
    """

    def __init__(self, rows: Float[np.ndarray, "m p"]):
        self._rows, self._gram = rows, rows @ rows.T
        self.largest = float(
            scipy.linalg.eigvalsh(self._gram, subset_by_index=[len(rows) - 1] * 2)[0]
        )

    def at(self, penalty: float):
        """The map of vectors (p, k) for this λ."""
        shifted = self._gram + penalty * np.eye(len(self._gram))
        factor = scipy.linalg.cho_factor(shifted, lower=True, check_finite=False)

        def inverse(v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
            inner = scipy.linalg.cho_solve(factor, self._rows @ v, check_finite=False)
            return (v - self._rows.T @ inner) / penalty

        return inverse
