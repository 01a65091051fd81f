"""Traces of functions of symmetric operators, by products with random signs."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._arguments import checked_choice, checked_integer, checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ..numerics._precision import float64
from ._chebyshev import differentiable_forms, quadratic_forms
from ._estimate import BLOCK, STREAMED_BLOCK, Estimate, Forms, mean_over_probes
from ._lanczos import Lanczos
from ._matfree import lanczos_forms
from ._operator import Operator, check_symmetric
from ._plan import pilot
from ._random_degree import RandomDegree
from ._series import Interval, Series

METHODS = ("chebyshev", "randomized_chebyshev", "lanczos")
_SHARE = 0.1  # of the tolerance, for the truncation


class Function(NamedTuple):
    """f, and its Chebyshev series on an interval."""

    of: Callable[[Any], Any]
    series: Callable[[float, float], Series]
    positive: bool  # of positive numbers alone

    def on_host(self, values: np.ndarray) -> np.ndarray:
        """f of float64 numbers, whatever JAX's default is."""
        with float64(), np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.of(values)).astype(np.float64)


class Options(NamedTuple):
    """What was asked for, checked."""

    method: str
    tolerance: float
    probes: int | None
    degree: int | None
    interval: Interval | None


def checked_options(method, tolerance, probes, degree, interval, positive: bool) -> Options:
    checked_choice(method, "method", METHODS)
    real = isinstance(tolerance, numbers.Real) and not isinstance(tolerance, bool)
    if not real or not 0 < float(tolerance) < 1:
        raise ValueError(f"tolerance={tolerance!r}; needed: a relative error, 0 < tolerance < 1")
    if probes is not None:
        checked_integer(probes, "probes")
    if degree is not None:
        checked_integer(degree, "degree")
    if interval is not None:
        low, high = (float(end) for end in interval)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"interval={interval!r}; needed: two finite numbers, low < high")
        if positive and low <= 0:
            raise ValueError(
                f"interval={interval!r} reaches down to {low:g}: a log-determinant needs"
                " eigenvalues above 0. With a shift the interval is that of operator + shift I"
            )
        interval = low, high
    return Options(method, float(tolerance), probes, degree, interval)


def estimated(
    operator: Any, function: Function, size: Any, shift: Any, key: PRNGKey, options: Options
) -> Estimate:
    checked_key(key)
    traced = isinstance(shift, Tracer)
    if not traced and not (math.isfinite(float(shift)) and float(shift) >= 0):
        raise ValueError(f"shift={shift!r}; needed: a finite number, 0 or more")
    operator = Operator(operator, size, shift)
    if operator.traced:
        return _traced(operator, function, key, options)
    if traced:
        raise TypeError(
            "the shift is traced by JAX but the operator is not a function or an array of JAX,"
            " which derivatives need"
        )
    return _on_host(operator, function, float(shift), key, options)


def _on_host(
    operator: Operator, function: Function, shift: float, key: PRNGKey, options: Options
) -> Estimate:
    n, rng, interval = operator.size, generator(key), options.interval
    check_symmetric(operator, _signs(rng, n, 2))
    known = shift > 0 if function.positive else operator.semidefinite
    least = interval[0] if interval is not None else shift if known else -math.inf
    first = rng.normal(size=(n, 1))  # signs of few rows may be an eigenvector
    first *= n**0.5 / np.linalg.norm(first)
    if options.method == "lanczos" and options.degree is not None and interval is None:
        series, bound, degree = None, math.nan, min(options.degree, n)
        scale = math.nan
    else:
        found = pilot(operator, function.on_host, first, least, interval, function.positive)
        series, scale = function.series(*found.interval), found.trace
        target = _SHARE * options.tolerance * max(abs(scale) / n, 1e-14 * series.size)
        degree = options.degree or series.degree(target)
        if options.method == "lanczos":
            # m steps are exact for polynomials of degree 2m - 1, and off by at most twice the best
            degree = options.degree or max((series.degree(target / 2) + 2) // 2, 1)
            degree = min(degree, n)
            bound = 2 * n * series.error(2 * degree - 1)
        else:
            bound = n * series.error(
                degree if options.method == "chebyshev" else len(series.values)
            )
    forms = _forms(operator, function, series, degree, options.method, rng)
    tolerance, block = options.tolerance, STREAMED_BLOCK if operator.streamed else BLOCK
    value, error, probes = mean_over_probes(
        forms, options.probes, tolerance, 0.0 if math.isnan(bound) else bound, block
    )
    if not math.isfinite(value):
        raise ValueError(
            "the estimate is NaN or infinite: f is not finite at the Ritz values of the operator"
        )
    off = error + (0.0 if math.isnan(bound) else bound)
    if options.probes is None and off > tolerance * abs(value):
        warnings.warn(
            f"after {probes} probes the value {value:.6g} has a standard error of {error:.2g} and a"
            f" truncation bound of {bound:.2g}, more than the tolerance of {tolerance:g} of it."
            " Give more probes=, or a larger tolerance= (no relative one is met where the value is"
            " about 0)",
            RuntimeWarning,
            stacklevel=4,
        )
    used = None if series is None else series.interval
    return Estimate(value, error, bound, degree, probes, used)


def _forms(
    operator: Operator,
    function: Function,
    series: Series | None,
    degree: int,
    method: str,
    rng: np.random.Generator,
) -> Forms:
    """Of new probes, by one of the methods."""
    n = operator.size
    if method == "lanczos" and operator.function is not None:
        compiled = jax.jit(lambda v: lanczos_forms(operator.one, v, function.of, degree))
        return lambda k: np.asarray(compiled(_signs(rng, n, k).T.astype(operator.dtype)), float)

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
    """With derivatives by what the operator closes over; a fixed number of probes."""
    n, k = operator.size, options.probes or BLOCK
    key_probes, key_degrees = jax.random.split(key)
    v = jax.random.rademacher(key_probes, (k, n), operator.dtype)
    series, interval = None, options.interval
    if options.method == "lanczos" and options.degree is not None:
        degree = min(options.degree, n)
    elif interval is None:
        raise ValueError(
            "the operator is traced (by jax.grad or jax.jit), so that its eigenvalues cannot be"
            " looked at: give interval=(low, high) that holds all of them"
            " (or method='lanczos' with a degree=)"
        )
    if interval is not None:
        series = function.series(*interval)
        degree = options.degree or series.degree(_SHARE * options.tolerance * series.size)
    if options.method == "lanczos":
        degree = min(degree if options.degree else (degree + 2) // 2, n)
        bound = math.nan if series is None else 2 * n * series.error(2 * degree - 1)
        found = lanczos_forms(operator.one, v, function.of, degree)
    else:
        assert series is not None
        values, slopes, last, bound = _weights(series, degree, k, key_degrees, options.method)
        found = differentiable_forms(
            operator.one, v, series, values.astype(v.dtype), slopes.astype(v.dtype), last
        )
        bound = n * bound
    count = np.asarray(k, found.dtype)
    error = jnp.std(found, ddof=1) / count**0.5 if k > 1 else jnp.asarray(jnp.nan, found.dtype)
    return Estimate(jnp.mean(found), jax.lax.stop_gradient(error), bound, degree, k, interval)


def _weights(series: Series, degree: int, k: int, key: PRNGKey, method: str):
    """Coefficients of f and f' (k, l), the last degree, and a bound of what is left out."""
    padding = max(2 - len(series.values), 0)
    values, slopes = (np.pad(c, (0, padding)) for c in (series.values, series.slopes))
    if method == "chebyshev":
        cut = slice(0, max(degree, 1) + 1)
        both = [jnp.tile(jnp.asarray(c[cut])[None], (k, 1)) for c in (values, slopes)]
        return *both, both[0].shape[1] - 1, series.error(degree)
    drawn = RandomDegree.of(series._replace(values=values), degree)
    survival = jnp.asarray(drawn.survival[1:])
    last = jnp.sum(survival[None] > jax.random.uniform(key, (k, 1), survival.dtype), axis=1)
    kept = jnp.arange(len(values))[None] <= last[:, None]
    both = [jnp.where(kept, jnp.asarray(drawn.weights(c))[None], 0) for c in (values, slopes)]
    return *both, jnp.maximum(jnp.max(last), 1), 0.0


def _signs(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """k probes of random signs (n, k), in float64."""
    return rng.integers(0, 2, (n, k), np.int8) * 2.0 - 1.0
