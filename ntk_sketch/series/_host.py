"""Evaluation of elementwise functions, of NumPy or JAX, in float64 on the host."""

from collections.abc import Callable

import jax
import numpy as np

from ..numerics._precision import float64
from ._checks import real

#: Points are evaluated in parts of one of two sizes: JAX compiles two programs, memory is small.
_FEW, _MANY = 1 << 11, 1 << 16


def on_host(fn: Callable, x: np.ndarray, name: str) -> np.ndarray:
    """`fn(x)` for `x` (n,) in float64, whatever JAX's default precision is, also under `jit`.

    The default is changed only in this thread and for this call. Coefficients of high degree are
    differences that would have no correct digits with float32 values of `fn`.

    Raises:
        TypeError: values are complex.
        ValueError: the result does not have the shape of `x`.
    """
    parts, start = [], 0
    with float64(), jax.ensure_compile_time_eval(), np.errstate(all="ignore"):
        while start < len(x):
            part = x[start : start + _MANY]
            size = _FEW if len(part) <= _FEW else _MANY
            padded = np.concatenate([part, np.full(size - len(part), part[-1])])
            values = real(fn(padded), f"{name}'s values")
            if values.shape != padded.shape:
                if values.shape != ():  # a constant function may return a single number
                    raise ValueError(
                        f"{name} maps shape {padded.shape} to {values.shape}; it must act"
                        " elementwise"
                    )
                values = np.full(padded.shape, values)
            parts.append(values[: len(part)])
            start += len(part)
    return np.concatenate(parts)
