"""Random numbers of the host, under JAX's keys."""

import jax
import numpy as np
from jax import numpy as jnp

from .._typing import PRNGKey


def generator(key: PRNGKey) -> np.random.Generator:
    """NumPy's generator of random numbers for what is drawn on the host."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.random.default_rng(np.asarray(jax.random.key_data(key) if typed else key))
