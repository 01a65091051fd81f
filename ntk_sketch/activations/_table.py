"""Hermite coefficients at every norm inside a jitted map."""

from collections.abc import Callable

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from .._typing import Array
from ._checks import checked_degree, checked_radius
from ._dual import DualActivation
from ._hermite import hermite_coefficients

_FIRST_INTERVALS, _MAX_INTERVALS = 32, 4096


class HermiteTable(eqx.Module):
    r"""`ĉ_l(r) = c_l(r) / √k_σ(r², r², r²)`, l = 0..degree, by cubic splines in log r.

    So scaled, `Σ_l ĉ_l² <= 1` with the tail as the rest, the table of a homogeneous σ is constant,
    and a norm outside of the table can be moved to its nearest end, where `ĉ` is close to its
    limit. The kernel's own diagonal gives the scale back.

    Built on the host in float64, the number of intervals doubled until midpoints are right to
    `tolerance`; a call follows the dtype of the norm and can be jitted, batched and differentiated.

    Args:
        sigma, degree, derivative: as in `hermite_coefficients`.
        radii: the least and the largest norm.
        tolerance: aim for the absolute error of `ĉ`.

    Attributes:
        error: the largest error that was found at midpoints.

    Cost of a call: 6 (degree + 1) FLOPs and 4 (degree + 1) numbers read for each norm.
    """

    coefficients: Float[Array, "intervals 4 l"]
    start: float = eqx.field(static=True)
    step: float = eqx.field(static=True)
    error: float = eqx.field(static=True)

    def __init__(
        self,
        sigma: DualActivation | Callable,
        degree: int,
        *,
        derivative: bool = False,
        radii: tuple[float, float] = (1e-3, 1e2),
        tolerance: float = 1e-7,
    ):
        degree, ends = checked_degree(degree), checked_radius(np.asarray(radii))
        if ends.shape != (2,) or not ends[0] < ends[1]:
            raise ValueError(f"radii must be the least and the largest norm, got {radii}")
        self.start = float(np.log(ends[0]))
        width = float(np.log(ends[1])) - self.start

        def scaled(u):
            found = hermite_coefficients(
                sigma, np.exp(self.start + width * u), degree, derivative=derivative
            )
            root = np.sqrt(found.second_moment)[:, None]
            return np.divide(found.values, root, out=np.zeros_like(found.values), where=root > 0)

        intervals = _FIRST_INTERVALS
        grid = np.linspace(0, 1, intervals + 1)
        values = scaled(grid)
        while True:
            spline = CubicSpline(grid, values)
            between = (grid[:-1] + grid[1:]) / 2
            truth = scaled(between)
            error = float(np.max(np.abs(spline(between) - truth)))
            if error <= tolerance or intervals >= _MAX_INTERVALS:
                break
            intervals *= 2
            merged = np.empty((intervals + 1, degree + 1))
            merged[::2], merged[1::2] = values, truth
            grid, values = np.linspace(0, 1, intervals + 1), merged
        self.step = width / intervals
        self.error = error
        # In the local coordinate from 0 to 1 of each interval, highest power first.
        powers = intervals ** -np.arange(3.0, -1, -1)
        self.coefficients = jnp.asarray(
            np.moveaxis(spline.c * powers[:, None, None], 1, 0), jnp.result_type(float)
        )

    def __call__(self, radius: Float[Array, "*r"]) -> Float[Array, "*r l"]:
        """`ĉ_l` at norms r >= 0; those outside of the table as at its nearest end."""
        intervals, _, _ = self.coefficients.shape
        tiny = float(jnp.finfo(radius.dtype).tiny)
        u = (jnp.log(jnp.maximum(radius, tiny)) - self.start) / self.step
        u = jnp.clip(u, 0, intervals)
        cell = jnp.minimum(u.astype(jnp.int32), intervals - 1)
        rest = (u - cell)[..., None]
        third, second, first, value = jnp.moveaxis(
            self.coefficients.astype(radius.dtype)[cell], -2, 0
        )
        return ((third * rest + second) * rest + first) * rest + value
