"""Tables of Hermite coefficients, for any norm inside of a compiled map."""

import functools
from collections.abc import Callable

import equinox as eqx
import numpy as np
import scipy  # whose modules are imported where they are used
from jaxtyping import Float

from .._typing import Array
from ..activations._dual import DualActivation
from ._checks import checked_degree, checked_radius
from ._hermite import hermite_coefficients
from ._spline import LogSpline

_FIRST_INTERVALS, _MAX_INTERVALS = 32, 4096


class HermiteTable(eqx.Module):
    r"""Scaled Hermite coefficients `ĉ_l(r) = c_l(r) / √k_σ(r², r², r²)` at any norm.

    Use this inside of compiled functions; `hermite_coefficients` computes them at given norms on
    the host.

    They are cubic splines in log r, l = 0..degree. The scaling makes `Σ_l ĉ_l² <= 1`, and the table
    of a homogeneous σ constant. Norms outside of the table are moved to its nearest end, where `ĉ`
    is close to its limit. Multiply by `√k_σ` to undo the scaling.

    The number of intervals is doubled until values at midpoints are right to `tolerance`.

    Args:
        sigma, degree, derivative, max_tail: as in `hermite_coefficients`.
        radii: the smallest and largest norm. Widen them if inputs have other norms.
        tolerance: the absolute error of `ĉ` to aim for.
        tail: append `√(1 - Σ_l ĉ_l²)`, the root of the share that the series leaves out.

    Attributes:
        error: the largest error found at midpoints.

    Cost of a call: 6 (degree + 1) FLOPs and 4 (degree + 1) numbers read for each norm.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import HermiteTable
        >>> table = HermiteTable(np.tanh, 3, radii=(0.1, 10.0))
        >>> table(np.array([0.5, 2.0], "float32")).shape
        (2, 4)
    """

    spline: LogSpline
    error: float = eqx.field(static=True)

    def __init__(
        self,
        sigma: DualActivation | Callable,
        degree: int,
        *,
        derivative: bool = False,
        radii: tuple[float, float] = (1e-3, 1e2),
        tolerance: float = 1e-7,
        tail: bool = False,
        max_tail: float | None = None,
    ):
        degree, ends = checked_degree(degree), checked_radius(np.asarray(radii))
        if ends.shape != (2,) or not ends[0] < ends[1]:
            raise ValueError(f"radii must be the least and the largest norm, got {radii}")
        arguments = (degree, *map(float, ends), derivative, tolerance, tail, max_tail)
        # Equal duals have equal tables; a function alone may change what it returns.
        found = _tabulated if isinstance(sigma, DualActivation) else _tabulated.__wrapped__
        values, error = found(sigma, *arguments)
        self.spline, self.error = LogSpline(ends[0], ends[1], values), error

    def __call__(self, radius: Float[Array, "*r"]) -> Float[Array, "*r l"]:
        """`ĉ_l` at norms r >= 0. Outside of the table they are those of its nearest end."""
        return self.spline(radius)


@functools.lru_cache(maxsize=256)
def _tabulated(
    sigma,
    degree: int,
    least: float,
    largest: float,
    derivative: bool,
    tolerance: float,
    tail: bool,
    max_tail: float | None,
) -> tuple[np.ndarray, float]:
    """Values at equal steps in log r, as many as `tolerance` takes, and the error between them."""
    start, width = float(np.log(least)), float(np.log(largest / least))

    def scaled(u):
        found = hermite_coefficients(
            sigma,
            np.exp(start + width * u),
            degree,
            derivative=derivative,
            max_tail=max_tail,
        )
        root = np.sqrt(found.second_moment)[:, None]
        values = np.divide(found.values, root, out=np.zeros_like(found.values), where=root > 0)
        return np.c_[values, np.sqrt(found.tail)] if tail else values

    intervals = _FIRST_INTERVALS
    values = scaled(np.linspace(0, 1, intervals + 1))
    while True:
        between = np.arange(intervals) + 0.5
        truth = scaled(between / intervals)
        spline = scipy.interpolate.CubicSpline(np.arange(intervals + 1), values)
        error = float(np.max(np.abs(spline(between) - truth)))
        if error <= tolerance or intervals >= _MAX_INTERVALS:
            break
        merged = np.empty((2 * intervals + 1, values.shape[1]))
        merged[::2], merged[1::2] = values, truth
        intervals, values = 2 * intervals, merged
    return values, error
