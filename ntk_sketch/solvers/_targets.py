"""Units of targets in which sums of squares neither overflow nor underflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

_PART = 1 << 20  # numbers

#: 2^±LARGEST_EXPONENT, and squares of targets in such units, are normal numbers of float32.
LARGEST_EXPONENT = 100


class Units(NamedTuple):
    """`t = (y - shift) / 2^exponent`.

    A power of two, so that scaling is exact; one for all outputs, so that squared errors of several
    outputs can be added.
    """

    shift: Float[np.ndarray, " k"]
    exponent: int

    @property
    def scale(self) -> float:
        return float(np.ldexp(1.0, self.exponent))

    def of(self, y: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
        return np.ldexp(y.astype(np.float64) - self.shift, -self.exponent)


def centred_units(
    y: Float[np.ndarray, "n k"], dtype, sample_weight: Float[np.ndarray, " n"] | None = None
) -> Units:
    """Units in which these targets have the (weighted) mean 0 (to the digits of a pair of `dtype`;
    means near its smallest numbers stay) and are of order 1."""
    total = len(y) if sample_weight is None else np.sum(sample_weight)
    mean = np.sum([part.sum(axis=0) for part in _parts(y, sample_weight)], axis=0) / total
    numbers = jnp.finfo(dtype)
    mean[np.abs(mean) < numbers.tiny / numbers.eps] = 0  # a pair would lose its digits
    high = mean.astype(dtype).astype(np.float64)
    shift = high + (mean - high).astype(dtype)
    return Units(shift, max(exponent_of(part - shift) for part in _parts(y)))


def weighted_mean(
    a: Float[np.ndarray, "n k"], sample_weight: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " k"]:
    return np.sum(a * sample_weight[:, None], axis=0) / np.sum(sample_weight)


def scaled_units(y: Float[np.ndarray, "n k"]) -> Units:
    """Units without a shift, in which these targets are of order 1."""
    return Units(np.zeros(y.shape[1]), exponent_of(y))


def exponent_of(y: Float[np.ndarray, ...]) -> int:
    """Of the power of two that brings these numbers to order 1."""
    return int(np.clip(np.frexp(np.abs(y).max())[1], -LARGEST_EXPONENT, LARGEST_EXPONENT))


def _parts(
    y: Float[np.ndarray, "n k"], sample_weight: Float[np.ndarray, " n"] | None = None
) -> Iterator[Float[np.ndarray, "m k"]]:
    """In float64, a part at a time: targets of any dtype may be larger than memory. With weights
    each row is multiplied by its own."""
    rows = max(1, _PART // y.shape[1])
    for start in range(0, len(y), rows):
        part = y[start : start + rows].astype(np.float64)
        yield part if sample_weight is None else part * sample_weight[start : start + rows, None]


def mean_to_spread(mean_square: float, variance: float) -> float:
    """√(Σ mean² / Σ variance) over the outputs."""
    with np.errstate(divide="ignore"):
        return float(np.sqrt(np.divide(mean_square, variance))) if mean_square > 0 else 0.0
