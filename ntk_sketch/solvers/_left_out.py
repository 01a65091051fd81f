"""Residuals of examples that a regression has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ..streaming._feature_stream import FeatureStream
from ..streaming._stream import Inputs
from ._spectrum import Spectrum

_FEWEST = 32  # examples from which an error is estimated


def counted(
    features: FeatureStream, x: Inputs, n: int, groups: Int[np.ndarray, " n"] | None = None
) -> Bool[np.ndarray, " n"]:
    """Which examples are like new ones: all but landmarks and what is in a group with one, or all
    if too few remain of n.
    """
    landmarks = features.landmarks(x)
    if groups is not None and landmarks.any():
        landmarks = np.isin(groups, groups[landmarks])
    left = n - int(landmarks.sum())
    if too_few(left, n):
        return np.full(len(landmarks), True)
    return ~landmarks


def too_few(left: int, n: int) -> bool:
    """Whether the examples that are not landmarks cannot estimate an error, with a warning."""
    if left >= min(_FEWEST, n):
        return False
    warnings.warn(
        f"{n - left} of {n} examples are landmarks of the feature map (or in a group with one),"
        " and too few others are "
        "left to estimate an error from: all count in the scores, which are too large for "
        "small diag_reg. Take landmarks from a part of the examples (a smaller width, or fewer "
        "examples in feature_map), or select=(x_val, y_val)",
        RuntimeWarning,
        stacklevel=6,
    )
    return True


class LeftOut:
    """Residuals of examples that are left out, for m regularisers at once."""

    def __init__(self, spectrum: Spectrum, penalties: Sequence[float]):
        systems = [spectrum.residual_system(penalty) for penalty in penalties]
        self.spectrum = spectrum
        self.coefficients = np.stack([c for c, _ in systems])
        self.diagonals = np.stack([d for _, d in systems], axis=1)
        largest = np.abs(self.diagonals).max(axis=0)
        self.tolerance = spectrum.leverage_tolerance * (1.0 if spectrum.base else largest)

    def of(
        self, rows: Float[np.ndarray, "b r"], y: Float[np.ndarray, "b k"]
    ) -> tuple[Float[np.ndarray, "b m k"], Float[np.ndarray, "b m"]]:
        """Residuals `(I - H) T` of examples and their `(I - H)ᵢᵢ`."""
        m, r, k = self.coefficients.shape
        flat = self.coefficients.transpose(1, 0, 2).reshape(r, m * k)
        residuals = (rows @ flat).reshape(len(rows), m, k)
        residuals += self.spectrum.base * self.spectrum.units.of(y)[:, None, :]
        return residuals, self.spectrum.base + rows**2 @ self.diagonals

    def sum_squares(
        self, rows: Float[np.ndarray, "g s r"], y: Float[np.ndarray, "g s k"]
    ) -> Float[np.ndarray, " m"]:
        """Σ over groups of equal size ‖(base I + R diag(d) Rᵀ)⁻¹ e‖²."""
        groups, size, _ = rows.shape
        residuals, complement = self.of(
            rows.reshape(groups * size, -1), y.reshape(groups * size, -1)
        )
        if size == 1:
            smallest = complement.min(axis=0)
            with np.errstate(divide="ignore", invalid="ignore"):
                total = np.sum((residuals / complement[:, :, None]) ** 2, axis=(0, 2))
            return np.where(smallest <= self.tolerance, np.inf, total)
        residuals = residuals.reshape(groups, size, *residuals.shape[1:])
        smallest, total = np.empty((2, residuals.shape[2]))
        for j, d in enumerate(self.diagonals.T):
            complement = self.spectrum.base * np.eye(size) + (rows * d) @ rows.transpose(0, 2, 1)
            values, vectors = np.linalg.eigh(complement)
            smallest[j] = values.min()
            with np.errstate(divide="ignore", invalid="ignore"):
                left_out = (vectors.transpose(0, 2, 1) @ residuals[:, :, j]) / values[:, :, None]
            total[j] = np.sum(left_out**2)  # rotating back keeps the norm
        return np.where(smallest <= self.tolerance, np.inf, total)
