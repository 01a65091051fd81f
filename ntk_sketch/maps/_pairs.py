"""Memory for the covariances of pairs of positions, which exact variances need."""

import warnings
from typing import Any

import numpy as np

from ..stax._rule import Covariances

#: Covariances that take more than this for one example are unusual, and bands that take more for
#: all examples of a sample.
_USUAL_BYTES, _USUAL_BYTES_OF_SAMPLE = 2**28, 2**33


def are_many(numbers: Covariances, dtype: Any) -> bool:
    """Whether covariances take more than 256 MiB for an example, or for all of them together."""
    return max(numbers) * np.dtype(dtype).itemsize > _USUAL_BYTES


def warn_of_pairs(
    numbers: Covariances, shape: tuple[int, ...], dtype: Any, sample: int, stacklevel: int
) -> None:
    """Warns if covariances take more than 256 MiB for an example or for all of them together, or
    bands of them more than 8 GiB for a sample, of which they are held at once.

    Args:
        shape: of the inputs.
        sample: number of examples of a sample that a method looks at, or 0.
    """
    size = np.dtype(dtype).itemsize
    needed, of_sample = max(numbers[:2]) * size, sample * numbers.bands * size
    shared = numbers.shared * size
    if are_many(numbers, dtype) or of_sample > _USUAL_BYTES_OF_SAMPLE:
        also = f", and {of_sample / 2**20:,.0f} MiB for the sample" if of_sample else ""
        also += f", and {shared / 2**20:,.0f} MiB for all of them together" if shared else ""
        smaller = ", or use small batches" if max(needed, of_sample) > shared else ""
        smaller += " and a smaller sample" if of_sample else ""
        shown = ", ".join(map(str, shape[1:]))
        warnings.warn(
            f"exact variances of inputs of shape (n, {shown}) need the covariances of pairs of"
            " positions, for attention, aggregation, pools or other sums of positions before a"
            f" nonlinearity: about {needed / 2**20:,.0f} MiB for every example of a batch{also}."
            " Pool positions before, with smaller windows" + smaller,
            UserWarning,
            stacklevel=stacklevel + 1,
        )
