"""Jumps of a nonlinearity and of its derivative, and their part in derivatives of random features.

At a point t where a function `f` jumps by J, its derivative has a term `J δ(u - t)` that automatic
differentiation misses. Some random features are such functions of a Gaussian projection u: `σ'` of
Relu, `σ` of Sign. Their values average to a smooth kernel, but without that term their derivatives
do not average to the derivative of the kernel.
"""

from typing import Any

import jax
import numpy as np
from equinox import Module
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Float

from .._typing import Array
from ..identity._specification import in_dtype
from ..numerics._compiling import fitting_jit
from ..numerics._precision import float64
from ._dual import DualActivation, value_and_derivative

#: The largest number of jumps of a function, those nearest to 0.
_MOST = 64

#: One jump is searched in each interval of this grid, which reaches 1e5 on both sides and is fine
#: near 0. It is not symmetric, so that halving an interval does not hit a jump exactly.
_GRID = np.sinh(np.linspace(-12.1, 11.9, 4001))

#: Halvings of an interval, to adjacent numbers of float64, and to 1e-20 at 0.
_HALVINGS = 60

#: Values on both sides are compared at this distance, relative to the point (or 1), and at a
#: sixteenth of it. Only at a jump are both differences the same.
_STEP = 1e-6


class Jumps(Module):
    """Points `t` (k,) where a function of one number jumps, and the heights `J` (k,)."""

    at: Float[Array, " k"]
    by: Float[Array, " k"]

    def slope(self, u: Float[Array, "*positions m"]) -> Array:
        r"""`Σ J δ_h(u - t)` with a smooth `δ_h`, for m random projections u of one vector.

            δ_h(u) = (3 - s²) exp(-s² / 2) / (√(8π) h),     s = u / h,     h = 0.8 m^{-1/9} r,

        where `r² = Σ u² / m` estimates the variance of the projections. The kernel is of fourth
        order. Consider the derivative of `E[1(w·x > 0) 1(w·y > 0)]` for two vectors at an angle θ
        and Gaussian w: its estimate has the relative bias `-(3/8) (h / sin θ)⁴` as h goes to 0, and
        with m projections the relative variance `3.8 / (m h)`. The error is smallest for h
        proportional to `m^{-1/9}`, where it falls as `m^{-4/9}`. The factor 0.8 is best for angles
        of 30 to 60 degrees, and 10 % from the best at 90.

        The result is smooth in u, so that second derivatives are those of the smoothed function. It
        is 0 where all u are 0.
        """
        # Scaled to order one before squaring.
        largest = jnp.max(jnp.abs(u), axis=-1, keepdims=True)
        zero = largest <= 0
        largest = jnp.where(zero, 1, largest)
        radius = largest * jnp.sqrt(
            jnp.mean(jnp.where(zero, 1, u / largest) ** 2, -1, keepdims=True)
        )
        scale = u.shape[-1] ** (1 / 9) / 0.8 / radius

        def add(total, jump):
            at, by = jump
            square = (scale * (u - at)) ** 2
            return total + by * (3 - square) * jnp.exp(-square / 2), None

        total, _ = jax.lax.scan(
            add, jnp.zeros_like(u), (self.at.astype(u.dtype), self.by.astype(u.dtype))
        )
        return jnp.where(zero, 0, scale * (8 * np.pi) ** -0.5 * total)


@jax.custom_jvp
def _with_slope(value: Array, u: Array, jumps: Jumps) -> Array:
    """`value`, whose derivative gets the additional term `jumps.slope(u) du`."""
    del u, jumps
    return value


@_with_slope.defjvp
def _(primals, tangents):
    value, u, jumps = primals
    return value, tangents[0] + jumps.slope(u) * tangents[1]


class RandomFunction(Module):
    """`σ` and `σ'` at random projections, with unbiased derivatives.

    Values are those of `dual.value_and_derivative`, to the last bit. Derivatives are those of
    automatic differentiation, plus `Jumps.slope` if `σ` or `σ'` jumps.

    Some kernels only have a nonlinearity σ₁ at unit variances (`dual.unit`). Then `σ(u)` is
    `r^p σ₁(u / r)` with the norm r of the projected vectors, and `σ'(u)` is `r^(p-1) σ₁'(u / r)`.

    Jumps are found on the host: at 0 for homogeneous functions, by a search for others, and none
    for smooth functions. If a function's parameters are traced, only jumps at 0 are found.
    """

    jumps: tuple[Jumps | None, Jumps | None]

    def __init__(self, dual: DualActivation, dtype=None):
        self.jumps = jumps_of(dual.unit or dual, dtype)

    def __call__(
        self,
        dual: DualActivation,
        u: Float[Array, "*positions m"],
        radius: Float[Array, "*positions"] | None = None,
    ) -> tuple[Array, Array]:
        if dual.unit is not None and radius is not None:
            assert dual.degree is not None
            zero = radius <= 0
            r = jnp.where(zero, 1, radius)[..., None]
            value, derivative = self(dual.unit, u / r)
            zero = zero[..., None]
            value = jnp.where(zero, 0, value * r**dual.degree)
            return value, jnp.where(zero, 0, derivative * r ** (dual.degree - 1))
        value, derivative = (
            y if jumps is None else _with_slope(y, u, jumps)
            for y, jumps in zip(dual.value_and_derivative(u), self.jumps, strict=True)
        )
        return value, derivative


def jumps_of(dual: DualActivation, dtype=None) -> tuple[Jumps | None, Jumps | None]:
    """The jumps of `σ` and those of `σ'`; `None` for a function without jumps."""
    if dual.smooth:
        return None, None
    dtype = jnp.result_type(float) if dtype is None else dtype
    with float64(), jax.ensure_compile_time_eval():  # numbers even while a map is made under jit
        if dual.degree is not None:
            # A σ of degree 0 is constant on either side of 0; for degree 1, σ' is.
            heights = _heights_at_zero(dual, 1.0)
            first, second = (
                _at_zero(height, dtype) if dual.degree == degree else None
                for degree, height in enumerate(heights)
            )
            return first, second
        if dual.specification.is_traced:
            first, second = (_at_zero(height, dtype) for height in _heights_at_zero(dual, _STEP))
            return first, second
        at, by, coarse, level = map(np.asarray, _search(in_dtype(dual, jnp.float64), _GRID))
    first, second = (_jumps(at[i], by[i], coarse[i], level[i], dtype) for i in (0, 1))
    return first, second


def _heights_at_zero(dual: DualActivation, step: float) -> tuple[Array, Array]:
    """The differences of `σ` and of `σ'` from `-step` to `step`."""
    value, derivative = value_and_derivative(dual, np.array([-step, step]))
    return value[1] - value[0], derivative[1] - derivative[0]


def _at_zero(height: Array, dtype) -> Jumps | None:
    height = jax.lax.stop_gradient(height)
    if not isinstance(height, Tracer) and height == 0:
        return None
    return Jumps(jnp.zeros(1, dtype), height.astype(dtype)[None])


def _jumps(at: np.ndarray, by: np.ndarray, coarse: np.ndarray, level: np.ndarray, dtype):
    """The jumps of one function among the steepest points `at`."""
    with np.errstate(invalid="ignore"):
        # The difference grows with the step on a slope, shrinks at a pole, and is equal at a jump.
        jumps = (np.abs(by) > _STEP * level) & (np.abs(by - coarse) < 0.05 * np.abs(by))
    kept = np.flatnonzero(jumps)
    kept = kept[np.argsort(np.abs(at[kept]), kind="stable")[:_MOST]]
    return Jumps(jnp.asarray(at[kept], dtype), jnp.asarray(by[kept], dtype)) if len(kept) else None


def _values(dual: DualActivation, u: Array) -> Array:
    """`σ` at the first row of u, and `σ'` at the second."""
    value, derivative = dual.value_and_derivative(u)
    return jnp.stack([value[0], derivative[1]])


@fitting_jit
def _search(dual: DualActivation, grid: Any) -> tuple[Array, Array, Array, Array]:
    """The steepest point of every interval (2, intervals) for `σ` and `σ'`, their differences
    across it at two distances, and their magnitude.

    `grid` is an argument, so that XLA does not fold the search as an expression of constants.
    """

    def halve(_, ends):
        left, right, low, high = ends
        middle = left + (right - left) / 2
        value = _values(dual, middle)
        first = jnp.abs(value - low) >= jnp.abs(high - value)
        return (
            jnp.where(first, left, middle),
            jnp.where(first, middle, right),
            jnp.where(first, low, value),
            jnp.where(first, value, high),
        )

    # Every call of a function is compiled, so that there are only three, each with many points.
    ends = jnp.stack([grid, grid])
    values = _values(dual, ends)
    left, low = ends[:, :-1], values[:, :-1]
    at, *_ = jax.lax.fori_loop(0, _HALVINGS, halve, (left, ends[:, 1:], low, values[:, 1:]))
    at = jnp.where(jnp.abs(at) < 1e-12, 0, at)
    close, coarse = (step * jnp.maximum(jnp.abs(at), 1) for step in (_STEP / 16, _STEP))
    around = jnp.concatenate([at + close, at - close, at + coarse, at - coarse], axis=1)
    above, below, far_above, far_below = jnp.split(_values(dual, around), 4, axis=1)
    # The magnitude there or near 0: where a function underflows it is a step of tiny numbers.
    near = jnp.where(jnp.abs(left) < 3, jnp.abs(low), 0)
    level = jnp.maximum(jnp.abs(far_above), jnp.max(near, axis=1, keepdims=True))
    return at, above - below, far_above - far_below, level
