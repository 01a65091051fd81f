"""Memory for the covariances of pairs of positions, which exact variances need."""

import math
import warnings
from typing import Any

import numpy as np

from .._typing import Offsets
from ..stax._rule import Rule

#: Matrices over pairs of positions held at once where a layer compares positions: attention
#: weights, K, Θ and a product.
_MATRICES = 4

#: Bands of covariances at the input: K and Θ.
_BANDS = 2

#: Covariances that take more than this for one example are unusual.
_USUAL_BYTES = 2**28


def bytes_of_pairs(rule: Rule, offsets: Offsets, shape: tuple[int, ...], dtype: Any) -> int:
    """About the bytes for one example of all covariances that a network needs at once: of pairs
    that a layer compares, or of the band at the input, where positions are most.
    """
    compared = _MATRICES * rule.compared_pairs(tuple(shape))
    band = 0 if offsets is None else math.prod([*shape[1:-1], *map(len, offsets)])
    return max(compared, _BANDS * band) * np.dtype(dtype).itemsize


def are_many(needed: int) -> bool:
    return needed > _USUAL_BYTES


def warn_of_pairs(rule: Rule, offsets: Offsets, shape, dtype, stacklevel: int) -> None:
    """Warns if covariances of pairs of positions of an example take more than 256 MiB."""
    needed = bytes_of_pairs(rule, offsets, shape, dtype)
    if are_many(needed):
        warnings.warn(
            f"exact variances of inputs of shape (n, {', '.join(map(str, shape[1:]))}) need the"
            " covariances of pairs of positions, for attention, aggregation or pools before a"
            f" nonlinearity: about {needed / 2**20:,.0f} MiB for every example of a batch. Pool"
            " positions before, with smaller windows, or use small batches",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
