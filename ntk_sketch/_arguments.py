"""Checks of users' arguments: arrays, integers, shares, choices and keys.

Values are checked where data enter: in `feature_map`, `ridge`, `accumulate`, `stream` and
`predict`. A call of a map checks only shape and dtype, since reading values would wait for the
device; so does everything under `jit`. NaN in such a call give NaN in the same rows.

Objects with `__array__` are converted by NumPy: data frames, tensors on the CPU, HDF5 data sets.
Numbers in nested lists become floating point. Integer arrays are refused: only the user knows
whether they are pixels, counts or labels.
"""

import functools
import numbers
import operator
import os
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

_CHUNK = 1 << 24  # numbers checked at a time, so that no temporary has the size of x


def as_array(x: Any, name: str = "x", wanted: str = "(n, ...)") -> Any:
    """`x` as an array of NumPy, or of JAX if it is one already.

    Raises:
        TypeError: NumPy cannot convert x; the message says what to do.
        ValueError: nested lists have different lengths.
    """
    kind = type(x).__name__
    if isinstance(x, jax.Array | jax.ShapeDtypeStruct):  # traced ones included
        return x
    for method in ("toarray", "todense"):
        if hasattr(x, method):
            raise TypeError(
                f"{name} is a sparse array ({kind}); needed: a dense one {wanted}. Pass"
                f" {name}.{method}(), in batches if it does not fit in memory."
            )
    listed = isinstance(x, list | tuple)
    if listed and x and all(hasattr(entry, "shape") and np.ndim(entry) > 1 for entry in x):
        raise TypeError(
            f"{name} is a {kind} of {len(x)} arrays; needed: one array {wanted}. Join them with"
            " np.concatenate, or where batches are taken give pairs, list(zip(xs, ys)); networks of"
            " several inputs have no features."
        )
    if isinstance(x, str | os.PathLike):
        raise TypeError(
            f"{name} must be one array {wanted}, got {kind} {str(x)!r}. Of a file give its array:"
            f" np.load({str(x)!r}, mmap_mode='r') does not read it into memory."
        )
    if not listed and not hasattr(x, "__array__"):
        raise TypeError(f"{name} must be one array {wanted}, got {kind}.")
    try:
        array = np.asarray(x)
    except Exception as error:
        what = ValueError if listed else TypeError
        raise what(f"{name} must be one array {wanted}; NumPy cannot read it: {error}") from error
    if listed and array.dtype.kind in "iu":
        array = array.astype(np.float64)
    return native(array)


def on_host(x: Any) -> Any:
    """A JAX array on the CPU as a NumPy array, without a copy: slicing then compiles nothing."""
    if isinstance(x, Tracer) or not isinstance(x, jax.Array) or jax.default_backend() != "cpu":
        return x
    return np.asarray(x)


def native(array: np.ndarray) -> np.ndarray:
    """The array in the machine's byte order and at most float64, as JAX needs it."""
    if array.dtype.kind != "f":
        return array
    if array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def checked_inputs(
    x: Any, name: str = "x", shape: tuple[int, ...] | None = None, values: bool = True
) -> Any:
    """`x` as an array, checked to be a non-empty batch of floating point examples.

    Args:
        x: the user's argument.
        name: of the argument, for errors.
        shape: of one example; `None`: any.
        values: whether to check that values are finite.
    """
    wanted = "(n, ...)" if shape is None else f"(n, {', '.join(map(str, shape))})"
    x = as_array(x, name, f"of shape {wanted}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(_not_floating(x.dtype, name))
    got = tuple(x.shape)
    if shape is None and len(got) < 2:
        one = f"One example is {name}[None]" if len(got) else "One number is not an example"
        raise ValueError(
            f"{name} must have shape (n, ..., channels), got {got}. {one}; one number for each"
            f" example is {name}[:, None]."
        )
    if shape is not None and (got[1:] != tuple(shape) or len(got) != len(shape) + 1):
        remedy = f" One example is {name}[None]." if got == tuple(shape) else ""
        if shape[-1:] == (1,) and got[1:] == tuple(shape[:-1]):
            remedy = f" Add the axis of channels, {name}[..., None]."
        raise ValueError(
            f"{name} has shape {got}; this model and feature map need {wanted}.{remedy}"
        )
    if 0 in got:
        raise ValueError(
            f"{name} is empty: its shape is {got}; at least one example and one number are needed."
        )
    if values and not isinstance(x, Tracer | jax.ShapeDtypeStruct):
        _check_squares(x, check_finite(x, name), name)
    return x


def _not_floating(dtype: Any, name: str) -> str:
    kind = getattr(dtype, "kind", "V")
    got = f"{name} has dtype {dtype}; features need floating point inputs. "
    if kind in "OUSMmV":
        return got + (
            f"Encode text, dates and missing values as numbers first, then use"
            f" {name}.astype(np.float32)."
        )
    if kind == "c":
        return got + f"Use real and imaginary parts as channels: {name}.real, {name}.imag."
    return got + (
        "Convert and scale them first, for images for example"
        f" `{name}.astype(np.float32) / 255`; standardise counts."
    )


def check_finite(x: Any, name: str) -> float:
    """Refuses NaN and infinity; returns the largest absolute value. x is read once."""
    bad, first, largest = 0, None, 0.0
    for start, chunk in _chunks(x):
        # the extremes are NaN or infinite when an entry is, and need no temporary
        low, high = float(chunk.min()), float(chunk.max())
        if np.isfinite(low) and np.isfinite(high):
            largest = max(largest, -low, high)
            continue
        rows = ~np.isfinite(np.asarray(chunk).astype(np.float64)).reshape(len(chunk), -1)
        bad += int(rows.sum())
        first = start + int(np.argmax(rows.any(axis=1))) if first is None else first
    if bad:
        raise ValueError(
            f"{name} is not finite ({bad} entries that are NaN or infinite, the first in row"
            f" {first}). Remove or replace them. Positions that stand for nothing may be marked by"
            " a number, such as -1000.0, and masked: feature_map(..., mask_constant=-1000.0)."
        )
    return largest


def _check_squares(x: Any, largest: float, name: str) -> None:
    """Refuses entries so large that the squared norm of an example may overflow."""
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if largest > (float(jnp.finfo(dtype).max) / max(int(np.prod(x.shape[1:])), 1)) ** 0.5:
        raise ValueError(
            f"{name} has entries of {largest:.3g}, whose squares overflow {dtype}: scale the inputs"
            " down, or standardise them."
        )


def warn_of_lost_variation(x: Any, name: str = "x", stacklevel: int = 4) -> None:
    """Warns of float64 columns (the last axis) whose variation is lost in float32.

    That is so if the spacing of float32 numbers there exceeds a thousandth of the column's range.
    """
    if isinstance(x, np.ndarray) and len(x) > 1:
        ranges = column_ranges(x)
        warn_of_lost_ranges(ranges, name, stacklevel + 1)


def column_ranges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Smallest and largest entry of each column, if float64 is rounded to float32; else None."""
    if x.dtype != np.float64 or jax.dtypes.canonicalize_dtype(x.dtype) == np.float64:
        return None
    columns = [(c.min(0), c.max(0)) for c in (c.reshape(-1, x.shape[-1]) for _, c in _chunks(x))]
    low, high = zip(*columns, strict=True)
    return functools.reduce(np.minimum, low), functools.reduce(np.maximum, high)


def warn_of_lost_ranges(
    ranges: tuple[np.ndarray, np.ndarray] | None, name: str = "x", stacklevel: int = 4
) -> None:
    """As `warn_of_lost_variation`, from `column_ranges`."""
    if ranges is None:
        return
    low, high = ranges
    dtype = jax.dtypes.canonicalize_dtype(low.dtype)
    spacing = float(jnp.finfo(dtype).eps) * np.maximum(np.abs(low), np.abs(high))
    lost = np.flatnonzero((high > low) & (spacing > 1e-3 * (high - low)))
    if len(lost):
        c = lost[0]
        warnings.warn(
            f"column {c} of {name} varies from {low[c]:.10g} to {high[c]:.10g}, of which {dtype}"
            f" resolves steps of {spacing[c]:.2g}: most of its variation is lost. Standardise the"
            f" columns of {name} before ({len(lost)} of {len(low)} are affected)",
            RuntimeWarning,
            stacklevel=stacklevel,
        )


def root_mean_squares(x: Any) -> np.ndarray:
    """The root mean square of each example: (n,)."""
    parts = []
    for _, chunk in _chunks(x):
        rows = np.asarray(chunk).reshape(len(chunk), -1).astype(np.float64)
        parts.append(np.sqrt(np.mean(rows**2, axis=1)))
    return np.concatenate(parts)


def _chunks(x: Any):
    x = on_host(x)
    rows = max(1, _CHUNK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, x.shape[0], rows):
        yield start, x[start : start + rows]


def checked_examples(x: Any, name: str = "x") -> Any:
    """Inputs as an array to slice batches from, on the host unless it is on an accelerator."""
    return on_host(checked_inputs(x, name))


def checked_key(key: Any) -> Any:
    """Checks for one key of `jax.random`, typed or raw; refuses a seed."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32 and key.ndim == 1
    if (typed and key.ndim == 0) or raw:
        return key
    if typed:
        raise TypeError(f"key must be one key, got keys of shape {key.shape}; take one, keys[0].")
    seed = key if isinstance(key, int) and not isinstance(key, bool) else 0
    raise TypeError(
        f"key must be a key of jax.random, got {key!r}; for a seed write jax.random.key({seed})."
    )


def checked_integer(
    value: Any, name: str, *, least: int = 1, largest: int | None = None, hint: str = ""
) -> int:
    """Checks for an integer (of Python or NumPy, or an array of one) from `least` to `largest`.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is outside of the range; the message ends with the hint.
    """
    wanted = {1: "a positive integer"}.get(least, f"an integer of {least} or more")
    if largest is not None:
        wanted = f"an integer from {least} to {largest}"
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:  # arrays that are not integers have `__index__` too, and raise here
        number = None
    if number is None:
        raise TypeError(f"{name} must be {wanted}, got {value!r} of type {type(value).__name__}.")
    if number < least or (largest is not None and number > largest):
        raise ValueError(f"{name} must be {wanted}, got {value!r}.{hint}")
    return number


def checked_share(value: Any, name: str, hint: str = "") -> float | None:
    """Checks for a number of at least 0 and below 1, or `None`.

    Raises:
        ValueError: it is not; the message ends with the hint.
    """
    if value is None:
        return None
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= float(value) < 1:
        raise ValueError(f"{name} is a share, 0 <= {name} < 1, or None{hint}; got {value!r}.")
    return float(value)


def checked_choice(value: Any, name: str, known: Sequence[str]) -> Any:
    """Checks for one of the `known` values.

    Raises:
        ValueError: it is not; the message lists them.
    """
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    return value
