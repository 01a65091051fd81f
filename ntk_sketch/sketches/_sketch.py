"""`Sketch`, the base class of sketches, and the checks of their arguments."""

import equinox as eqx
from jax import numpy as jnp

from .._typing import Array, Inputs
from ..numerics._precision import canonical


class Sketch(eqx.Module):
    """A random map to m real numbers, linear in each argument, that preserves inner products:

        E <S x, S x'> = <x, x'>,    or    E <S(x, y), S(x', y')> = <x, x'> <y, y'>.

    Use this as the base class of a sketch of your own. A sketch is drawn once, with a key and
    dimensions. It acts on the last axis of real arrays, (..., d) to (..., m); all leading axes are
    batch axes. It is a pytree and works under `jit`, `vmap` (also over keys) and `grad`. The result
    has the dtype of the inputs, whatever the dtype of the sketch.

    A call checks shapes and dtypes, but not values, which would wait for the device. An example
    with NaN or infinite entries has a sketch with such entries.

    Attributes:
        m: length of the result.

    Example:
        >>> from ntk_sketch.sketches import Sketch
        >>> import jax
        >>> from ntk_sketch.sketches import SRHT
        >>> isinstance(SRHT(8, 4, key=jax.random.key(0)), Sketch)
        True
    """

    m: int = eqx.field(static=True)


def checked_dtype(dtype) -> jnp.dtype:
    """The dtype of a sketch, checked to be real and floating; `None`: JAX's default."""
    dtype = canonical(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be real and floating, got {dtype}; sketches are real.")
    return dtype


def checked_vectors(x: Inputs, d: int, name: str = "x") -> Array:
    """Vectors (..., d) as a JAX array, with shape and dtype checked, but not values."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"{name} must be one array of shape (..., {d}), got {type(x).__name__}.")
    check_real(x, name)
    if x.ndim == 0 or x.shape[-1] != d:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; this sketch was drawn for (..., {d}). Draw one"
            " with the dimension of the last axis."
        )
    return jnp.asarray(x)


def check_real(x: Inputs, name: str) -> None:
    """Refuses arrays whose dtype is not real and floating."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        remedy = "Sketch real and imaginary parts one by one, for example `x.real` and `x.imag`."
    else:
        remedy = "Convert it, for example `x.astype(np.float32)`."
    raise TypeError(
        f"{name} has dtype {x.dtype}; sketches need real floating point inputs. {remedy}"
    )
