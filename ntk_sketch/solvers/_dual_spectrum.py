"""Dual regressions, from the features themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._typing import Inputs
from ..numerics import _linalg
from ..numerics._precision import float64, promoted
from ._decomposition import Roots, Rows, residuals_of, scaled
from ._spectrum import Spectrum, eigh
from ._targets import centred_units, mean_to_spread, scaled_units, weighted_mean

_COLUMNS = 4096  # of features in float64 at a time


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
        means = [weighted_mean(part, sample_weight) for _, part in in_float64(z)]
        self.feature_mean = np.concatenate(means) * fit_intercept
        kernel = _kernel(z, roots)
        trace = float(_linalg.diagonal(kernel).sum())
        self.mean_square_norm = trace / self.total_weight
        constant = roots * self.total_weight**-0.5
        if fit_intercept:
            with float64():
                kernel = _without(_without(kernel, constant).T, constant)
        self.values, self.vectors, self.floor = eigh(kernel)
        if fit_intercept:
            with float64():
                self.vectors = _with(self.vectors, constant)
        # the features are rounded themselves: an error E of relative size eps in every entry moves
        # the singular values of Z by at most ‖E‖ <= eps ‖Z‖_F (Weyl)
        self.cut = max(self.floor, float(np.finfo(self.dtype).eps) ** 2 * trace)
        self._targets = scaled(self.units.of(y), roots)
        self._rotated = _linalg.transposed_product(self.vectors, self._targets)
        self.leverage_tolerance = len(z) * float(np.finfo(np.float64).eps)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        dual = _linalg.product(self.vectors, self.inverse(penalty)[:, None] * self._rotated)
        return np.ldexp(self._onto_features(dual), self.units.exponent)

    def residuals(
        self, penalties: Sequence[float], weights: Sequence[Float[np.ndarray, "p k"]]
    ) -> list[float]:
        w = np.ldexp(np.concatenate(weights, axis=1), -self.units.exponent)
        fitted = sum(part @ w[columns] for columns, part in in_float64(self._features))
        errors = scaled(fitted - self.feature_mean @ w, self._roots)
        errors -= np.tile(self._targets, len(penalties))
        # with an intercept both have mean 0, so that the mean of Z meets nothing
        products, cross = self._onto_features(errors), self._onto_features(self._targets)
        return residuals_of(products, w, penalties, cross)

    def _onto_features(self, columns: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "p k"]:
        """Zᵀ √D times columns."""
        columns = scaled(columns, self._roots)
        return np.concatenate([part.T @ columns for _, part in in_float64(self._features)])

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
            yield start, stop, _linalg.rows(self.vectors, order[start:stop])


def _kernel(z: Float[np.ndarray, "n p"], roots: Float[np.ndarray, " n"]) -> Float[Inputs, "n n"]:
    """√D ZZᵀ √D."""
    kernel: Any = 0.0
    with float64():
        for start in range(0, z.shape[1], _COLUMNS):
            part = _linalg.at_home(z[:, start : start + _COLUMNS]) * roots[:, None]
            kernel += part @ part.T
    return kernel


def in_float64(
    z: Float[np.ndarray, "n p"],
) -> Iterator[tuple[slice, Float[np.ndarray, "n c"]]]:
    """Some columns at a time, so that there is no float64 copy of all features."""
    for start in range(0, z.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        yield columns, z[:, columns].astype(np.float64)


def _reflection(u: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """`v` of the Householder reflection `I - v vᵀ` that takes u > 0 (of norm 1) to minus the first
    unit vector."""
    v = u.copy()
    v[0] += 1.0
    return v * np.sqrt(2.0) / np.linalg.norm(v)


def _without(matrix: Float[Inputs, "n r"], u: Float[np.ndarray, " n"]) -> Float[Inputs, "m r"]:
    """Columns in an orthonormal basis of what is orthogonal to u, m = n - 1."""
    v = _reflection(u)
    return matrix[1:] - _linalg.namespace(matrix).outer(v[1:], v @ matrix)


def _with(matrix: Float[Inputs, "m r"], u: Float[np.ndarray, " n"]) -> Float[Inputs, "n r"]:
    """The columns of `_without` back in n coordinates."""
    v = _reflection(u)
    xp = _linalg.namespace(matrix)
    share = v[1:] @ matrix
    return xp.concatenate([xp.outer(-v[:1], share), matrix - xp.outer(v[1:], share)])
