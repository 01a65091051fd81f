"""Chebyshev series of a function on an interval: coefficients, errors, degrees."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy  # whose modules are imported where they are used
from jaxtyping import Float

_NODES = 1 << 15  # largest number of points at which a function is sampled
_TERMS = 1 << 20  # largest number of terms of the series of a logarithm
MAX_DEGREE = 10_000

Interval = tuple[float, float]


class Series(NamedTuple):
    """f(x) = Σ_j values_j T_j(t), f'(x) = Σ_j slopes_j T_j(t), t = (x - centre) / radius.

    Both hold to rounding: the omitted terms add up to less than about eps of the largest one.

    Attributes:
      rate: ρ > 1 with values_j and slopes_j about ρ^-j.
    """

    interval: Interval
    values: Float[np.ndarray, " l"]
    slopes: Float[np.ndarray, " l"]
    rate: float

    @property
    def centre(self) -> float:
        return (self.interval[0] + self.interval[1]) / 2

    @property
    def radius(self) -> float:
        return (self.interval[1] - self.interval[0]) / 2

    @property
    def size(self) -> float:
        """A bound of |f|, about its largest value."""
        return float(np.abs(self.values).sum())

    def error(self, degree: int) -> float:
        """A bound of |f - p| on the interval, where p is the series up to a degree.

        Since |T_j| <= 1, it is the sum of the absolute values of the omitted coefficients.
        """
        return float(np.abs(self.values[degree + 1 :]).sum())

    def degree(self, target: float) -> int:
        """`least_degree`, if it is not too large.

        Raises:
          ValueError: it is above `MAX_DEGREE`.
        """
        found = self.least_degree(target)
        if found > MAX_DEGREE:
            low, high = self.interval
            raise ValueError(
                f"eigenvalues between {low:.3g} and {high:.3g} need a polynomial of degree"
                f" {found:,} for an error of {target:.2g} at each; at most {MAX_DEGREE:,} is tried."
                " Add a larger shift, give a narrower interval= or a larger tolerance=, or use"
                " method='lanczos'"
            )
        return found

    def least_degree(self, target: float) -> int:
        """The least degree, 1 or more, with an error of at most `target`."""
        left = np.cumsum(np.abs(self.values[::-1]))[::-1]  # left[j]: terms from j on
        return max(int(np.argmax(np.append(left, 0.0) <= target)) - 1, 1)


def log_series(low: float, high: float) -> Series:
    """The series of the logarithm. With q = (√high - √low) / (√high + √low)

        log x = 2 log((√low + √high) / 2) + Σ_j 2 (-1)^(j+1) q^j / j T_j(t),
        1 / x = [1 + 2 Σ_j (-q)^j T_j(t)] / √(low high),

    from the generating function Σ_j r^j cos(jθ) / j = -½ log(1 - 2 r cos θ + r²), r = -q, and its
    derivative. The error of degree N is therefore at most 2 q^(N+1) / ((N+1) (1-q)).
    """
    roots = math.sqrt(low), math.sqrt(high)
    q = (roots[1] - roots[0]) / (roots[1] + roots[0])
    rate = (roots[1] + roots[0]) / max(roots[1] - roots[0], 1e-8 * roots[1])
    terms = min(math.ceil(math.log(np.finfo(np.float64).eps / 8) / -math.log(rate)), _TERMS)
    j = np.arange(1, terms + 1)
    powers = (-q) ** j
    values = np.concatenate([[2 * math.log(sum(roots) / 2)], -2 * powers / j])
    slopes = np.concatenate([[1.0], 2 * powers]) / (roots[0] * roots[1])
    return Series((low, high), values, slopes, rate)


def series_of(f: Callable[[Any], Any], low: float, high: float) -> Series:
    """The series of a function of arrays, from its values at Chebyshev points.

    The number of points is doubled until the coefficients have fallen to rounding.

    Raises:
      ValueError: f is not finite on the interval, not a function of arrays, or not smooth.
    """
    nodes = 32
    while True:
        t = np.cos(np.pi * np.arange(nodes + 1) / nodes)
        at = np.asarray(f((low + high) / 2 + (high - low) / 2 * t)).astype(np.float64)
        if at.shape != t.shape:
            raise ValueError(
                f"f returned shape {at.shape} for eigenvalues of shape {t.shape}; needed: one"
                " number for each, as of jnp.log or lambda s: s / (s + 1)"
            )
        if not np.isfinite(at).all():
            raise ValueError(
                f"f is NaN or infinite at some points of [{low:.6g}, {high:.6g}], where eigenvalues"
                " may lie; give an interval= on which it is finite, or a shift="
            )
        values = np.asarray(scipy.fft.dct(at, type=1)) / nodes
        values[[0, -1]] /= 2
        kept = _resolved(values)
        if kept is not None:
            return _of_values(values[:kept], low, high)
        if nodes >= _NODES:
            raise ValueError(
                f"f has no Chebyshev series of {_NODES:,} terms on [{low:.6g}, {high:.6g}]: it has"
                " a kink or a jump there, or is too steep at an end. Narrow the interval, add a"
                " larger shift, or use method='lanczos' with a degree="
            )
        nodes *= 2


def _resolved(values: Float[np.ndarray, " l"]) -> int | None:
    """The number of coefficients above rounding, or None if any is in the last quarter."""
    sizes = np.abs(values)
    rounding = 64 * np.finfo(np.float64).eps * sizes.max()
    above = np.flatnonzero(sizes > rounding)
    kept = int(above[-1]) + 1 if len(above) else 1
    return kept if kept <= 3 * len(values) // 4 else None


def _of_values(values: Float[np.ndarray, " l"], low: float, high: float) -> Series:
    slopes = np.zeros(len(values))
    derivative = np.polynomial.chebyshev.chebder(values) * 2 / (high - low)
    slopes[: len(derivative)] = derivative[: len(values)]
    left = np.cumsum(np.abs(values[::-1]))[::-1]
    fall = left[0] / left[-1] if left[-1] > 0 else 1.0
    rate = max(fall ** (1 / max(len(values) - 1, 1)), 1 + 1e-6)
    return Series((low, high), values, slopes, float(rate))
