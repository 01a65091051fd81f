"""What a user gives, checked before any long work."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

_CHUNK = 1 << 24  # numbers of x looked at in one go: no temporary of the size of x


def checked_inputs(x: Any, name: str = "x") -> Shaped[Array | np.ndarray, "n ..."]:
    """`x` as given, if it is a non-empty batch of finite floating-point examples."""
    if not isinstance(x, np.ndarray | jax.Array):
        raise TypeError(f"{name} is a {type(x).__name__}; needed: a NumPy or JAX array (n, ...)")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} has dtype {x.dtype}, but feature maps need floating point: "
            f"use {name}.astype(np.float32) / 255 for images of 8 bits, or standardised images"
        )
    if x.ndim < 2:
        raise ValueError(
            f"{name} has shape {x.shape}; needed: a batch (n, ...). One example x is x[None]"
        )
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {x.shape}: it is empty, at least one example is needed")
    _check_finite(x, name)
    return x


def checked_targets(y: Any, n: int, name: str = "y") -> Float[np.ndarray, "n k"]:
    """Targets on the host as (n, k) if they are finite, floating-point and one per example."""
    if not isinstance(y, np.ndarray | jax.Array):
        raise TypeError(f"{name} is a {type(y).__name__}; needed: a NumPy or JAX array (n, k)")
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"{name} has dtype {y.dtype}, but ridge regression needs floating-point targets. "
            "Class labels become centred one-hot rows, here for 10 classes: "
            f"{name} = jax.nn.one_hot({name}, 10) - 0.1"
        )
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {y.shape}; needed: (n,) or (n, outputs)")
    if y.shape[0] != n:
        raise ValueError(f"{n} examples but {y.shape[0]} rows of {name}; needed: one per example")
    if 0 in y.shape:
        raise ValueError(f"{name} has shape {y.shape}: it has no outputs")
    y = np.asarray(y)
    _check_finite(y, name)
    return y.reshape(n, -1)


def _check_finite(x: Array | np.ndarray, name: str) -> None:
    rows = max(1, _CHUNK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, x.shape[0], rows):
        chunk = x[start : start + rows]
        # the extremes are NaN or infinite when an entry is, and need no temporary
        if not (np.isfinite(float(chunk.min())) and np.isfinite(float(chunk.max()))):
            bad = ~np.isfinite(np.asarray(chunk).astype(np.float64)).reshape(len(chunk), -1)
            raise ValueError(
                f"{name} is not finite (NaN or infinite) first in row "
                f"{start + int(np.argmax(bad.any(axis=1)))}; remove or repair such rows"
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
