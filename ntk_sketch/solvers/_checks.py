"""What a regression refuses, before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._arguments import as_array, check_finite
from ..numerics._precision import promoted

Number: TypeAlias = float | int | np.number
DiagReg: TypeAlias = Number | Sequence[Number] | np.ndarray | Array


def check_feature_map(feature_map: Any) -> None:
    """That of a model is `feature_map(model, ...)`, that of a kernel does not exist."""
    if callable(feature_map) and not isinstance(feature_map, type):
        return
    kind = type(feature_map).__name__
    if isinstance(feature_map, tuple):
        raise TypeError(
            f"feature_map is a {kind}, a network; needed: its feature map, such as"
            " ntk_sketch.feature_map(model, x[:256], ntk_sketch.Nystroem(1024), key=key)"
        )
    raise TypeError(
        f"feature_map is a {kind}; needed: what ntk_sketch.feature_map(model, ...) returns, or a"
        " function from x to an object with attributes `nngp` and `ntk`"
    )


def checked_targets(y: Any, n: int, name: str = "y") -> tuple[Float[np.ndarray, "n k"], bool]:
    """Targets in float64 on the host as (n, k), if they are finite, floating point and one per
    example; and whether they were (n,)."""
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
    return y.astype(np.float64).reshape(n, -1), y.ndim == 1


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


def check_range(y: Float[np.ndarray, "n k"], dtype: Any) -> None:
    """Weights and predictions are of the features' dtype: targets must fit in it."""
    limits, largest = jnp.finfo(promoted(dtype, jnp.float32)), np.abs(y).max()
    if largest > float(limits.max) or 0 < largest < float(limits.tiny):
        raise ValueError(
            f"y is as large as {largest:.3g}, outside of the range of {limits.dtype} in which "
            "predictions are made: use other units, y / c, and multiply predictions by c"
        )


def checked_diag_reg(diag_reg: Any) -> tuple[list[float], bool]:
    """The values as a list, and whether a sequence was given."""
    values = np.asarray(diag_reg)
    if values.dtype.kind not in "fiu" or values.ndim > 1:
        raise TypeError(
            f"diag_reg={diag_reg!r}; needed: a number >= 0, or a sequence of such numbers"
        )
    if values.size == 0:
        raise ValueError("diag_reg is an empty sequence; needed: at least one number >= 0")
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ValueError(f"diag_reg={diag_reg!r}; every value must be finite and >= 0")
    return [float(v) for v in values.reshape(-1)], values.ndim == 1


def checked_groups(groups: Any, n: int) -> np.ndarray | None:
    """Group numbers (n,) on the host, or None."""
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.dtype.kind not in "iu":
        raise TypeError(
            f"groups has dtype {groups.dtype}; needed: integers, equal for examples that "
            "are left out together"
        )
    if groups.shape != (n,):
        raise ValueError(f"groups has shape {groups.shape}; needed: ({n},), one per example")
    return groups


def check_extend(extend_path: bool, values: list[float], selector: Any) -> None:
    """A path that goes on needs a choice, and a ratio to go on by."""
    if extend_path and (selector is None or len(set(values)) < 2 or min(values) <= 0):
        raise ValueError(
            "extend_path=True goes on with a path where its best value is at an end: it needs"
            f" `select`, and two or more different diag_reg above 0; got {values}"
        )
