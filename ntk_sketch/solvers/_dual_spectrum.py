"""Dual regressions, from the features themselves."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..numerics._precision import promoted
from ._decomposition import Roots, Rows, scaled
from ._spectrum import Spectrum, eigh
from ._targets import centred_units, mean_to_spread, scaled_units, weighted_mean


class DualSpectrum(Spectrum):
    """From the features themselves: ZZᵀ = U diag(s) Uᵀ and q = Uᵀ Y; for n <= p.

    W = Zᵀ U diag(1 / (s + λ)) q. Cost: 2 n² p + 9 n³ FLOPs; 3 n² float64 numbers and the features.
    With weights these are √D Z and √D Y, of the examples of weight > 0.
    """

    base = 0.0

    def __init__(
        self,
        z: Float[np.ndarray, "n p"],
        y: Float[np.ndarray, "n k"],
        fit_intercept: bool = False,
        sample_weight: Float[np.ndarray, " n"] | None = None,
    ):
        y, self._place = y.astype(np.float64), None
        self.weighted = sample_weight is not None
        if sample_weight is None:
            sample_weight = np.ones(len(z))
        elif not sample_weight.all():
            kept = sample_weight > 0
            self._place = np.cumsum(kept) - 1
            z, y, sample_weight = z[kept], y[kept], sample_weight[kept]
        roots = np.sqrt(sample_weight)
        self.n_examples, self.total_weight = len(z), float(sample_weight.sum())
        self.dtype = promoted(z.dtype, jnp.float32)
        self.fit_intercept = fit_intercept
        mean = weighted_mean(y, sample_weight)
        spread = weighted_mean((y - mean) ** 2, sample_weight)
        self.mean_to_spread = mean_to_spread(np.sum(mean**2), np.sum(spread))
        of_mean = sample_weight if self.weighted else None
        self.units = centred_units(y, np.float64, of_mean) if fit_intercept else scaled_units(y)
        self._features, self._roots = z, roots
        self.feature_mean = np.zeros(z.shape[1])
        kernel = np.zeros((len(z), len(z)))
        for start in range(0, z.shape[1], 4096):  # no float64 copy of all features
            part = z[:, start : start + 4096].astype(np.float64)
            self.feature_mean[start : start + 4096] = weighted_mean(part, sample_weight)
            part *= roots[:, None]
            kernel += part @ part.T
        self.feature_mean *= fit_intercept
        trace = float(np.trace(kernel))
        self.mean_square_norm = trace / self.total_weight
        constant = roots * self.total_weight**-0.5
        if fit_intercept:
            kernel = _without(_without(kernel, constant).T, constant)
        self.values, self.vectors, self.floor = eigh(kernel)
        if fit_intercept:
            self.vectors = _with(self.vectors, constant)
        # the features are rounded themselves: an error E of relative size eps in every entry moves
        # the singular values of Z by at most ‖E‖ <= eps ‖Z‖_F (Weyl)
        self.cut = max(self.floor, float(np.finfo(self.dtype).eps) ** 2 * trace)
        self._rotated = self.vectors.T @ scaled(self.units.of(y), roots)
        self.leverage_tolerance = len(z) * float(np.finfo(np.float64).eps)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        dual = self.vectors @ (self.inverse(penalty)[:, None] * self._rotated)
        dual = scaled(dual, self._roots)
        parts = [
            self._features[:, start : start + 4096].astype(np.float64).T @ dual
            for start in range(0, self._features.shape[1], 4096)
        ]
        return np.ldexp(np.concatenate(parts), self.units.exponent)

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
        order = order if self._place is None else self._place[order]
        for start in range(0, len(order), 1024):
            stop = min(start + 1024, len(order))
            yield start, stop, self.vectors[order[start:stop]]


def _reflection(u: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """`v` of the Householder reflection `I - v vᵀ` that takes u > 0 (of norm 1) to minus the first
    unit vector."""
    v = u.copy()
    v[0] += 1.0
    return v * np.sqrt(2.0) / np.linalg.norm(v)


def _without(
    matrix: Float[np.ndarray, "n r"], u: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "m r"]:
    """Columns in an orthonormal basis of what is orthogonal to u, m = n - 1."""
    v = _reflection(u)
    return matrix[1:] - v[1:, None] * (v @ matrix)


def _with(matrix: Float[np.ndarray, "m r"], u: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n r"]:
    """The columns of `_without` back in n coordinates."""
    v = _reflection(u)
    full = -v[:, None] * (v[1:] @ matrix)
    full[1:] += matrix
    return full
