"""Layers of NT with a defect, repaired."""

import functools
from collections.abc import Callable
from math import factorial

import numpy as np
from jax import numpy as jnp

from .._nt import nt_stax


def in_order(kernel_fn: Callable) -> Callable:
    """`kernel_fn` of a layer, given kernels with their spatial axes in order.

    After an odd number of convolutions NT stores the axes in reverse, which some layers ignore.
    """

    @functools.wraps(kernel_fn)
    def kernel_fn_in_order(x1, *more, **options):
        if getattr(x1, "is_reversed", False) and not x1.diagonal_spatial:
            x1 = x1.reverse()
        return kernel_fn(x1, *more, **options)

    return kernel_fn_in_order


@functools.wraps(nt_stax.ConvLocal)
def ConvLocal(*args, **kwargs):
    """NT's layer, whose kernel would mix up the axes of a filter and of a reversed kernel."""
    init_fn, apply_fn, kernel_fn = nt_stax.ConvLocal(*args, **kwargs)
    return init_fn, apply_fn, in_order(kernel_fn)


@functools.wraps(nt_stax.DotGeneral)
def DotGeneral(*, lhs=None, rhs=None, **kwargs):
    """NT's layer, but the identity without a factor, where NT calls `jax.numpy.array(None)`."""
    return nt_stax.DotGeneral(lhs=lhs, rhs=1.0 if lhs is None and rhs is None else rhs, **kwargs)


@functools.wraps(nt_stax.Hermite)
def Hermite(degree):
    """NT's layer, but in the dtype of its inputs. NT's coefficients are float64 of NumPy, which JAX
    0.10 cannot compile in two dtypes.
    """
    init_fn, apply_fn, kernel_fn = nt_stax.Hermite(degree)
    coefficients = np.polynomial.hermite_e.herme2poly([0] * degree + [1]) / factorial(degree) ** 0.5
    numbers = coefficients[::-1].tolist()

    def polynomial(x):
        return functools.reduce(
            lambda value, number: value * x + number, numbers, jnp.zeros_like(x)
        )

    layer = nt_stax.Elementwise(polynomial)
    return init_fn, functools.wraps(apply_fn)(layer[1]), kernel_fn
