"""Precision of matrix products and convolutions, and scopes with float64."""

import importlib
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from .._arguments import checked_choice
from .._typing import Array

#: Precision of the inputs of a projection, in JAX's names. Sums are always in the dtype of the
#: features, and "full" means that dtype for the inputs too.
Precision: TypeAlias = Literal["full", "tensorfloat32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

#: The advice of errors and warnings about lost digits.
USE_FLOAT64 = "give float64 examples (jax.config.update('jax_enable_x64', True))"


def checked_precision(value) -> Precision:
    """`value`, checked for a method's constructor."""
    return checked_choice(value, "precision", PRECISIONS)


def promoted(a, b) -> jnp.dtype:
    """The narrowest dtype that holds both, also under a user's strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(a, b)


def canonical(dtype=None) -> np.dtype:
    """The dtype in which JAX holds numbers of this one; `None`: its default for floats."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float if dtype is None else dtype))


def on_device(value, dtype=None) -> jax.Array:
    """An array on the default device; an array that is on a device already stays there.

    Unlike `jnp.asarray` it compiles no program for each shape and dtype.
    """
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
    dtype = jax.dtypes.canonicalize_dtype(dtype or value.dtype)
    if isinstance(value, jax.Array):
        with float64():  # so that a value of 64 bits keeps them
            return value.astype(dtype)
    return jax.device_put(value.astype(dtype))


def float64():
    """A context in which JAX has 64 bits, only in this thread."""
    return x64(True)


def x64(enabled: bool):
    """A context with or without 64 bits in this thread."""
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
    """Both operands rounded to `precision`, and options that make a product sum in their dtype.

    TensorFloat-32 keeps 10 bits of the mantissa. The operands are rounded to it on every device, so
    that errors agree; only matrix units for TensorFloat-32 are faster.
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
