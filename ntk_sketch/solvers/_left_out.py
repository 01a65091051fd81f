"""Residuals of examples that a regression has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..streaming._feature_stream import FeatureStream
from ..streaming._stream import Inputs
from ._loss import Loss
from ._spectrum import Spectrum

_FEWEST = 32  # examples from which an error is estimated


def counted(
    features: FeatureStream,
    x: Inputs,
    n: int,
    groups: Int[np.ndarray, " n"] | None = None,
    stacklevel: int = 6,
    sample_weight: Float[np.ndarray, " n"] | None = None,
) -> Bool[np.ndarray, " n"]:
    """Which examples are like new ones: all but landmarks and what is in a group with one, or all
    if too few remain of n. None of weight 0 is.
    """
    landmarks = features.landmarks(x)
    if groups is not None and landmarks.any():
        landmarks = np.isin(groups, groups[landmarks])
    real = np.full(len(landmarks), True) if sample_weight is None else sample_weight > 0
    left = n - int((landmarks & real).sum())
    return real if too_few(left, n, stacklevel) else real & ~landmarks


def check_weighting(selector: Any, weighted: bool) -> None:
    """Scores of a fit with weights need them too, those without have none.

    Raises:
      ValueError: one of the two alone has weights.
    """
    given = getattr(selector, "sample_weight", None) is not None
    if getattr(selector, "y", None) is None or given == weighted:
        return
    name = type(selector).__name__
    raise ValueError(
        f"{name}(x, y) was given examples with{'' if given else 'out'} sample_weight and the fit"
        f" is with{'' if weighted else 'out'}: an example is left out with its weight, so that"
        f" both must have the same. Pass {name}(x, y, sample_weight=...) as to ridge, or its name"
    )


def too_few(left: int, n: int, stacklevel: int = 6) -> bool:
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
        stacklevel=stacklevel,
    )
    return True


class LeftOut:
    """Losses of examples that are left out, for m regularisers at once."""

    def __init__(self, spectrum: Spectrum, penalties: Sequence[float], loss: Loss):
        systems = [spectrum.residual_system(penalty) for penalty in penalties]
        self.spectrum, self.loss = spectrum, loss
        self.coefficients = np.stack([c for c, _ in systems])
        self.diagonals = np.stack([d for _, d in systems], axis=1)
        largest = np.abs(self.diagonals).max(axis=0)
        self.tolerance = spectrum.leverage_tolerance * (1.0 if spectrum.base else largest)

    def sum_losses(
        self,
        rows: Float[np.ndarray, "g s r"],
        y: Float[np.ndarray, "g s k"],
        sample_weight: Float[np.ndarray, "g s"] | None = None,
    ) -> Float[np.ndarray, " m"]:
        """Of groups of equal size, with the residuals (base I + R diag(d) Rᵀ)⁻¹ e; times their
        weights, which are above 0."""
        roots = None if sample_weight is None else np.sqrt(sample_weight)[:, :, None, None]
        groups, size, r = rows.shape
        m, _, k = self.coefficients.shape
        flat = self.coefficients.transpose(1, 0, 2).reshape(r, m * k)
        residuals = (rows @ flat).reshape(groups, size, m, k)
        targets = self.spectrum.units.of(y)[:, :, None, :]
        residuals += self.spectrum.base * (targets if roots is None else roots * targets)
        smallest = np.empty(m)
        for j, d in enumerate(self.diagonals.T):
            if size == 1:
                complement = self.spectrum.base + rows[:, 0] ** 2 @ d
                smallest[j] = complement.min()
                with np.errstate(divide="ignore", invalid="ignore"):
                    residuals[:, 0, j] /= complement[:, None]
                continue
            complement = self.spectrum.base * np.eye(size) + (rows * d) @ rows.transpose(0, 2, 1)
            values, vectors = np.linalg.eigh(complement)
            smallest[j] = values.min()
            with np.errstate(divide="ignore", invalid="ignore"):
                turned = (vectors.transpose(0, 2, 1) @ residuals[:, :, j]) / values[:, :, None]
                residuals[:, :, j] = vectors @ turned
        with np.errstate(invalid="ignore", over="ignore"):
            residuals = residuals if roots is None else residuals / roots
            losses = self.loss(self.spectrum.units.scale * residuals, y[:, :, None, :])
        if sample_weight is not None:
            losses = losses * sample_weight[:, :, None]
        return np.where(smallest <= self.tolerance, np.inf, losses.sum(axis=(0, 1)))
