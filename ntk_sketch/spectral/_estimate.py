"""The mean over probes and its error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ._series import Interval


class Estimate(NamedTuple):
    """An estimate of the trace of a function of an operator, such as its log-determinant.

    Attributes:
      value: the mean over probes.
      standard_error: of that mean, from the spread of the probes; `nan` for a single probe.
      truncation_bound: a bound of the error of the polynomial p: the number of rows times a bound
        of |f - p| on the interval; for log-determinants by Lanczos the width of the bracket of one
        random vector's quadratic form. `nan` for a number of steps without an interval.
      degree: of the polynomial (the mean of random ones), or steps of Lanczos.
      probes: their number.
      interval: the interval assumed to hold all eigenvalues; None: none was used.
    """

    value: Any
    standard_error: Any
    truncation_bound: float
    degree: int
    probes: int
    interval: Interval | None


Forms = Callable[[int], Float[np.ndarray, " k"]]
BLOCK = 8  # probes at a time
STREAMED_BLOCK = 32  # the same for passes over examples, where more probes cost little more
MOST = 512  # largest number of probes if it is not given


def mean_over_probes(
    forms: Forms, probes: int | None, allowed: Callable[[float], float], bound: float, block: int
) -> tuple[float, float, int]:
    """Mean, standard error and number of probes.

    Probes are added in blocks up to the given number, or until the standard error plus `bound` is
    at most what is `allowed` for that mean.
    """
    found = np.zeros(0)
    while True:
        left = (MOST if probes is None else probes) - len(found)
        found = np.concatenate([found, forms(min(block, left))])
        mean = float(found.mean())
        spread = float(found.std(ddof=1)) if len(found) > 1 else np.nan
        error, left = spread / len(found) ** 0.5, left - min(block, left)
        if not left or (probes is None and error + bound <= allowed(mean)):
            return mean, error, len(found)
