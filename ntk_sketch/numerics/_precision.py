"""Precision of the inputs of matrix products and convolutions, and float64 on the host."""

import importlib
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from .._arguments import checked_choice
from .._typing import Array

#: Precision of the inputs of a projection, in JAX's names; sums are always in the dtype of the
#: features. "full" is full precision, that of the features, whatever their dtype.
Precision: TypeAlias = Literal["full", "tensorfloat32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

#: What errors and warnings of lost digits tell the user to do.
USE_FLOAT64 = "give float64 examples (jax.config.update('jax_enable_x64', True))"


def checked_precision(value) -> Precision:
    """`value`, or the error that a method's constructor raises."""
    return checked_choice(value, "precision", PRECISIONS)


def promoted(a, b) -> jnp.dtype:
    """The narrowest dtype that holds both; asked for, so that it is no matter of a user's strict
    promotion.
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(a, b)


def on_device(value, dtype=None) -> jax.Array:
    """An array of the host on the default device, without the program that `jnp.asarray` compiles
    for each shape and dtype; one of a device stays there.
    """
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
    dtype = jax.dtypes.canonicalize_dtype(dtype or value.dtype)
    if isinstance(value, jax.Array):
        with float64():  # that a value of 64 bits is read as such
            return value.astype(dtype)
    return jax.device_put(value.astype(dtype))


def float64():
    """A context in which JAX has 64 bits, in this thread alone; the user's default comes back."""
    return x64(True)


def x64(enabled: bool):
    """As `float64`, or without 64 bits."""
    # `jax.experimental.enable_x64` became `jax.enable_x64` and was then removed.
    owner = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return owner.enable_x64(enabled)


def matmul(a: Array, b: Array, precision: Precision) -> Array:
    """`a @ b` for `b` (p, m)."""
    a, b, options = _inputs(a, b, precision)
    return lax.dot_general(a, b, (((a.ndim - 1,), (0,)), ((), ())), **options)


def convolve(x: Array, filters: Array, precision: Precision, **options) -> Array:
    """`lax.conv_general_dilated(x, filters, **options)`."""
    x, filters, more = _inputs(x, filters, precision)
    return lax.conv_general_dilated(x, filters, **options, **more)


def _inputs(a: Array, b: Array, precision: Precision) -> tuple[Array, Array, dict[str, Any]]:
    """Both operands rounded, and what makes a product sum them in their own dtype.

    TensorFloat-32 keeps 10 bits of the mantissa. On matrix units of that kind the rounding is their
    own; elsewhere it is carried out, for the same error without the speed.
    """
    options: dict[str, Any] = {
        "precision": lax.Precision.DEFAULT,
        "preferred_element_type": a.dtype,
    }
    if precision == "bfloat16":
        return a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), options
    if precision == "tensorfloat32":
        return lax.reduce_precision(a, 8, 10), lax.reduce_precision(b, 8, 10), options
    return a, b, options | {"precision": lax.Precision.HIGHEST}
