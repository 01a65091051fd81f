"""Feature vectors rescaled to norms that are known exactly."""

import functools

import jax
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, PerKernel
from ..activations import DualActivation
from ..features._hidden import HiddenFeatures
from ..features._variances import Variances


def with_norm(
    z: Float[Array, "*positions m"], squared_norm: Float[Array, "*positions"]
) -> Float[Array, "*positions m"]:
    """`z` (..., m) rescaled to the given squared norms (...,).

    Zero stays zero, with a gradient of zero, and NaN stays NaN.
    """
    # Scaled to order one before squaring, so that derivatives do not overflow where z is tiny.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=-1, keepdims=True))
    usable = ~((largest <= 0) | (squared_norm <= 0)[..., None])
    z = z / jnp.where(usable, largest, 1)
    own = jnp.where(usable, jnp.sum(z**2, axis=-1, keepdims=True), 1)
    return jnp.where(usable, z * jnp.sqrt(jnp.where(usable, squared_norm[..., None], 1) / own), 0)


#: Below this share of the whole squared norm, a vector that vanishes at some points is near one.
_SMALL = 0.03


@jax.custom_jvp
def with_small_norm(
    z: Float[Array, "*positions m"],
    squared_norm: Float[Array, "*positions"],
    whole: Float[Array, "*positions"],
) -> Float[Array, "*positions m"]:
    """`with_norm` for a part of a vector of squared norm `whole`; the part vanishes at some points.

    Near such a point the factor and its derivative are unbounded, and the derivative is that of
    `z` itself: the expected squared norm of `z` over its draws is the given one, so that it is
    right on average. Elsewhere it is that of `with_norm`, which keeps derivatives of neighbouring
    vectors alike. (Differentiated as `z` everywhere, derivatives with respect to `W_std` of nets
    with three hidden layers are more than ten times as noisy. With derivatives of `with_norm` down
    to a share of 0.01, those with respect to inputs are up to four times as far off near landmarks,
    and at 0.03 a third further than with none.)
    """
    return with_norm(z, squared_norm)


@with_small_norm.defjvp
def _(primals, tangents):
    z, squared_norm, whole = primals
    value, change = jax.jvp(with_norm, (z, squared_norm), tangents[:2])
    near = (squared_norm < _SMALL * whole)[..., None]
    return value, jnp.where(near, tangents[0], change)


def with_exact_norms(nngp: Array, ntk: Array | None, exact: Variances) -> PerKernel:
    """φ' and ψ' of a nonlinearity with `‖φ'_s‖² = K'(s, s)` and `‖ψ'_s‖² = Θ'(s, s)`."""
    norm, norm_ntk = exact.diagonals().kernels
    nngp = with_norm(nngp, norm)
    if ntk is not None and norm_ntk is not None:
        ntk = with_norm(ntk, norm_ntk)
    return PerKernel(nngp, ntk)


def safe_sqrt(q: Array) -> Array:
    """`√q`, and 0 with a gradient of 0 at 0 and below."""
    zero = q <= 0  # False for NaN, which stays NaN
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, q)))


def unit_scale(radius: Array) -> Array:
    """`1 / r`, and 0 at 0, so that zero vectors stay 0."""
    zero = radius <= 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, radius))


def unit_radius(dual: DualActivation, features: HiddenFeatures) -> Array | None:
    """The norms `√q`, for random functions of the direction and the norm; else `None`."""
    if dual.unit is None:
        return None
    return safe_sqrt(features.variances.diagonals().same)


def input_radius(features: HiddenFeatures) -> Array:
    """The norm of φ at the input of a network, where features are exact."""
    return safe_sqrt(
        functools.reduce(jnp.add, (jnp.sum(block**2, axis=-1) for block in features.nngp))
    )


def scaled_to(z: Array, squared_norm: Array, exactly: bool) -> Array:
    """`z` of expected norm 1, scaled to the given squared norms exactly or in expectation."""
    if exactly:
        return with_norm(z, squared_norm)
    return safe_sqrt(squared_norm)[..., None] * z
