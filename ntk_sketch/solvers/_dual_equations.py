"""ZZᵀ + λI of a dual regression, and its right-hand sides, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._typing import Inputs
from ..numerics import _linalg
from ..numerics._precision import float64, promoted
from ._decomposition import Decomposition, residuals_of, scaled
from ._targets import Units, centred_units, mean_to_spread, scaled_units, weighted_mean

_COLUMNS = 4096  # of features in float64 at a time
_ROWS = 1024  # examples that are left out at a time


@dataclass(frozen=True)
class DualEquations:
    """(kernel + λ I) A = targets, W = Zᵀ A, of features and targets that are centred if there is an
    intercept; for n <= p.

    With weights these are √D Z and √D Y, of the examples of weight > 0. With an intercept kernel
    and A are in an orthonormal basis of the n - 1 directions without the constant.

    Attributes:
      kernel: ZZᵀ (s, s), s = n or n - 1. On a GPU if there is one.
      targets: (n, k), in `units`.
      features: (n, p), neither weighted nor centred.
      roots: √w (n,).
      rounding_error: estimate from below of the spectral norm of the error of `kernel`.
      place: where an example is among those of weight > 0; None: all are.
      other: as in `Decomposition`.
    """

    kernel: Float[Inputs, "s s"]
    targets: Float[np.ndarray, "n k"]
    features: Float[np.ndarray, "n p"]
    roots: Float[np.ndarray, " n"]
    rounding_error: float
    place: Int[np.ndarray, " m"] | None
    n_examples: int
    total_weight: float
    weighted: bool
    dtype: np.dtype
    mean_square_norm: float
    feature_mean: Float[np.ndarray, " p"]
    units: Units
    mean_to_spread: float
    fit_intercept: bool

    @classmethod
    def of(
        cls,
        z: Float[np.ndarray, "m p"],
        y: Float[np.ndarray, "m k"],
        fit_intercept: bool = False,
        sample_weight: Float[np.ndarray, " m"] | None = None,
    ) -> DualEquations:
        y, weighted, place = y.astype(np.float64), sample_weight is not None, None
        if sample_weight is None:
            sample_weight = np.ones(len(z))
        elif not sample_weight.all():
            kept = sample_weight > 0
            place = np.cumsum(kept) - 1
            z, y, sample_weight = z[kept], y[kept], sample_weight[kept]
        roots, total = np.sqrt(sample_weight), float(sample_weight.sum())
        mean = weighted_mean(y, sample_weight)
        spread = weighted_mean((y - mean) ** 2, sample_weight)
        of_mean = sample_weight if weighted else None
        units = centred_units(y, np.float64, of_mean) if fit_intercept else scaled_units(y)
        means = [weighted_mean(part, sample_weight) for _, part in in_float64(z)]
        kernel = _kernel(z, roots)
        trace = float(_linalg.diagonal(kernel).sum())
        if fit_intercept:
            constant = roots * total**-0.5
            with float64():
                kernel = _without(_without(kernel, constant).T, constant)
        dtype = promoted(z.dtype, jnp.float32)
        return cls(
            kernel=kernel,
            targets=scaled(units.of(y), roots),
            features=z,
            roots=roots,
            # the features are rounded themselves: an error E of relative size eps in every entry
            # moves the singular values of Z by at most ‖E‖ <= eps ‖Z‖_F (Weyl)
            rounding_error=float(np.finfo(dtype).eps) ** 2 * trace,
            place=place,
            n_examples=len(z),
            total_weight=total,
            weighted=weighted,
            dtype=dtype,
            mean_square_norm=trace / total,
            feature_mean=np.concatenate(means) * fit_intercept,
            units=units,
            mean_to_spread=mean_to_spread(np.sum(mean**2), np.sum(spread)),
            fit_intercept=fit_intercept,
        )

    @property
    def _constant(self) -> Float[np.ndarray, " n"]:
        return self.roots * self.total_weight**-0.5

    def without_constant(self, columns: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "s r"]:
        """In the coordinates of `kernel`."""
        return _without(columns, self._constant) if self.fit_intercept else columns

    def with_constant(self, columns: Any) -> Any:  # s to n rows; of NumPy, or of JAX on a GPU
        """The columns of `without_constant` back in n coordinates."""
        if not self.fit_intercept:
            return columns
        with float64():
            return _with(columns, self._constant)

    def onto_features(self, columns: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "p k"]:
        """Zᵀ √D times columns."""
        columns = scaled(columns, self.roots)
        return np.concatenate([part.T @ columns for _, part in in_float64(self.features)])

    def places(
        self, order: Int[np.ndarray, " b"]
    ) -> Iterator[tuple[int, int, Int[np.ndarray, " c"]]]:
        """Rows of the features of the examples `order[start:stop]`, all of weight > 0."""
        order = order if self.place is None else self.place[order]
        for start in range(0, len(order), _ROWS):
            stop = min(start + _ROWS, len(order))
            yield start, stop, order[start:stop]


class DualDecomposition(Decomposition):
    """What every decomposition of dual equations says of itself."""

    base = 0.0

    def __init__(self, equations: DualEquations):
        self.equations = equations
        self.n_examples = equations.n_examples
        self.total_weight, self.weighted = equations.total_weight, equations.weighted
        self.dtype = equations.dtype
        self.mean_square_norm = equations.mean_square_norm
        self.feature_mean = equations.feature_mean
        self.units = equations.units
        self.mean_to_spread = equations.mean_to_spread
        self.fit_intercept = equations.fit_intercept
        self.leverage_tolerance = self.n_examples * float(np.finfo(np.float64).eps)

    def residuals(
        self, penalties: Sequence[float], weights: Sequence[Float[np.ndarray, "p k"]]
    ) -> list[float]:
        w = np.ldexp(np.concatenate(weights, axis=1), -self.units.exponent)
        found = self.equations
        fitted = sum(part @ w[columns] for columns, part in in_float64(found.features))
        errors = scaled(fitted - self.feature_mean @ w, found.roots)
        errors -= np.tile(found.targets, len(penalties))
        # with an intercept both have mean 0, so that the mean of Z meets nothing
        products, cross = found.onto_features(errors), found.onto_features(found.targets)
        return residuals_of(products, w, penalties, cross)


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


def _without(matrix: Any, u: Float[np.ndarray, " n"]) -> Any:
    """Columns in an orthonormal basis of what is orthogonal to u, m = n - 1."""
    v = _reflection(u)
    return matrix[1:] - _linalg.namespace(matrix).outer(v[1:], v @ matrix)


def _with(matrix: Float[Inputs, "m r"], u: Float[np.ndarray, " n"]) -> Float[Inputs, "n r"]:
    """The columns of `_without` back in n coordinates."""
    v = _reflection(u)
    xp = _linalg.namespace(matrix)
    share = v[1:] @ matrix
    return xp.concatenate([xp.outer(-v[:1], share), matrix - xp.outer(v[1:], share)])
