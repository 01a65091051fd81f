"""Jumps of a nonlinearity and of its derivative, and their part in derivatives of random features.

At a point t where a function `f` jumps by J, its derivative has a part `J δ(u - t)` that automatic
differentiation does not see. A random feature is such a function of a Gaussian projection u: `σ'`
of Relu, `σ` of Sign. Its values average to a smooth kernel, the derivatives that automatic
differentiation finds average to something else.
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

#: Jumps of a function, those nearest to 0, at most.
_MOST = 64

#: Where jumps are looked for, one in each interval: 1e5 on both sides, finely near 0; of no
#: symmetry, so that halving an interval does not hit a point where both sides of a jump meet.
_GRID = np.sinh(np.linspace(-12.1, 11.9, 4001))

#: Halvings of an interval, to adjacent numbers of float64, and to 1e-20 at 0.
_HALVINGS = 60

#: On both sides of a jump, relative to where it is (or 1), values are compared at this distance and
#: at a sixteenth of it: they differ by the same at a jump alone.
_STEP = 1e-6


class Jumps(Module):
    """Points `t` (k,) where a function of one number jumps, and the heights `J` (k,)."""

    at: Float[Array, " k"]
    by: Float[Array, " k"]

    def slope(self, u: Float[Array, "*positions m"]) -> Array:
        r"""`Σ J δ_h(u - t)` with a smooth `δ_h`, for m random projections u of one vector.

            δ_h(u) = (3 - s²) exp(-s² / 2) / (√(8π) h),     s = u / h,     h = 0.8 m^{-1/9} r,

        where `r² = Σ u² / m` stands for the projections' variance. The kernel is of fourth order.
        For two vectors at an angle θ that projects unit Gaussian w, the mean over w of the
        derivative of `E[1(w·x > 0) 1(w·y > 0)]` has the relative bias `-(3/8) (h / sin θ)⁴` as h
        goes to 0, and m of them the relative variance `3.8 / (m h)`. Their sum is least at an h in
        proportion to `m^{-1/9}`, where the error falls as `m^{-4/9}`; the factor is best for
        angles of 30 to 60 degrees, and 10 % from the best at 90.

        Smooth in u, so that second derivatives are those of the smoothed function; 0 where all u
        are 0.
        """
        # Of order one before it is squared.
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
    """`value` itself; its derivative is its own and, with respect to u, that of the jumps."""
    del u, jumps
    return value


@_with_slope.defjvp
def _(primals, tangents):
    value, u, jumps = primals
    return value, tangents[0] + jumps.slope(u) * tangents[1]


class RandomFunction(Module):
    """`σ` and `σ'` at random projections, with derivatives that are right on average.

    Values are those of `dual.value_and_derivative`, to the last bit. Derivatives are the automatic
    ones and, where `σ` or `σ'` jumps, `Jumps.slope`. Where neither does, nothing is added.

    Where there is σ₁ alone, the kernels' nonlinearity at unit variances (`dual.unit`), `σ(u)` is
    `r^p σ₁(u / r)` with the radius r of the projected vectors, and `σ'(u)` is `r^(p-1) σ₁'(u / r)`.

    Jumps are found on the host: of homogeneous functions at 0, of smooth ones nowhere, of others by
    a search. Where the numbers of these are traced they are looked for at 0 alone.
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
    """The jumps of `σ` and those of `σ'`; `None` for a function without."""
    if dual.smooth:
        return None, None
    dtype = jnp.result_type(float) if dtype is None else dtype
    with float64(), jax.ensure_compile_time_eval():  # numbers even while a map is made under jit
        if dual.degree is not None:
            # Of degree 0, σ is a constant on either side of 0; of degree 1, σ' is.
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
    """How much `σ` and `σ'` rise from `-step` to `step`."""
    value, derivative = value_and_derivative(dual, np.array([-step, step]))
    return value[1] - value[0], derivative[1] - derivative[0]


def _at_zero(height: Array, dtype) -> Jumps | None:
    height = jax.lax.stop_gradient(height)
    if not isinstance(height, Tracer) and height == 0:
        return None
    return Jumps(jnp.zeros(1, dtype), height.astype(dtype)[None])


def _jumps(at: np.ndarray, by: np.ndarray, coarse: np.ndarray, level: np.ndarray, dtype):
    """Those points of one function where it jumps."""
    with np.errstate(invalid="ignore"):
        # A steep slope grows with the step and a pole shrinks; a jump is the same.
        jumps = (np.abs(by) > _STEP * level) & (np.abs(by - coarse) < 0.05 * np.abs(by))
    kept = np.flatnonzero(jumps)
    kept = kept[np.argsort(np.abs(at[kept]), kind="stable")[:_MOST]]
    return Jumps(jnp.asarray(at[kept], dtype), jnp.asarray(by[kept], dtype)) if len(kept) else None


def _values(dual: DualActivation, u: Array) -> Array:
    """`σ` of the first row and `σ'` of the second."""
    value, derivative = dual.value_and_derivative(u)
    return jnp.stack([value[0], derivative[1]])


@fitting_jit
def _search(dual: DualActivation, grid: Any) -> tuple[Array, Array, Array, Array]:
    """The steepest point of every interval, (2, intervals) for `σ` and `σ'`; how much they rise
    across it, close by and less close; and their size.

    `grid` is an argument, since what is computed of constants would be so step by step.
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

    # Every use of a function is compiled: three, each of all the points that it can be.
    ends = jnp.stack([grid, grid])
    values = _values(dual, ends)
    left, low = ends[:, :-1], values[:, :-1]
    at, *_ = jax.lax.fori_loop(0, _HALVINGS, halve, (left, ends[:, 1:], low, values[:, 1:]))
    at = jnp.where(jnp.abs(at) < 1e-12, 0, at)
    close, coarse = (step * jnp.maximum(jnp.abs(at), 1) for step in (_STEP / 16, _STEP))
    around = jnp.concatenate([at + close, at - close, at + coarse, at - coarse], axis=1)
    above, below, far_above, far_below = jnp.split(_values(dual, around), 4, axis=1)
    # Their size there or near 0: where a function underflows it is a step of tiny numbers.
    near = jnp.where(jnp.abs(left) < 3, jnp.abs(low), 0)
    level = jnp.maximum(jnp.abs(far_above), jnp.max(near, axis=1, keepdims=True))
    return at, above - below, far_above - far_below, level
