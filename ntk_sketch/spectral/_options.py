"""How a trace is estimated."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

from .._arguments import checked_choice, checked_integer
from ._series import Interval

METHODS = ("chebyshev", "randomized_chebyshev", "lanczos")


class Options(NamedTuple):
    """The user's options, checked."""

    method: str
    tolerance: float
    absolute_tolerance: float
    probes: int | None
    degree: int | None
    interval: Interval | None

    def allowed(self, value: float) -> float:
        """The error that an estimate of this value may have."""
        return max(self.tolerance * abs(value), self.absolute_tolerance)


def checked_options(
    method, tolerance, absolute_tolerance, probes, degree, interval, positive: bool
) -> Options:
    checked_choice(method, "method", METHODS)
    if not _is_number(absolute_tolerance) or not 0 <= float(absolute_tolerance) < math.inf:
        raise ValueError(
            f"absolute_tolerance={absolute_tolerance!r}; needed: an error of the result, a finite"
            " number, 0 or more"
        )
    zero = _is_number(tolerance) and tolerance == 0 < absolute_tolerance
    if not zero and not (_is_number(tolerance) and 0 < float(tolerance) < 1):
        raise ValueError(
            f"tolerance={tolerance!r}; needed: a relative error, 0 < tolerance < 1, or 0 with an"
            " absolute_tolerance above 0"
        )
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
    return Options(method, float(tolerance), float(absolute_tolerance), probes, degree, interval)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
