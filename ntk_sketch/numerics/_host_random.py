"""Random numbers on the host from keys of JAX."""

import jax
import numpy as np
from jax import numpy as jnp

from .._typing import PRNGKey


def generator(key: PRNGKey) -> np.random.Generator:
    """NumPy's random number generator, seeded by a key of JAX."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.random.default_rng(np.asarray(jax.random.key_data(key) if typed else key))
