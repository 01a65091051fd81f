"""Predictive variances of a ridge regression, from its statistics."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ...solvers import GramState
from ...solvers._normal_equations import NormalEquations
from ...solvers._primal_spectrum import PrimalSpectrum


class Sample(NamedTuple):
    """Some of the fitted rows, which determine the scale of variances.

    Attributes:
      z: features.
      missing: k(x, x) - |z|², the diagonal of the residual kernel.
      y: targets.
      weights: of the rows, above 0.
    """

    z: Float[np.ndarray, "m p"]
    missing: Float[np.ndarray, " m"]
    y: Float[np.ndarray, "m k"]
    weights: Float[np.ndarray, " m"]


class Posterior:
    """The Gaussian process whose mean is the regression.

    Let Z be the features of n rows, ZᵀZ = V diag(s) Vᵀ (centred if there is an intercept) and λ the
    regulariser. Under a process of covariance a² k and noise a² λ, an observation at features z has
    the variance

        a² (λ + λ h(z) + k(x, x) - |z|²),   h(z) = Σᵢ (z V)ᵢ² / (sᵢ + λ) (+ 1 / n).

    The process predicts that the squared leave-one-out residual of a row is a² (λ / (1 - h) +
    k(x, x) - |z|²) on average. For each output, a² is the mean, over a sample of the rows, of the
    squared residual divided by this expression without a². Variances are therefore right on average
    whatever the noise. (The likelihood would take the residual kernel for signal.) A row of weight
    w has noise a² λ / w and leverage w h.

    Source: F. Bachoc, Comput. Stat. Data Anal. 66 (2013), 55-69, section 2.2.
    """

    def __init__(self, state: GramState, penalty: float, fit_intercept: bool, sample: Sample):
        self._state, self._sample = state, sample
        self._penalty, self._fit_intercept = penalty, fit_intercept

    def variances(
        self, z: Float[np.ndarray, "b p"], missing: Float[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b k"]:
        """Variances of observations at features z with `missing` k(x, x) - |z|²."""
        unscaled = self._penalty * (1 + self._leverages(z)) + missing
        return unscaled[:, None] * self._scale

    @functools.cached_property
    def _spectrum(self) -> PrimalSpectrum:
        if not self._penalty > 0:
            raise ValueError("predictive variances need alpha > 0: it stands for the noise")
        return PrimalSpectrum(NormalEquations.of(self._state, self._fit_intercept))

    @functools.cached_property
    def _scale(self) -> Float[np.ndarray, " k"]:
        """a² of each output."""
        z, missing, y, row_weights = self._sample
        most = 1 - np.sqrt(np.finfo(float).eps)
        leverages = np.minimum(row_weights * self._leverages(z), most)
        weights = self._spectrum.weights(self._penalty)
        mean = z.astype(np.float64) @ weights + self._spectrum.intercept(weights)
        left_out = (y - mean) / (1 - leverages)[:, None]
        said = self._penalty / (row_weights * (1 - leverages)) + missing
        return np.mean(left_out**2 / said[:, None], axis=0)

    def _leverages(self, z: Float[np.ndarray, "b p"]) -> Float[np.ndarray, " b"]:
        centred = z.astype(np.float64) - self._spectrum.feature_mean
        inverse = 1 / (np.maximum(self._spectrum.values, 0.0) + self._penalty)
        of_intercept = 1 / self._spectrum.total_weight if self._fit_intercept else 0.0
        return (centred @ self._spectrum.vectors) ** 2 @ inverse + of_intercept
