"""Elementwise functions, NumPy or JAX, evaluated in float64 on the host."""

from collections.abc import Callable

import jax
import numpy as np

from ..numerics._precision import float64
from ._checks import real

#: Points at a time, few or many, so that JAX compiles two shapes and memory stays small.
_FEW, _MANY = 1 << 11, 1 << 16


def on_host(fn: Callable, x: np.ndarray, name: str) -> np.ndarray:
    """`fn(x)` for `x` (n,) in float64, whatever JAX's default precision is, under jit too.

    The default is changed for this thread and this call alone: coefficients of high degree are
    differences that float32 values of `fn` would not leave digits to.

    Raises:
        TypeError: complex values.
        ValueError: another shape than that of `x`.
    """
    parts, start = [], 0
    with float64(), jax.ensure_compile_time_eval(), np.errstate(all="ignore"):
        while start < len(x):
            part = x[start : start + _MANY]
            size = _FEW if len(part) <= _FEW else _MANY
            padded = np.concatenate([part, np.full(size - len(part), part[-1])])
            values = real(fn(padded), f"{name}'s values")
            if values.shape != padded.shape:
                if values.shape != ():  # a constant function may forget its argument's shape
                    raise ValueError(
                        f"{name} maps shape {padded.shape} to {values.shape}; it must act"
                        " elementwise"
                    )
                values = np.full(padded.shape, values)
            parts.append(values[: len(part)])
            start += len(part)
    return np.concatenate(parts)
