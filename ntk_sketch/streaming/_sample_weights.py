"""What weights of examples must be."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._arguments import as_array

#: The largest weight is at most this, and at least one over it: sums must be numbers of float32.
LARGEST = 1e12


def checked_weights(
    sample_weight: Any, n: int, name: str = "sample_weight", *, whole: bool = True
) -> Float[np.ndarray, " n"]:
    """Weights on the host in float64, if they are finite, not negative and one per example.

    Args:
      whole: there are no others, so that some must be above 0.
    """
    array = np.asarray(as_array(sample_weight, name, "of shape (n,)"))
    if array.dtype.kind not in "iub" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {array.dtype}; needed: real numbers >= 0")
    if array.shape != (n,):
        raise ValueError(
            f"{name} has shape {array.shape}; needed: ({n},), one weight for each example"
        )
    array = array.astype(np.float64)
    bad = ~((array >= 0) & np.isfinite(array))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"{name} must be finite and >= 0; {int(bad.sum())} of {n} are not, the first is"
            f" {array[first]} of example {first}. To leave an example out, give it the weight 0"
        )
    check_scale(float(array.max()), name, whole=whole)
    return array


def check_scale(largest: float, name: str = "sample_weight", *, whole: bool = True) -> None:
    """Refuses weights that are all 0, or so large or small that their sums leave float32.

    Args:
      largest: of the weights.
      whole: larger ones will not come.
    """
    if largest == 0 and whole:
        raise ValueError(f"{name} is 0 for all examples: nothing is left to fit")
    if largest > LARGEST or (0 < largest < 1 / LARGEST and whole):
        raise ValueError(
            f"the largest {name} is {largest:.3g}, outside of {1 / LARGEST:g} to {LARGEST:g}:"
            f" divide all of them by c = {largest:.3g}, and diag_reg too, for the same solution"
        )
