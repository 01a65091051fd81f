"""Sums of a regression in float64."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .._typing import Inputs


class HostSums(NamedTuple):
    """What a `GramState` holds, with targets in `units`. On the host, but for ZᵀZ of a GPU."""

    gram: Float[Inputs, "p p"]
    cross: Float[np.ndarray, "p k"]
    target_norm: Float[np.ndarray, " k"]
    target_sum: Float[np.ndarray, " k"]
    feature_norm: Float[np.ndarray, ""]
    feature_sum: Float[np.ndarray, " p"]
    weight: Float[np.ndarray, ""]
