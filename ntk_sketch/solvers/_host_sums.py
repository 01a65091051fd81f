"""Sums of a regression on the host."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class HostSums(NamedTuple):
    """What a `GramState` holds, in float64 on the host and with targets in `units`."""

    gram: Float[np.ndarray, "p p"]
    cross: Float[np.ndarray, "p k"]
    target_norm: Float[np.ndarray, " k"]
    target_sum: Float[np.ndarray, " k"]
    feature_norm: Float[np.ndarray, ""]
    feature_sum: Float[np.ndarray, " p"]
    weight: Float[np.ndarray, ""]
