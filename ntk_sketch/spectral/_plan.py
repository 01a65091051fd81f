"""An interval for the eigenvalues and a rough trace, from a few steps of Lanczos."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ._lanczos import Lanczos
from ._operator import Operator, gershgorin
from ._series import Interval

_STEPS = 10  # of Lanczos between checks of convergence
_MOST = 400
_RESOLVED = 0.1  # error relative to the smallest eigenvalue, or to the length of the interval


class Pilot(NamedTuple):
    """A first look at the spectrum.

    Attributes:
      interval: holds all eigenvalues.
      trace: an estimate of tr f, from the quadrature with one vector of norm √n.
      lanczos: the recurrence of this vector, for further steps.
    """

    interval: Interval
    trace: float
    lanczos: Lanczos


def pilot(
    operator: Operator,
    f: Callable,
    v: Float[np.ndarray, "n 1"],
    least: float,
    interval: Interval | None,
    positive: bool,
) -> Pilot:
    """Runs Lanczos's recurrence from a random vector of norm √n until both ends are resolved.

    The largest Ritz value plus the norm of A V - V T bounds all eigenvalues in practice (Y. Zhou,
    Y. Saad et al., J. Comput. Phys. 219 (2006), 172-184). The lower end is the smallest Ritz value
    minus its residual, times 0.7; if that value is not resolved, it is the known bound. A sparse
    matrix also has Gershgorin's interval, which is certain. Its upper end is used unless it makes
    the interval more than twice as long.

    Args:
      least: a known lower bound of the eigenvalues, -inf if there is none.
      interval: the user's interval; None: found here.
      positive: whether eigenvalues must be above 0.
    """
    lanczos, n = Lanczos(operator.block, v), operator.size
    circles = gershgorin(operator) if interval is None else None
    if circles is not None and (circles[0] > 0 or not positive):
        least = max(least, circles[0])
    bottom = top = (math.nan, math.inf)
    while lanczos.steps < min(n, _MOST):
        lanczos.extend(min(_STEPS, min(n, _MOST) - lanczos.steps))
        bottom, top = lanczos.extremes()
        _check_range(operator, bottom[0], top[0], least, positive)
        if interval is not None:
            _check_top(operator, bottom[0], top[0], interval)
            if lanczos.steps >= 3 * _STEPS:
                break
        elif top[1] <= 0.05 * abs(top[0]) and (
            math.isfinite(least) or bottom[1] <= _RESOLVED * _scale(bottom[0], top[0], positive)
        ):
            break
    else:
        exact = lanczos.steps >= n  # the Krylov space has all n dimensions
        if interval is None and not exact and not math.isfinite(least):
            raise ValueError(
                f"the least eigenvalue was not found in {lanczos.steps} products: it is below"
                f" {bottom[0]:.3g}, where the largest is about {top[0]:.3g}. Give bounds that you"
                " know, interval=(low, high), or add a shift="
            )
    if interval is None:
        high = top[0] + lanczos.rest() + 1e-3 * abs(top[0])
        low = _low(bottom, high, least, positive)
    else:
        low, high = interval
    if circles is not None and circles[1] - low < 2 * (high - low):
        high = circles[1]
    high = max(high, low + 1e-6 * max(abs(low), abs(high)))

    def inside(values: np.ndarray) -> Any:
        return f(np.clip(values, low, high))

    return Pilot((low, high), float(lanczos.quadratic_forms(inside)[0]), lanczos)


def _low(bottom: tuple[float, float], high: float, least: float, positive: bool) -> float:
    resolved = bottom[1] <= _RESOLVED * _scale(bottom[0], high, positive)
    if math.isfinite(least) and not resolved:
        return least
    low = bottom[0] - bottom[1]
    if positive:
        return max(0.7 * max(low, 0.5 * bottom[0]), least)
    return max(low - 0.02 * (high - low), 0.7 * low if low > 0 else -math.inf, least)


def _scale(bottom: float, top: float, positive: bool) -> float:
    return abs(bottom) if positive else abs(top - bottom)


def _check_range(
    operator: Operator, bottom: float, top: float, least: float, positive: bool
) -> None:
    """Raises ValueError if a Ritz value is below a bound, which an eigenvalue then is as well."""
    rounding = _rounding(operator, bottom, top)
    if positive and bottom <= rounding and not least > 0:
        raise ValueError(
            f"the operator is not positive definite: it has an eigenvalue of {bottom:.3g} or less,"
            f" with the largest about {top:.3g}. Its log-determinant does not exist; add a shift="
            " of more than that, as the noise of a Gaussian process is"
        )
    if bottom < least - rounding:
        raise ValueError(
            f"an eigenvalue is {bottom:.6g} or less, below {least:.6g}: the operator without its"
            " shift is not positive semidefinite. Symmetrise it, or give interval=(low, high)"
        )


def _check_top(operator: Operator, bottom: float, top: float, interval: Interval) -> None:
    if top > interval[1] + _rounding(operator, bottom, top):
        raise ValueError(
            f"an eigenvalue is {top:.6g} or more, above the interval {interval}; with a shift the"
            " interval is that of operator + shift I"
        )


def _rounding(operator: Operator, bottom: float, top: float) -> float:
    return 64 * float(np.finfo(operator.dtype).eps) * max(abs(top), abs(bottom))
