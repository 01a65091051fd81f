"""One eigendecomposition in float64 on the host; after it every regulariser is cheap.

Notation: Z (n, p) features, Y (n, k) targets, λ >= 0. Both forms give the minimiser of
‖Z W - Y‖² + λ ‖W‖², at λ = 0 the one of least norm.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from ._gram_state import GramState
from ._streaming import FeatureStream, project

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
      mean_square_norm: trace(ZZᵀ) / n, the unit of a relative regulariser.
      dtype: of the features.
      values: s, ascending, rounding below zero removed; p of them (primal) or n (dual).
      cut, floor: in the units of s.
    """

    n_examples: int
    mean_square_norm: float
    dtype: np.dtype
    values: Float[np.ndarray, " r"]
    cut: float
    floor: float

    # A left-out residual comes from rows R of the examples: the residuals are `base * Y + R C` and
    # the matrix (I - H) of hat matrix H is, up to a common factor, `base * I + R diag(d) Rᵀ`,
    # with (C, d) from `residual_system`.
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

    @abc.abstractmethod
    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        """W(λ). Primal 2 p² k FLOPs, dual 2 n (n + p) k."""

    @abc.abstractmethod
    def gcv(self, penalty: float) -> float:
        """Generalised cross-validation, divided by the number of outputs; see `GCV`."""

    @abc.abstractmethod
    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        """The pair (C, d) of the note above."""

    @abc.abstractmethod
    def example_rows(
        self, features: FeatureStream, order: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """Yields `(start, stop, R)` for the examples `order[start:stop]`."""


class PrimalSpectrum(Spectrum):
    """From the statistics alone: ZᵀZ = U diag(s) Uᵀ and c = Uᵀ ZᵀY.

    W = U diag(1 / (s + λ)) c. Cost: about 9 p³ FLOPs and 3 p² float64 numbers.
    """

    base = 1.0

    def __init__(self, state: GramState):
        self.n_examples = int(state.n_examples)
        self.dtype = np.dtype(state.gram.high.dtype)
        trace = float(state.feature_norm.to_host())
        if self.n_examples < 1:
            raise ValueError("the GramState has seen no example: update it first")
        if not np.isfinite(trace):
            raise ValueError(
                f"the sum of the squared feature norms overflows {self.dtype}: scale the inputs or "
                "W_std down"
            )
        self.mean_square_norm = trace / self.n_examples
        self.values, self.vectors, self.floor = _eigh(state.gram.to_host())
        # errors that were measured are a half to a 200th of the estimate (GramState)
        self.cut = max(self.floor, state.rounding_error() / 100)
        self._rotated = self.vectors.T @ state.cross.to_host()
        self._target_norm = state.target_norm.to_host()
        # of one leverage, a sum of p rounded squares
        self.leverage_tolerance = 8 * float(np.sqrt(len(self.values)) * np.finfo(self.dtype).eps)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        return self.vectors @ (self.inverse(penalty)[:, None] * self._rotated)

    def gcv(self, penalty: float) -> float:
        n, k = self.n_examples, self._rotated.shape[1]
        inverse = self.inverse(penalty)
        explained = (2 * inverse - self.values * inverse**2) @ self._rotated**2
        # below this the difference is the rounding error of YᵀY
        floor = float(np.finfo(self.dtype).eps) * self._target_norm
        residual = np.maximum(self._target_norm - explained, floor).sum()
        freedom = n - self.values @ inverse
        if freedom <= n * self.leverage_tolerance:
            return float("inf")
        return float(n * residual / freedom**2 / k)

    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        inverse = self.inverse(penalty)
        return -inverse[:, None] * self._rotated, -inverse

    def example_rows(
        self, features: FeatureStream, order: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """R = Z U: a second pass over the features, and 2 n p² FLOPs on the device."""
        vectors = jnp.asarray(self.vectors.astype(self.dtype))
        for start, stop, z in features(order):
            yield start, stop, np.asarray(project(z, vectors))[: stop - start].astype(np.float64)


class DualSpectrum(Spectrum):
    """From the features themselves: ZZᵀ = U diag(s) Uᵀ and q = Uᵀ Y; for n <= p.

    W = Zᵀ U diag(1 / (s + λ)) q. Cost: 2 n² p + 9 n³ FLOPs; 3 n² float64 numbers and the features.
    """

    base = 0.0

    def __init__(self, z: Float[np.ndarray, "n p"], y: Float[np.ndarray, "n k"]):
        self.n_examples = len(z)
        self.dtype = np.dtype(jnp.promote_types(z.dtype, jnp.float32))
        self._features = z
        kernel = np.zeros((len(z), len(z)))
        for start in range(0, z.shape[1], 4096):  # no float64 copy of all features
            part = z[:, start : start + 4096].astype(np.float64)
            kernel += part @ part.T
        trace = float(np.trace(kernel))
        self.mean_square_norm = trace / len(z)
        self.values, self.vectors, self.floor = _eigh(kernel)
        # the features are rounded themselves: an error E of relative size eps in every entry moves
        # the singular values of Z by at most ‖E‖ <= eps ‖Z‖_F (Weyl)
        self.cut = max(self.floor, float(np.finfo(self.dtype).eps) ** 2 * trace)
        self._rotated = self.vectors.T @ y.astype(np.float64)
        self.leverage_tolerance = len(z) * _EPS

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        dual = self.vectors @ (self.inverse(penalty)[:, None] * self._rotated)
        parts = [
            self._features[:, start : start + 4096].astype(np.float64).T @ dual
            for start in range(0, self._features.shape[1], 4096)
        ]
        return np.concatenate(parts)

    def _residual_filter(self, penalty: float) -> Float[np.ndarray, " n"]:
        """I - H = U diag(·) Uᵀ: λ / (s + λ), one where dropped. Where that is all zero (λ = 0 at
        full rank, an interpolant), its limit up to the factor λ, which every use divides out."""
        inverse = self.inverse(penalty)
        complement = np.where(self.kept(penalty), penalty * inverse, 1.0)
        return complement if complement.any() else inverse

    def gcv(self, penalty: float) -> float:
        residual_filter = self._residual_filter(penalty)
        residual = (residual_filter**2 @ self._rotated**2).sum()
        n, k = self._rotated.shape
        return float(n * residual / residual_filter.sum() ** 2 / k)

    def residual_system(
        self, penalty: float
    ) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " r"]]:
        residual_filter = self._residual_filter(penalty)
        return residual_filter[:, None] * self._rotated, residual_filter

    def example_rows(
        self, features: FeatureStream, order: Int[np.ndarray, " n"]
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
