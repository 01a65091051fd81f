"""Vectorised inverse trigonometric functions.

On a CPU XLA calls the C library for every element of these three functions. Dual kernels would
spend nearly all their time there.
"""

import math

from jax import lax
from jax import numpy as jnp

from .._typing import Array

# (atan(t) / t - 1) / t² as a polynomial in t², |t| <= 1, to 2e-8: Abramowitz and Stegun 4.4.49.
_ATAN = (
    0.0028662257,
    -0.0161657367,
    0.0429096138,
    -0.0752896400,
    0.1065626393,
    -0.1420889944,
    0.1999355085,
    -0.3333314528,
)


def atan2(y: Array, x: Array) -> Array:
    """The angle of (x, y), to a few units in the last place of float32.

    It is twice the angle with tangent `y / (|x| + √(x² + y²))`, scaled so that squares neither
    overflow nor underflow.
    """
    # In plain `lax`: `jnp` traces a function for each operation, in every ReLU's kernel.
    of = x.dtype.type
    largest = lax.max(lax.abs(x), lax.abs(y))
    scale = lax.div(of(1), lax.clamp(of(1e-37), largest, of(1e37)))
    run, rise = lax.mul(x, scale), lax.mul(y, scale)
    length = lax.sqrt(lax.add(lax.mul(run, run), lax.mul(rise, rise)))
    t = lax.div(rise, lax.max(lax.add(lax.abs(run), length), of(1e-37)))
    square, series = lax.mul(t, t), lax.full_like(t, _ATAN[0])
    for coefficient in _ATAN[1:]:
        series = lax.add(lax.mul(series, square), of(coefficient))
    angle = lax.mul(of(2), lax.add(t, lax.mul(t, lax.mul(square, series))))
    half_turn = lax.select(lax.lt(y, of(0)), lax.full_like(y, -math.pi), lax.full_like(y, math.pi))
    return lax.select(lax.lt(x, of(0)), lax.sub(half_turn, angle), angle)


def asin(x: Array, **_) -> Array:
    return atan2(x, jnp.sqrt((1 - x) * (1 + x)))


def acos(x: Array, **_) -> Array:
    return atan2(jnp.sqrt((1 - x) * (1 + x)), x)


#: The functions by the names of JAX's primitives.
VECTORISED = {lax.atan2_p.name: atan2, lax.asin_p.name: asin, lax.acos_p.name: acos}
