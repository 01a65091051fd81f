"""Traces of functions of symmetric operators, from products with random signs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._arguments import checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ..numerics._precision import float64
from ._chebyshev import differentiable_forms, quadratic_forms
from ._estimate import BLOCK, STREAMED_BLOCK, Estimate, Forms, mean_over_probes
from ._lanczos import Lanczos
from ._matfree import lanczos_forms
from ._operator import Operator, check_symmetric
from ._options import Options
from ._plan import pilot
from ._random_degree import RandomDegree
from ._series import Interval, Series, log_series

_SHARE = 0.1  # the share of the tolerance that truncation may take
REMEDY = (
    "Give more probes=, a larger tolerance= or, where the value is about 0, an absolute_tolerance="
)


class Function(NamedTuple):
    """A function f and its Chebyshev series on an interval."""

    of: Callable[[Any], Any]
    series: Callable[[float, float], Series]
    positive: bool  # f is defined for positive numbers only

    def on_host(self, values: np.ndarray) -> np.ndarray:
        """f in float64, whatever JAX's default is."""
        with float64(), np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.of(values)).astype(np.float64)


LOG = Function(jnp.log, log_series, True)


def estimated(
    operator: Any, function: Function, size: Any, shift: Any, key: PRNGKey, options: Options
) -> Estimate:
    check_call(key, shift)
    traced = isinstance(shift, Tracer)
    operator = Operator(operator, size, shift)
    if operator.traced:
        return _traced(operator, function, key, options)
    if traced:
        raise TypeError(
            "the shift is traced by JAX but the operator is not a function or an array of JAX,"
            " which derivatives need"
        )
    return on_host(operator, function, float(shift), key, options)


def check_call(key: PRNGKey, shift: Any) -> None:
    checked_key(key)
    if not isinstance(shift, Tracer) and not (math.isfinite(float(shift)) and float(shift) >= 0):
        raise ValueError(f"shift={shift!r}; needed: a finite number, 0 or more")


class _Truncation(NamedTuple):
    """Where the series ends.

    Attributes:
      degree: of the polynomial, or steps of Lanczos.
      bound: of the error that this causes in f at an eigenvalue.
    """

    series: Series | None
    degree: int
    bound: float


def _truncation(
    function: Function, interval: Interval, options: Options, n: int, value: float | None
) -> _Truncation:
    """The truncation that the options ask for.

    Args:
      value: about that of the trace; None: n times the largest f in the interval.
    """
    series = function.series(*interval)
    value = n * series.size if value is None else value
    target = _SHARE * max(options.allowed(value) / n, 1e-14 * options.tolerance * series.size)
    if options.method == "lanczos":
        # m steps are exact for degree 2m - 1: the error is at most twice the best polynomial's
        steps = min(options.degree or (series.least_degree(target / 2) + 2) // 2, n)
        return _Truncation(series, steps, 2 * series.error(2 * steps - 1))
    degree = options.degree or series.degree(target)
    if options.method == "randomized_chebyshev":
        return _Truncation(series, degree, 0.0)
    return _Truncation(series, degree, series.error(degree))


def _only_steps(options: Options) -> bool:
    """Whether Lanczos was given a number of steps and no interval: it then needs no interval."""
    given = options.degree is not None and options.interval is None
    return options.method == "lanczos" and given


def on_host(
    operator: Operator,
    function: Function,
    shift: float,
    key: PRNGKey,
    options: Options,
    *,
    exact_part: float = 0.0,
    least: float = -math.inf,
    remedy: str = REMEDY,
    stacklevel: int = 3,
) -> Estimate:
    """The estimate in NumPy.

    Args:
      exact_part: what is added to the trace.
      least: a lower bound of the eigenvalues, of nothing that the other arguments say.
      remedy: what to do if 512 probes are too few.
      stacklevel: of a warning of that by the caller.
    """
    n, rng, interval = operator.size, generator(key), options.interval
    check_symmetric(operator, _signs(rng, n, 2))
    bounded = shift > 0 if function.positive else operator.semidefinite
    least = interval[0] if interval is not None else shift if bounded else least
    if _only_steps(options):
        assert options.degree is not None
        cut = _Truncation(None, min(options.degree, n), math.nan)
    else:
        first = rng.normal(size=(n, 1))  # signs of few rows may be an eigenvector
        first *= n**0.5 / np.linalg.norm(first)
        found = pilot(operator, function.on_host, first, least, interval, function.positive)
        cut = _truncation(function, found.interval, options, n, found.trace + exact_part)
        if options.method == "lanczos" and options.degree is None and function.positive:
            width = _SHARE * options.allowed(found.trace + exact_part)
            low, lanczos = found.interval[0], found.lanczos
            width = lanczos.steps_for(function.on_host, low, width, cut.degree)
            if lanczos.steps <= cut.degree and width < n * cut.bound:
                cut = cut._replace(degree=lanczos.steps, bound=width / n)
    of_rest = _forms(operator, function, cut, options.method, rng)

    def forms(k: int) -> np.ndarray:
        return exact_part + of_rest(k)

    bound = 0.0 if math.isnan(cut.bound) else n * cut.bound
    block = STREAMED_BLOCK if operator.streamed else BLOCK
    value, error, probes = mean_over_probes(forms, options.probes, options.allowed, bound, block)
    if not math.isfinite(value):
        raise ValueError(
            "the estimate is NaN or infinite: f is not finite at the Ritz values of the operator"
        )
    if options.probes is None and error + bound > options.allowed(value):
        warnings.warn(
            f"after {probes} probes the value {value:.6g} has a standard error of {error:.2g} and a"
            f" truncation bound of {bound:.2g}, more than the {options.allowed(value):.2g} of"
            f" tolerance={options.tolerance:g}, absolute_tolerance={options.absolute_tolerance:g}."
            f" {remedy}",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )
    used = None if cut.series is None else cut.series.interval
    return Estimate(value, error, n * cut.bound, cut.degree, probes, used)


def _forms(
    operator: Operator,
    function: Function,
    cut: _Truncation,
    method: str,
    rng: np.random.Generator,
) -> Forms:
    """A function that draws k new probes and returns their quadratic forms."""
    n, series, degree = operator.size, cut.series, cut.degree

    def forms(k: int) -> np.ndarray:
        v = _signs(rng, n, k)
        if method == "lanczos":
            lanczos = Lanczos(operator.block, v)
            lanczos.extend(degree)
            return lanczos.quadratic_forms(function.on_host)
        assert series is not None
        if method == "chebyshev":
            weights = np.tile(series.values[: degree + 1, None], (1, k))
        else:
            drawn = RandomDegree.of(series, degree)
            last = drawn.degrees(rng.random(k))
            weights = drawn.weights(series.values)[: last.max() + 1, None]
            weights = np.where(np.arange(len(weights))[:, None] <= last, weights, 0.0)
        rounding = 64 * float(np.finfo(operator.dtype).eps)
        return quadratic_forms(operator.block, v, series, weights, rounding)

    return forms


def _traced(operator: Operator, function: Function, key: PRNGKey, options: Options) -> Estimate:
    """The estimate in JAX from a fixed number of probes.

    It has derivatives with respect to the values that the operator closes over.
    """
    n, k = operator.size, options.probes or BLOCK
    key_probes, key_degrees = jax.random.split(key)
    v = jax.random.rademacher(key_probes, (k, n), operator.dtype)
    if _only_steps(options):
        assert options.degree is not None
        cut = _Truncation(None, min(options.degree, n), math.nan)
    elif options.interval is None:
        raise ValueError(
            "the operator is traced (by jax.grad or jax.jit), so that its eigenvalues cannot be"
            " looked at: give interval=(low, high) that holds all of them"
            " (or method='lanczos' with a degree=)"
        )
    else:
        cut = _truncation(function, options.interval, options, n, None)
    if options.method == "lanczos":
        found = lanczos_forms(operator.one, v, function.of, cut.degree)
    else:
        assert cut.series is not None
        values, slopes, last = _weights(cut, k, key_degrees, options.method)
        found = differentiable_forms(
            operator.one, v, cut.series, values.astype(v.dtype), slopes.astype(v.dtype), last
        )
    count = np.asarray(k, found.dtype)
    error = jnp.std(found, ddof=1) / count**0.5 if k > 1 else jnp.asarray(jnp.nan, found.dtype)
    error = jax.lax.stop_gradient(error)
    return Estimate(jnp.mean(found), error, n * cut.bound, cut.degree, k, options.interval)


def _weights(cut: _Truncation, k: int, key: PRNGKey, method: str):
    """Coefficients of f and of f', (k, l) each, and the last degree."""
    assert cut.series is not None
    padding = max(2 - len(cut.series.values), 0)
    values, slopes = (np.pad(c, (0, padding)) for c in (cut.series.values, cut.series.slopes))
    if method == "chebyshev":
        kept = slice(0, max(cut.degree, 1) + 1)
        both = [jnp.tile(jnp.asarray(c[kept])[None], (k, 1)) for c in (values, slopes)]
        return *both, both[0].shape[1] - 1
    drawn = RandomDegree.of(cut.series._replace(values=values), cut.degree)
    survival = jnp.asarray(drawn.survival[1:])
    last = jnp.sum(survival[None] > jax.random.uniform(key, (k, 1), survival.dtype), axis=1)
    kept = jnp.arange(len(values))[None] <= last[:, None]
    both = [jnp.where(kept, jnp.asarray(drawn.weights(c))[None], 0) for c in (values, slopes)]
    return *both, jnp.maximum(jnp.max(last), 1)


def _signs(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """k probes of random signs (n, k), in float64."""
    return rng.integers(0, 2, (n, k), np.int8) * 2.0 - 1.0
