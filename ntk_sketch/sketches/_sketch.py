"""What all sketches share: the protocol, and what their constructors and calls refuse."""

import equinox as eqx
from jax import numpy as jnp

from .._typing import Array, Inputs


class Sketch(eqx.Module):
    """A random map to m real numbers, linear in each argument, that keeps inner products:

        E <S x, S x'> = <x, x'>,    or    E <S(x, y), S(x', y')> = <x, x'> <y, y'>.

    Drawn once, with a key and dimensions; then it acts on the last axis of real arrays, (..., d) to
    (..., m), all leading axes being batch axes. A pytree: it goes through `jit`, `vmap` (over keys,
    too) and `grad`. The result has the dtype of the inputs, whatever the sketch was drawn in.

    A call checks shapes and dtypes, never values: to look for NaN it would have to wait for the
    device. An example with NaN or infinite entries has a sketch with such entries.

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
    """The real floating point dtype that a sketch is drawn in; `None`: JAX's default."""
    dtype = jnp.zeros((), dtype).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be real and floating, got {dtype}; sketches are real.")
    return dtype


def checked_vectors(x: Inputs, d: int, name: str = "x") -> Array:
    """Vectors (..., d) as a real JAX array. Shape and dtype are checked, not values."""
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
    """Refuses arrays that are not of real floating point numbers."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        remedy = "Sketch real and imaginary parts one by one, for example `x.real` and `x.imag`."
    else:
        remedy = "Convert it, for example `x.astype(np.float32)`."
    raise TypeError(
        f"{name} has dtype {x.dtype}; sketches need real floating point inputs. {remedy}"
    )
