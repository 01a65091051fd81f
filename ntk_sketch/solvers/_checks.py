"""What a regression refuses, before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..numerics._precision import promoted

Number: TypeAlias = float | int | np.number
DiagReg: TypeAlias = Number | Sequence[Number] | np.ndarray | Array


def check_range(largest: float, dtype: Any, *, so_far: bool = False) -> None:
    """Weights and predictions are of the features' dtype: targets must fit in it.

    Args:
      largest: size of a target.
      so_far: larger ones may come.
    """
    limits = jnp.finfo(promoted(dtype, jnp.float32))
    if largest > float(limits.max) or (0 < largest < float(limits.tiny) and not so_far):
        raise ValueError(
            f"y is as large as {largest:.3g}, outside of the range of {limits.dtype} in which "
            "predictions are made: use other units, y / c, and multiply predictions by c"
        )


def checked_diag_reg(diag_reg: Any, name: str = "diag_reg") -> tuple[list[float], bool]:
    """The values as a list, and whether a sequence was given."""
    values = np.asarray(diag_reg)
    if values.dtype.kind not in "fiu" or values.ndim > 1:
        raise TypeError(
            f"{name}={diag_reg!r}; needed: a number >= 0, or a sequence of such numbers"
        )
    if values.size == 0:
        raise ValueError(f"{name} is an empty sequence; needed: at least one number >= 0")
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ValueError(f"{name}={diag_reg!r}; every value must be finite and >= 0")
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


def check_intercept(fit_intercept: bool, n: int) -> None:
    if fit_intercept and n < 2:
        raise ValueError(f"fit_intercept=True needs at least two examples, got {n}")
