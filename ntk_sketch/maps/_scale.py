"""A check for examples so large or small that formulas of kernels are inaccurate."""

import warnings
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from .._arguments import root_mean_squares
from ..activations import DualActivation
from ..numerics._precision import USE_FLOAT64, float64, on_device
from ..stax import Layer
from ._diagonals import variance_program, variances_at_output
from ._pairs import are_many

#: Examples with root mean squares outside of this range are checked; standardised ones are near 1.
_USUAL = (1 / 30, 30)

#: Relative error of an exact variance from which on there is a warning.
_WRONG = 0.01


def check_scale(model: Layer, x: Any, get: tuple[str, ...], dtype: str, stacklevel: int) -> None:
    """Warns of examples so large or small that the formula of a kernel is inaccurate.

    The formula of Gelu, for example, has `1 / √((1 + q)(1 + q') - c²)` and loses all digits of
    float32 at variances of 10⁸. The check computes the exact variances of the examples of largest
    and smallest norm in `dtype` and in float64, and warns if they differ. It is skipped if root
    mean squares are near 1, or if all nonlinearities are homogeneous (Relu), which are accurate at
    any scale; and if exact covariances of pairs of positions take more than 256 MiB for an example.

    Raises:
        ValueError: the variances are NaN or infinite in `dtype`.
    """
    if isinstance(x, jax.ShapeDtypeStruct | Tracer) or model.specification.is_traced:
        return  # there are no values to check
    if dtype == "float64":
        return
    sizes = root_mean_squares(x)
    place = [int(np.argmin(np.where(sizes > 0, sizes, np.inf))), int(np.argmax(sizes))]
    smallest, largest = sizes[place]
    if not largest or (_USUAL[0] <= smallest and largest <= _USUAL[1]):
        return
    program = variance_program(model.specification, tuple(x.shape[1:]), get, dtype)
    if are_many(program.covariances, np.float64):
        return
    nodes = jax.tree.leaves(program.transform, is_leaf=_is_dual)
    if all(node.degree is not None for node in nodes if _is_dual(node)):
        return
    two = np.asarray(x[np.array(place)])  # copies two examples from a GPU, not all
    found = _diagonals_by(program, two.astype(dtype), get, dtype)
    with float64():
        right = _diagonals_by(program, two.astype(np.float64), get, dtype)
    for size, *values in zip(sizes[place], found, right, strict=True):
        value, exact = (float(np.max(np.abs(v))) for v in values)
        told = f"examples of root mean square {size:.3g} have an exact variance"
        remedy = f"Standardise the inputs, or {USE_FLOAT64}."
        if not np.isfinite(values[0]).all():
            raise ValueError(
                f"{told} that overflows {dtype}, at the model's output or on the way there:"
                f" their features would be NaN. {remedy}"
            )
        if not np.allclose(*values, rtol=_WRONG, atol=_WRONG * exact):
            warnings.warn(
                f"{told} of {value:.3g} in {dtype} at the model's output, where float64 gives"
                f" {exact:.3g}: a nonlinearity's formula loses its digits at this scale, and with"
                f" it features and kernels. {remedy}",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )
            return


def _is_dual(node) -> bool:
    return isinstance(node, DualActivation)


def _diagonals_by(program, x: np.ndarray, get: tuple[str, ...], dtype: str) -> np.ndarray:
    """`k(x, x)`, and `Θ(x, x)` if it was asked for, of every position: (n, numbers)."""
    given = on_device(x)
    variances = variances_at_output(program.transform, given, program.offsets, get, dtype, {})
    kernels = [k for k in variances.diagonals().kernels if k is not None]
    return np.concatenate([np.asarray(k).reshape(len(x), -1) for k in kernels], axis=1)
