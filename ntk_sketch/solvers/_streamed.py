"""Regressions by products with streamed features, without their Gram matrix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..numerics._precision import on_device, promoted
from ..streaming._batches import Batches
from ..streaming._computed import Part
from ..streaming._feature_stream import FeatureStream
from . import _sums
from ._checks import check_range
from ._conjugate_gradient import ConjugateGradient, Report
from ._decomposition import Decomposition, Roots, Rows
from ._normal_equations import Centred
from ._nystroem_inverse import NystroemInverse
from ._targets import Units, centred_units

_NO_HAT = "the hat matrix needs a decomposition, which conjugate gradients do without"


class _Source(NamedTuple):
    """Examples that are read again in every pass."""

    x: Any
    y: Float[np.ndarray, "n k"] | None
    order: Int[np.ndarray, " m"] | None
    sample_weight: Float[np.ndarray, " n"] | None


class Streamed:
    """Examples of a regression by conjugate gradients; `plus` adds some, as that of `Examples`."""

    def __init__(
        self,
        features: FeatureStream,
        one_output: bool,
        solver: ConjugateGradient,
        sources: tuple[_Source, ...] = (),
    ):
        self.features, self.one_output = features, one_output
        self._solver, self._sources = solver, sources
        self._moments: _Moments | None = None

    def plus(self, x, y, order=None, run=None, sample_weight=None) -> Streamed:
        if run is not None:
            raise ValueError(
                "checkpoint is of statistics, and conjugate gradients make none: leave it out, or"
                " solver=None"
            )
        if isinstance(x, Batches):
            x.check_passes("conjugate gradients, with a pass for every iteration,")
        more = (*self._sources, _Source(x, y, order, sample_weight))
        return Streamed(self.features, self.one_output, self._solver, more)

    @property
    def n_examples(self) -> int:
        return self._found().n

    def decomposition(self, fit_intercept: bool, whole: bool, path: int) -> Iterative:
        del whole, path
        return Iterative(self, self._found(), self._solver, fit_intercept)

    def parts(self) -> Iterator[Part]:
        for x, y, order, weights in self._sources:
            yield from self.features.with_targets(x, y, order, sample_weight=weights)

    def _found(self) -> _Moments:
        if self._moments is None:
            self._moments = _moments(self)
        return self._moments


class _Moments(NamedTuple):
    """Sums of one pass, of targets in units."""

    cross: Float[np.ndarray, "p k"]
    feature_sum: Float[np.ndarray, " p"]
    target_sum: Float[np.ndarray, " k"]
    target_norm: Float[np.ndarray, " k"]
    feature_norm: float
    weight: float
    n: int
    units: Units
    dtype: np.dtype


def _moments(examples: Streamed) -> _Moments:
    """The sums of `GramState` but the Gram matrix."""
    units, dtype, n, largest = None, np.dtype(np.float32), 0, 0.0
    sums: list[Any] = [0.0] * 6
    for part in examples.parts():
        y, count = part.y, part.stop - part.start
        assert y is not None
        weights = np.ones(count) if part.sample_weight is None else part.sample_weight
        units, dtype = units or centred_units(y, np.float64), np.dtype(part.z.dtype)
        z, t = np.asarray(part.z)[:count].astype(np.float64), units.of(y)
        for i, more in enumerate(
            (
                (z * weights[:, None]).T @ t,
                weights @ z,
                weights @ t,
                weights @ t**2,
                weights @ np.sum(z**2, axis=1),
                weights.sum(),
            )
        ):
            sums[i] = sums[i] + more
        n, largest = n + int(np.sum(weights > 0)), max(largest, float(np.abs(y).max()))
    if units is None or not n:
        raise ValueError("no example (of weight > 0) is left to fit: all of them are set aside")
    check_range(largest, dtype)
    return _Moments(*sums, n=n, units=units, dtype=dtype)


@jax.jit
def _turned(
    z: Float[Array, "b p"],
    v: Float[Array, "p k"],
    at_mean: Float[Array, " k"],
    weights: Float[Array, " b"],
) -> Float[Array, "p k"]:
    """Zᵀ D (Z V - 1 m) of one batch."""
    z, highest = z.astype(v.dtype), jax.lax.Precision.HIGHEST
    inner = jnp.matmul(z, v, precision=highest) - at_mean[None]
    return jnp.matmul(z.T, weights[:, None] * inner, precision=highest)


class Iterative(Decomposition):
    """Weights by conjugate gradients; what needs the hat matrix is not there."""

    base, leverage_tolerance = 1.0, 0.0

    def __init__(
        self, examples: Streamed, sums: _Moments, solver: ConjugateGradient, fit_intercept: bool
    ):
        self._examples, self._solver = examples, solver
        self.n_examples, self.total_weight = sums.n, float(sums.weight)
        self.weighted = False
        self.dtype = np.dtype(promoted(sums.dtype, jnp.float32))
        self.mean_square_norm = float(sums.feature_norm) / self.total_weight
        self.fit_intercept = fit_intercept
        centred = Centred.of(sums, sums.units, fit_intercept)
        self.feature_mean, self.units = centred.feature_mean, centred.units
        self.mean_to_spread, self._right = centred.mean_to_spread, centred.cross
        eps = float(np.finfo(np.float64 if _sums._on_host() else self.dtype).eps)
        self._nearly = NystroemInverse(self._product, self.size, solver.rank, eps)
        self._solved: dict[float, np.ndarray] = {}
        self._reports: dict[float, Report] = {}

    @property
    def size(self) -> int:
        return len(self._right)

    def rank(self, penalty: float) -> int:
        return self.size

    def condition(self, penalty: float) -> float:
        """With λ for the smallest eigenvalue: an estimate from above."""
        return (self._nearly.largest + penalty) / penalty

    def deficiency(self, penalty: float) -> str:
        return ""

    def report(self, penalty: float) -> Report | None:
        return self._reports.get(penalty)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        if penalty not in self._solved:
            nearest = min(self._solved, key=lambda p: abs(np.log(p / penalty)), default=None)
            start = None if nearest is None else self._solved[nearest]
            w, report = self._solver.solve(
                lambda v: self._product(v) + penalty * v,
                self._nearly.at(penalty),
                self._right,
                start,
            )
            self._solved[penalty], self._reports[penalty] = w, report
            if not report.converged:
                self._warn(penalty, report)
        return np.ldexp(self._solved[penalty], self.units.exponent)

    def residuals(
        self, penalties: Sequence[float], weights: Sequence[Float[np.ndarray, "p k"]]
    ) -> list[float]:
        """Those of the reports, of the worst output."""
        return [self._reports[penalty].residual for penalty in penalties]

    def _product(self, v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
        """ZᵀZ V of centred features: Zᵀ D (Z - 1 mean) V, since Σ w (z - mean) is 0."""
        on_host, at_mean = _sums._on_host(), self.feature_mean @ v
        total, devices = np.zeros_like(v), self._examples.features.devices
        if not on_host:
            on_chip = on_device(v, self.dtype), on_device(at_mean, self.dtype)
            on_chip = devices.put_whole(on_chip)
        for part in self._examples.parts():
            count, weights = part.stop - part.start, part.sample_weight
            if on_host:
                z = np.asarray(part.z)[:count].astype(np.float64)
                inner = z @ v - at_mean
                total += z.T @ (inner if weights is None else weights[:, None] * inner)
            else:
                padded = np.zeros(len(part.z), self.dtype)
                padded[:count] = 1.0 if weights is None else weights
                z, padded = devices.put(part.z), devices.put(padded)
                total += np.asarray(_turned(z, *on_chip, padded)).astype(np.float64)
        return total

    def _warn(self, penalty: float, report: Report) -> None:
        solver = self._solver
        why = (
            f"after {report.iterations} iterations"
            if report.iterations >= solver.max_iterations
            else f"and does not fall any more after {report.iterations} iterations (rounding)"
        )
        warnings.warn(
            f"conjugate gradients have not converged at λ = {penalty:.3g}: the relative residual is"
            f" {report.residual:.2g} {why}, above the tolerance of {solver.tolerance:g}; the"
            f" preconditioned system has a condition number of {report.condition:.3g} or more. Use"
            f" a larger rank= than {solver.rank}, more max_iterations=, a larger tolerance= or"
            " a larger diag_reg",
            RuntimeWarning,
            stacklevel=5,
        )

    def residual_sums(self, penalty: float) -> tuple[float, float, float]:
        raise NotImplementedError(_NO_HAT)

    def example_rows(self, features: Rows, order: Int[np.ndarray, " n"], roots: Roots = None):
        raise NotImplementedError(_NO_HAT)

    def left_out(self, rows, y, penalty: float, roots: Roots = None):
        raise NotImplementedError(_NO_HAT)
