"""What targets must be."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._arguments import as_array, check_finite


def checked_targets(y: Any, n: int, name: str = "y") -> tuple[Float[np.ndarray, "n k"], bool]:
    """Targets on the host as (n, k), if they are finite, floating point and one per example; and
    whether they were (n,). Not copied, and in their own dtype.
    """
    y = np.asarray(as_array(y, name, "of shape (n,) or (n, outputs)"))
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(_not_floating(y, name))
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {y.shape}; needed: (n,) or (n, outputs)")
    if y.shape[0] != n:
        raise ValueError(f"{n} examples but {y.shape[0]} rows of {name}; needed: one per example")
    if 0 in y.shape:
        raise ValueError(f"{name} has shape {y.shape}: it has no outputs")
    check_finite(y, name)
    return y.reshape(n, -1), y.ndim == 1


def _not_floating(y: np.ndarray, name: str) -> str:
    got = f"{name} has dtype {y.dtype}, but ridge regression needs floating-point targets. "
    if y.dtype.kind in "OUS":
        return got + (
            "Names of classes become numbers, labels, and these centred one-hot rows: labels = "
            f"np.unique({name}, return_inverse=True)[1]; {name} = jax.nn.one_hot(labels, k) - 1 / k"
        )
    if y.dtype.kind == "b":
        return got + (
            f"Two classes become -1 and 1: {name} = 2.0 * {name} - 1; several, one column each, "
            f"centred one-hot rows: {name} = {name} - 1 / {name}.shape[1]"
        )
    return got + (
        "Class labels become centred one-hot rows, here for 10 classes: "
        f"{name} = jax.nn.one_hot({name}, 10) - 0.1. Counts become numbers: "
        f"{name} = {name}.astype(np.float32)"
    )
