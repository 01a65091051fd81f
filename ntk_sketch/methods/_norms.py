"""Feature vectors rescaled to norms that are known exactly."""

import jax
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array


def with_norm(
    z: Float[Array, "*positions m"], squared_norm: Float[Array, "*positions"]
) -> Float[Array, "*positions m"]:
    """`z` (..., m) rescaled to the given squared norms (...,); 0 stays 0, with a gradient of 0."""
    # Of order one before it is squared, so that its derivatives do not overflow where z is tiny.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=-1, keepdims=True))
    usable = (largest > 0) & (squared_norm > 0)[..., None]
    z = z / jnp.where(usable, largest, 1)
    own = jnp.where(usable, jnp.sum(z**2, axis=-1, keepdims=True), 1)
    return jnp.where(usable, z * jnp.sqrt(jnp.where(usable, squared_norm[..., None], 1) / own), 0)
