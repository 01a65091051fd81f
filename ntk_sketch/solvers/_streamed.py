"""Regressions by products with streamed features, without their Gram matrix."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..numerics._precision import float64, on_device, promoted
from ..parallel._led import Led
from ..streaming._feature_stream import FeatureStream
from ..streaming._passes import Passes
from . import _sums
from ._conjugate_gradient import ConjugateGradient, Map, Report
from ._decomposition import Decomposition, Roots, Rows
from ._moments import Moments, checked_moments
from ._normal_equations import Centred
from ._nystroem_inverse import NystroemInverse

_NO_HAT = "the hat matrix needs a decomposition, which conjugate gradients do without"


class Streamed:
    """Examples of a regression by conjugate gradients; `plus` adds some, as that of `Examples`."""

    def __init__(
        self,
        features: FeatureStream,
        one_output: bool,
        solver: ConjugateGradient,
        passes: Passes | None = None,
    ):
        self.features, self.one_output = features, one_output
        self._solver, self.passes = solver, passes or Passes(features)
        self._moments: Moments | None = None

    def plus(self, x, y, order=None, run=None, sample_weight=None) -> Streamed:
        if run is not None:
            raise ValueError(
                "checkpoint is of statistics, and conjugate gradients make none: leave it out, or"
                " solver=None"
            )
        what = "conjugate gradients, with a pass for every iteration,"
        more = self.passes.plus(what, x, y, order, sample_weight)
        return Streamed(self.features, self.one_output, self._solver, more)

    @property
    def n_examples(self) -> int:
        return self._found().n

    def decomposition(self, fit_intercept: bool, whole: bool, path: int) -> Iterative:
        del whole, path
        return Iterative(self, self._found(), self._solver, fit_intercept)

    def _found(self) -> Moments:
        if self._moments is None:
            devices = self.features.devices
            with devices.together():
                own = Moments.of(self.passes)
            self._moments = checked_moments(Moments.over_processes(own, devices))
        return self._moments


@jax.jit
def _turned(
    z: Float[Array, "b p"],
    v: Float[Array, "p k"],
    mean: Float[Array, " p"],
    weights: Float[Array, " b"],
) -> Float[Array, "p k"]:
    """(Z - 1 mean)ᵀ D (Z - 1 mean) V of one batch."""
    z, highest = z.astype(v.dtype) - mean[None], jax.lax.Precision.HIGHEST
    inner = jnp.matmul(z, v, precision=highest)
    return jnp.matmul(z.T, weights[:, None] * inner, precision=highest)


class Iterative(Decomposition):
    """Weights by conjugate gradients; what needs the hat matrix is not there."""

    base, leverage_tolerance = 1.0, 0.0

    def __init__(
        self, examples: Streamed, sums: Moments, solver: ConjugateGradient, fit_intercept: bool
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
        self._mean = sums.feature_sum / self.total_weight
        self._led = Led([self._own_product, self._exactly], examples.features.devices)
        self.preconditioner: NystroemInverse | None = None  # of the process that iterates
        (largest,) = self._led.found(self._prepared)
        self._largest = float(largest)
        self._solved: dict[float, np.ndarray] = {}
        self._reports: dict[float, Report] = {}

    @property
    def size(self) -> int:
        return len(self._right)

    def rank(self, penalty: float) -> int:
        return self.size

    def condition(self, penalty: float) -> float:
        """With λ for the smallest eigenvalue: an estimate from above."""
        return (self._largest + penalty) / penalty

    def deficiency(self, penalty: float) -> str:
        return ""

    def report(self, penalty: float) -> Report | None:
        return self._reports.get(penalty)

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        if penalty not in self._solved:
            nearest = min(self._solved, key=lambda p: abs(np.log(p / penalty)), default=None)
            start = None if nearest is None else self._solved[nearest]
            solve = functools.partial(self._solve, penalty, start)
            self._solved[penalty], numbers = self._led.found(solve)
            iterations, residual, condition, converged = numbers.tolist()
            report = Report(int(iterations), residual, condition, bool(converged))
            self._reports[penalty] = report
            if not report.converged:
                self._warn(penalty, report)
        return np.ldexp(self._solved[penalty], self.units.exponent)

    def _prepared(self, product: Map, exactly: Map) -> tuple[np.ndarray, ...]:
        """Makes the preconditioner; the largest eigenvalue."""
        del exactly
        eps = float(np.finfo(np.float64 if _sums._on_host() else self.dtype).eps)
        rank = self._solver.rank
        self.preconditioner = NystroemInverse(self._whole(product), self.size, rank, eps)
        return (np.array(self.preconditioner.largest),)

    def _solve(
        self, penalty: float, start: np.ndarray | None, *products: Map
    ) -> tuple[np.ndarray, ...]:
        """Weights, and the numbers of the report."""
        assert self.preconditioner is not None
        product, exactly = map(self._whole, products)
        w, report = self._solver.solve(
            lambda v: product(v) + penalty * v,
            self.preconditioner.at(penalty),
            self._right,
            start,
            lambda v: exactly(v) + penalty * v,
        )
        return w, np.array(report, np.float64)

    def residuals(
        self, penalties: Sequence[float], weights: Sequence[Float[np.ndarray, "p k"]]
    ) -> list[float]:
        """Those of the reports, of the worst output."""
        return [self._reports[penalty].residual for penalty in penalties]

    def _own_product(
        self, v: Float[np.ndarray, "p k"], dtype: np.dtype | None = None
    ) -> Float[np.ndarray, "p k"]:
        """Σ w (z - m)(z - m)ᵀ V over the examples of this process, m the mean of all: of what is
        small where features have a mean, so that rounding is.

        Args:
          dtype: of the products of a batch on an accelerator; None: that of the features. Sums of
            batches are in float64.
        """
        devices, mean = self._examples.features.devices, self._mean
        total, dtype, on_host = np.zeros_like(v), dtype or self.dtype, _sums._on_host()
        scope = float64 if dtype == np.float64 else contextlib.nullcontext  # not of features
        if not on_host:
            with scope():
                given = devices.put_whole((on_device(v, dtype), on_device(mean, dtype)))
        for part in self._examples.passes:
            count, weights = part.stop - part.start, part.sample_weight
            if on_host:
                z = part.rows() - mean
                inner = z @ v
                total += z.T @ (inner if weights is None else weights[:, None] * inner)
                continue
            padded = np.zeros(len(part.z), dtype)
            padded[:count] = 1.0 if weights is None else weights
            with scope():
                z, padded = devices.put(part.z), devices.put(padded)
                total += np.asarray(_turned(z, *given, padded)).astype(np.float64)
        return total

    def product(self, v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
        """ZᵀZ V, or that of centred features with an intercept, in float64; of one process."""
        return self._whole(self._exactly)(v)

    def _exactly(self, v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
        return self._own_product(v, np.dtype(np.float64))

    def _whole(self, product: Map) -> Map:
        """ZᵀZ V from Σ w (z - m)(z - m)ᵀ V: the same with an intercept, else W m mᵀ V more."""
        if self.fit_intercept:
            return product
        return lambda v: product(v) + np.outer(self.total_weight * self._mean, self._mean @ v)

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
