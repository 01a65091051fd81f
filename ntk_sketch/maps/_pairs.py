"""Memory for the covariances of pairs of positions, which exact variances need."""

import warnings
from typing import Any

import numpy as np

from .._typing import Offsets
from ..methods import Method
from ..stax._rule import Rule

#: Covariances that take more than this for one example are unusual, and those that take more for
#: all examples of a sample.
_USUAL_BYTES, _USUAL_BYTES_OF_SAMPLE = 2**28, 2**33


def bytes_of_pairs(
    rule: Rule, last: Offsets, shape: tuple[int, ...], dtype: Any, method: Method, **kwargs
) -> int:
    """About the bytes for one example of all covariances that a network needs at once: of pairs
    that a layer compares, or of a band between two layers.

    Args:
        last: the offsets at which the output must have variances.
        shape: of the inputs.
        **kwargs: call-time arguments.
    """
    numbers = rule.covariances(last, tuple(shape), method=method, **kwargs)
    return numbers * np.dtype(dtype).itemsize


def are_many(needed: int) -> bool:
    return needed > _USUAL_BYTES


def warn_of_pairs(needed: int, shape: tuple[int, ...], sample: int, stacklevel: int) -> None:
    """Warns if covariances of pairs of positions take more than 256 MiB for an example, or more
    than 8 GiB for a sample that is held at once.

    Args:
        needed: `bytes_of_pairs`.
        shape: of the inputs.
        sample: number of examples of a sample that a method looks at, or 0.
    """
    if are_many(needed) or sample * needed > _USUAL_BYTES_OF_SAMPLE:
        of_sample = f", {sample * needed / 2**20:,.0f} MiB for the sample" if sample else ""
        smaller = " and a smaller sample" if sample else ""
        warnings.warn(
            f"exact variances of inputs of shape (n, {', '.join(map(str, shape[1:]))}) need the"
            " covariances of pairs of positions, for attention, aggregation or pools before a"
            f" nonlinearity: about {needed / 2**20:,.0f} MiB for every example of a"
            f" batch{of_sample}. Pool positions before, with smaller windows, or use small"
            f" batches{smaller}",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
