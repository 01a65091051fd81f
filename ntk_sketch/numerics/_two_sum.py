"""Sums as pairs of floats, with twice the digits of the dtype and without 64-bit arithmetic."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from .._typing import Inputs
from ._linalg import in_float64, in_place, product
from ._precision import float64

_ROWS = 1024


def two_sum(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The rounded sum and its rounding error: `a + b = total + error` exactly.

    Source: D. E. Knuth, The Art of Computer Programming vol. 2, 4.2.2, theorem B. 6 FLOPs.
    """
    total = a + b
    b_seen = total - a
    return total, (a - (total - b_seen)) + (b - b_seen)


def _rounded(increment: Float[Array, "*shape"], beside: Float[Array, "*shape"]):
    """`increment` as a value that the compiler must round.

    XLA may contract a product and an addition into one fused multiply-add, whose product is not
    rounded. `two_sum` would then return the error of a different sum. XLA on the CPU does so for
    small blocks, in spite of `lax.optimization_barrier` and `lax.reduce_precision`. An integer
    operation in between prevents it: the bits are xor-ed with a number that is zero unless the
    total is NaN, which the compiler cannot know.
    """
    as_integer = jnp.dtype(f"int{8 * increment.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(increment, as_integer)
    bits = bits ^ jnp.isnan(beside).astype(as_integer)
    return jax.lax.bitcast_convert_type(bits, increment.dtype)


class Pair(eqx.Module):
    """An unevaluated sum `high + low`; `|low|` is at most half a unit in the last place of `high`.

    A float32 pair has about 48 bits. The sum of n numbers has an error, relative to the sum of
    their absolute values, of about n eps² / 4 instead of n eps / 2.
    """

    high: Shaped[Array, "*shape"]
    low: Shaped[Array, "*shape"]

    @staticmethod
    def zeros(shape: tuple[int, ...], dtype) -> Pair:
        return Pair(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    @staticmethod
    def of_host(total: Float[np.ndarray, "*shape"], dtype) -> Pair:
        """The pair of a float64 NumPy array: its first 48 bits in float32, all of it in float64."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite beyond the dtype's range
            high = np.asarray(total).astype(dtype)
            low = np.where(np.isfinite(high), total - high.astype(np.float64), 0).astype(dtype)
        return Pair(jax.device_put(high), jax.device_put(low))

    def of_dtype(self, dtype) -> Pair:
        """The pair in a narrower dtype, with as many digits as that holds."""
        limits = jnp.finfo(dtype)
        # XLA would remove two opposite conversions in a row
        high = jax.lax.reduce_precision(self.high, limits.nexp, limits.nmant)
        rest = jnp.where(jnp.isfinite(high), (self.high - high) + self.low, 0)
        return Pair(high.astype(dtype), rest.astype(dtype))

    def times(self, factor: Float[Array, ""]) -> Pair:
        """The pair times a power of two, exactly."""
        return Pair(self.high * factor, self.low * factor)

    def add(self, increment: Float[Array, "*shape"]) -> Pair:
        """The pair plus an array. 10 FLOPs an entry; reads three arrays and writes two."""
        high, error = two_sum(self.high, _rounded(increment, self.high))
        return _normalised(high, self.low + error)

    def merge(self, other: Pair) -> Pair:
        """The sum of two pairs; associative and commutative to about eps²."""
        high, error = two_sum(self.high, other.high)
        return _normalised(high, (self.low + other.low) + error)

    def sum(self) -> Pair:
        """The sum of a vector: halves are merged until one number is left."""
        pair = self
        while (n := pair.high.shape[0]) > 1:
            m = -(-n // 2)
            halves = [jax.tree.map(lambda a, p=p: a[p], pair) for p in (slice(m), slice(m, n))]
            second = jax.tree.map(lambda a, m=m, n=n: jnp.pad(a, (0, 2 * m - n)), halves[1])
            pair = halves[0].merge(second)
        return jax.tree.map(lambda a: a[0], pair)

    def in_place(self) -> Float[Inputs, "*shape"]:
        """`high + low` in float64, in NumPy or on their GPU (`in_float64`)."""
        return _in_float64(in_place(self.high), in_place(self.low))

    def product(self, columns: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "n k"]:
        """`(high + low) @ columns` for a matrix, in float64 on the host. Only some rows of the
        matrix are converted to float64 at a time.
        """
        high, low = in_place(self.high), in_place(self.low)
        parts = [slice(start, start + _ROWS) for start in range(0, len(high), _ROWS)]
        return np.concatenate([product(_in_float64(high[p], low[p]), columns) for p in parts])

    def to_host(self) -> Float[np.ndarray, "*shape"]:
        """`high + low` in float64 NumPy."""
        total = np.asarray(self.high).astype(np.float64)
        total += np.asarray(self.low)
        return total


def _in_float64(high: Inputs, low: Inputs) -> Inputs:
    total = in_float64(high)
    with float64():
        total += low if isinstance(low, np.ndarray) else in_float64(low)
    return total


def _normalised(high: Float[Array, "*shape"], low: Float[Array, "*shape"]) -> Pair:
    total = high + low
    return Pair(total, low - (total - high))
