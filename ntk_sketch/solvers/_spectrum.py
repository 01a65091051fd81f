"""One eigendecomposition in float64 on the host; after it every regulariser is cheap.

Notation: Z (n, p) features, Y (n, k) targets, λ >= 0. Both forms give the minimiser of
‖Z W - Y‖² + λ ‖W‖², at λ = 0 the one of least norm; or, with an intercept, the W and b that
minimise ‖Z W + 1 bᵀ - Y‖² + λ ‖W‖², which are those of centred features and targets.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from ..numerics._precision import on_device, promoted
from ..streaming._stream import Batch
from ._gram_state import GramState
from ._sums import project
from ._targets import Units, centred_units, scaled_units

_EPS = float(np.finfo(np.float64).eps)


class Spectrum(abc.ABC):
    """Eigenvalues s of ZᵀZ or ZZᵀ, and what a regression needs of the eigenvectors.

    A direction is *dropped* (a zero in place of 1 / (s + λ)) where s + λ is rounding error for
    certain. The evidence is in the spectrum itself: the matrix was positive semi-definite before
    rounding, so its most negative eigenvalue is at most the spectral norm of the error (Weyl);
    `floor` is twice that. At λ = 0, where no regulariser limits the weights, `cut` is used, which
    adds an a priori lower estimate of the error. Both err on the side of keeping: a direction of
    pure rounding that is kept has weights of the order ‖Y‖ / ‖Z‖, and hardly any effect on examples
    like those of the training; one that is dropped in error is lost.

    Attributes:
      n_examples: n.
      mean_square_norm: trace(ZZᵀ) / n, the unit of a relative regulariser; not centred.
      dtype: of the features.
      values: s, ascending, rounding below zero removed; p of them (primal) or n (dual, one less
        with an intercept).
      cut, floor: in the units of s.
      units: of targets inside; their shift is the mean of Y with an intercept, else 0.
      feature_mean: what features lose: their mean with an intercept, else 0.
      fit_intercept: whether there is an intercept.
      mean_to_spread: √(Σ mean² / Σ variance) of the targets over the outputs.
    """

    n_examples: int
    mean_square_norm: float
    dtype: np.dtype
    values: Float[np.ndarray, " r"]
    cut: float
    floor: float
    units: Units
    feature_mean: Float[np.ndarray, " p"]
    fit_intercept: bool
    mean_to_spread: float

    # A left-out residual comes from rows R of the examples: the residuals are `base * T + R C` and
    # the matrix (I - H) of hat matrix H is, up to a common factor, `base * I + R diag(d) Rᵀ`,
    # with (C, d) from `residual_system` and targets T in `units`.
    base: float
    leverage_tolerance: float

    def kept(self, penalty: float) -> np.ndarray:
        return self.values + penalty > (self.floor if penalty > 0 else self.cut)

    def inverse(self, penalty: float) -> Float[np.ndarray, " r"]:
        """1 / (s + λ), zero where dropped."""
        kept = self.kept(penalty)
        return np.where(kept, 1.0 / np.where(kept, self.values + penalty, 1.0), 0.0)

    def rank(self, penalty: float) -> int:
        """Number of directions that are not dropped."""
        return int(self.kept(penalty).sum())

    def condition(self, penalty: float) -> float:
        """(largest s + λ) / (smallest kept s + λ); infinite if all are dropped."""
        kept = self.values[self.kept(penalty)] + penalty
        return float(kept[-1] / kept[0]) if kept.size else float("inf")

    def intercept(self, weights: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " k"]:
        """b of the W(λ) given."""
        return self.units.shift - self.feature_mean @ weights

    @abc.abstractmethod
    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        """W(λ). Primal 2 p² k FLOPs, dual 2 n (n + p) k."""

    @abc.abstractmethod
    def residual_sums(self, penalty: float) -> tuple[float, float, float]:
        """`‖(I - H) T‖²` over all outputs, how much of it is rounding at most, and `trace(I - H)`;
        with the common factor of `residual_system`."""

    @abc.abstractmethod
    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        """The pair (C, d) of the note above."""

    @abc.abstractmethod
    def example_rows(
        self, features: Callable[..., Iterator[Batch]], order: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """Yields `(start, stop, R)` for the examples `order[start:stop]`."""


class PrimalSpectrum(Spectrum):
    """From the statistics alone: ZᵀZ = U diag(s) Uᵀ and c = Uᵀ ZᵀY.

    W = U diag(1 / (s + λ)) c. Cost: about 9 p³ FLOPs and 3 p² float64 numbers.
    """

    base = 1.0

    def __init__(self, state: GramState, fit_intercept: bool = False):
        self.n_examples = n = int(state.n_examples)
        self.dtype = np.dtype(state.gram.high.dtype)
        sums = state.to_host()
        if n < 1:
            raise ValueError("the GramState has seen no example: update it first")
        if not np.isfinite(sums.feature_norm):
            raise ValueError(
                f"the sum of the squared feature norms overflows {self.dtype}: scale the inputs or "
                "W_std down"
            )
        self.mean_square_norm = float(sums.feature_norm) / n
        self.fit_intercept = fit_intercept
        self.feature_mean = sums.feature_sum / n * fit_intercept
        units, inner_mean = state.units(), sums.target_sum / n
        spread = np.maximum(sums.target_norm / n - inner_mean**2, 0.0).sum()
        shifted = np.ldexp(units.shift, -units.exponent)
        self.mean_to_spread = _ratio(np.sum((shifted + inner_mean) ** 2), spread)
        # targets lose their mean, or get back what they were shifted by
        lost = inner_mean if fit_intercept else -shifted
        shift = units.shift + np.ldexp(inner_mean, units.exponent)
        self.units = Units(shift if fit_intercept else np.zeros_like(shift), units.exponent)
        cross = sums.cross - sums.feature_sum[:, None] * lost
        self._target_norm = sums.target_norm - n * lost * (2 * inner_mean - lost)
        gram = sums.gram
        if fit_intercept:
            gram = gram - n * np.outer(self.feature_mean, self.feature_mean)
        self.values, self.vectors, self.floor = _eigh(gram)
        # errors that were measured are a half to a 200th of the estimate (GramState)
        self.cut = max(self.floor, state.rounding_error() / 100)
        self._rotated = self.vectors.T @ cross
        # of one leverage, a sum of p rounded squares
        self.leverage_tolerance = 8 * float(np.sqrt(len(self.values)) * np.finfo(self.dtype).eps)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        inner = self.vectors @ (self.inverse(penalty)[:, None] * self._rotated)
        return np.ldexp(inner, self.units.exponent)

    def residual_sums(self, penalty: float) -> tuple[float, float, float]:
        inverse = self.inverse(penalty)
        explained = (2 * inverse - self.values * inverse**2) @ self._rotated**2
        residual = float((self._target_norm - explained).sum())
        rounding = float(np.finfo(self.dtype).eps * self._target_norm.sum())
        freedom = self.n_examples - self.fit_intercept - float(self.values @ inverse)
        return residual, rounding, freedom

    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        inverse = self.inverse(penalty)
        coefficients, diagonal = -inverse[:, None] * self._rotated, -inverse
        if not self.fit_intercept:
            return coefficients, diagonal
        # the mean of T is 0 already; 1/n is the intercept's own share of every leverage
        none = np.zeros((1, coefficients.shape[1]))
        return np.concatenate([coefficients, none]), np.append(diagonal, -1.0)

    def example_rows(
        self, features: Callable[..., Iterator[Batch]], order: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """R = Z U, or [(Z - mean) U, 1 / √n]: a second pass over the features, and 2 n p² FLOPs on
        the device."""
        vectors = on_device(self.vectors, self.dtype)
        mean = self.feature_mean @ self.vectors
        for start, stop, z in features(order):
            rows = np.asarray(project(z, vectors))[: stop - start].astype(np.float64)
            if self.fit_intercept:
                constant = np.full((len(rows), 1), self.n_examples**-0.5)
                rows = np.concatenate([rows - mean, constant], axis=1)
            yield start, stop, rows


class DualSpectrum(Spectrum):
    """From the features themselves: ZZᵀ = U diag(s) Uᵀ and q = Uᵀ Y; for n <= p.

    W = Zᵀ U diag(1 / (s + λ)) q. Cost: 2 n² p + 9 n³ FLOPs; 3 n² float64 numbers and the features.
    """

    base = 0.0

    def __init__(
        self,
        z: Float[np.ndarray, "n p"],
        y: Float[np.ndarray, "n k"],
        fit_intercept: bool = False,
    ):
        self.n_examples = len(z)
        self.dtype = promoted(z.dtype, jnp.float32)
        self.fit_intercept = fit_intercept
        self.mean_to_spread = _ratio(np.sum(y.mean(axis=0) ** 2), np.sum(y.var(axis=0)))
        self.units = centred_units(y, np.float64) if fit_intercept else scaled_units(y)
        self._features = z
        self.feature_mean = z.mean(axis=0, dtype=np.float64) * fit_intercept
        kernel = np.zeros((len(z), len(z)))
        for start in range(0, z.shape[1], 4096):  # no float64 copy of all features
            part = z[:, start : start + 4096].astype(np.float64)
            kernel += part @ part.T
        trace = float(np.trace(kernel))
        self.mean_square_norm = trace / len(z)
        if fit_intercept:
            kernel = _without_ones(_without_ones(kernel).T)
        self.values, self.vectors, self.floor = _eigh(kernel)
        if fit_intercept:
            self.vectors = _with_ones(self.vectors)
        # the features are rounded themselves: an error E of relative size eps in every entry moves
        # the singular values of Z by at most ‖E‖ <= eps ‖Z‖_F (Weyl)
        self.cut = max(self.floor, float(np.finfo(self.dtype).eps) ** 2 * trace)
        self._rotated = self.vectors.T @ self.units.of(y)
        self.leverage_tolerance = len(z) * _EPS

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        dual = self.vectors @ (self.inverse(penalty)[:, None] * self._rotated)
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
        self, features: Callable[..., Iterator[Batch]], order: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """R = U; no second pass."""
        for start in range(0, len(order), 1024):
            stop = min(start + 1024, len(order))
            yield start, stop, self.vectors[order[start:stop]]


def _eigh(matrix: Float[np.ndarray, "r r"]) -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues without what is below zero, eigenvectors, and `Spectrum.floor`."""
    # the transpose is in Fortran order and is overwritten; numbers are finite by earlier checks
    values, vectors = scipy.linalg.eigh(
        matrix.T, driver="evd", overwrite_a=True, check_finite=False
    )
    floor = max(len(values) * _EPS * float(values[-1]), -2.0 * float(values[0]), 0.0)
    return np.maximum(values, 0.0), vectors, floor


def _reflection(n: int) -> Float[np.ndarray, " n"]:
    """`v` of the Householder reflection `I - v vᵀ` that takes `1 / √n` to the first unit vector."""
    v = np.full(n, n**-0.5)
    v[0] -= 1.0
    return v * np.sqrt(2.0) / np.linalg.norm(v)


def _without_ones(matrix: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "m r"]:
    """Columns in an orthonormal basis of what is orthogonal to the vector of ones, m = n - 1."""
    v = _reflection(len(matrix))
    return matrix[1:] - v[1:, None] * (v @ matrix)


def _with_ones(matrix: Float[np.ndarray, "m r"]) -> Float[np.ndarray, "n r"]:
    """The columns of `_without_ones` back in n coordinates."""
    v = _reflection(len(matrix) + 1)
    full = -v[:, None] * (v[1:] @ matrix)
    full[1:] += matrix
    return full


def _ratio(mean_square: float, variance: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.sqrt(np.divide(mean_square, variance))) if mean_square > 0 else 0.0
