"""Tables of functions of a norm."""

from typing import Literal

import equinox as eqx
import jax
import numpy as np
import scipy  # whose modules are imported where they are used
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, Inputs


class LogSpline(eqx.Module):
    """Cubic splines in log r through values on a uniform grid in log r.

    They are built on the host in float64. A call has the dtype of the norm, and can be jitted,
    batched and differentiated.

    Args:
        first, last: the smallest and largest norm of the grid.
        values: values at the norms of the grid, along the first axis.
        beyond: how to extrapolate: by the value at the nearest end ("constant"), or by the tangent
            there ("linear"), which is a power law for logarithms of values.

    Cost of a call: 6 FLOPs and 4 numbers read for each norm and value.
    """

    coefficients: Float[Array, "intervals 4 ..."]
    start: float = eqx.field(static=True)
    step: float = eqx.field(static=True)
    beyond: Literal["constant", "linear"] = eqx.field(static=True)

    def __init__(
        self,
        first: float,
        last: float,
        values: Float[np.ndarray, "r ..."],
        beyond: Literal["constant", "linear"] = "constant",
    ):
        intervals = len(values) - 1
        self.start = float(np.log(first))
        self.step = float(np.log(last) - np.log(first)) / intervals
        self.beyond = beyond
        # Coefficients in the local coordinate from 0 to 1 of each interval, highest power first.
        spline = scipy.interpolate.CubicSpline(np.arange(intervals + 1), values)
        with jax.ensure_compile_time_eval():  # numbers even while a map is made under jit
            self.coefficients = jnp.asarray(np.moveaxis(spline.c, 1, 0), jnp.result_type(float))

    def on_host(self, radius: Float[np.ndarray, " r"]) -> np.ndarray:
        """The values (r, ...) as a NumPy array, also while another function is traced."""
        with jax.ensure_compile_time_eval():
            return np.asarray(_evaluated(self, radius), np.float64)

    def __call__(self, radius: Float[Array, "*r"]) -> Array:
        """The values (*r, ...) at norms r >= 0."""
        intervals, _, *rest_of_shape = self.coefficients.shape
        tiny = float(jnp.finfo(radius.dtype).tiny)
        u = (jnp.log(jnp.maximum(radius, tiny)) - self.start) / self.step
        inside = jnp.clip(u, 0, intervals)
        cell = jnp.minimum(inside.astype(jnp.int32), intervals - 1)
        shape = (*radius.shape, *(1,) * len(rest_of_shape))
        rest = (inside - cell.astype(inside.dtype)).reshape(shape)
        third, second, first, value = jnp.moveaxis(
            self.coefficients.astype(radius.dtype)[cell], radius.ndim, 0
        )
        result = ((third * rest + second) * rest + first) * rest + value
        if self.beyond == "linear":
            tangent = (3 * third * rest + 2 * second) * rest + first
            result = result + tangent * (u - inside).reshape(shape)
        return result


@eqx.filter_jit
def _evaluated(spline: LogSpline, radius: Inputs) -> Array:
    return spline(jnp.asarray(radius))
