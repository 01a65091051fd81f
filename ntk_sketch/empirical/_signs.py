"""Random signs that are drawn again at each use instead of stored."""

import jax
from jax import numpy as jnp
from jaxtyping import Int, Int8, UInt32

from .._typing import Array, PRNGKey

_BITS = 32


def seed_of(key: PRNGKey) -> UInt32[Array, " 2"]:
    """A seed of plain numbers from a key of any implementation."""
    return jax.random.bits(key, (2,), "uint32")


def signs(seed: UInt32[Array, " 2"], number: Int[Array, ""], n: int) -> Int8[Array, " n"]:
    """The n signs of block `number`, 32 from each random word."""
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), number)
    words = jax.random.bits(key, (-(-n // _BITS), 1), "uint32")
    bits = (words >> jnp.arange(_BITS, dtype="uint32")[None]) & jnp.uint32(1)
    return (1 - 2 * bits.astype(jnp.int8)).reshape(-1)[:n]
