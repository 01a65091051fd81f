"""The dense Gaussian projection, the reference for all other sketches."""

import equinox as eqx
import jax
from jax import numpy as jnp
from jaxtyping import Float

from .._arguments import checked_integer, checked_key
from .._typing import Array, Inputs, PRNGKey
from ._sketch import Sketch, checked_dtype, checked_vectors


class GaussianSketch(Sketch):
    r"""The dense Gaussian projection `S x = Gᵀ x / √m` with standard normal entries G (d, m).

        E <Sx, Sx'> = <x, x'>,        Var <Sx, Sx'> = (‖x‖² ‖x'‖² + <x, x'>²) / m.

    Use this as a reference for other sketches, or for short vectors. An `SRHT` has a smaller
    variance and costs less for long ones.

    Args:
        d: dimension of the vectors.
        m: length of the sketch. The variance falls as 1/m.
        key: of `jax.random`.
        dtype: of the matrix; `None`: JAX's default.

    Raises:
        ValueError, TypeError: d or m is not a positive integer; dtype is not real and floating.

    Cost: `2 d m` FLOPs a vector; `d m` numbers of memory.

    Source: Johnson and Lindenstrauss 1984; Indyk and Motwani 1998.

    Example:
        >>> from ntk_sketch.sketches import GaussianSketch
        >>> import jax
        >>> sketch = GaussianSketch(8, 4, key=jax.random.key(0))
        >>> sketch(jax.numpy.ones((3, 8))).shape
        (3, 4)
    """

    d: int = eqx.field(static=True)
    matrix: Float[Array, "d m"]

    def __init__(self, d: int, m: int, *, key: PRNGKey, dtype=None):
        self.d, self.m = checked_integer(d, "d"), checked_integer(m, "m")
        self.matrix = (
            jax.random.normal(checked_key(key), (self.d, self.m), checked_dtype(dtype)) * m**-0.5
        )

    def __call__(self, x: Inputs) -> Float[Array, "*n m"]:
        """Sketches of vectors x (..., d): (..., m).

        Raises:
            ValueError: the last axis is not d long.
            TypeError: x is not an array of real floating point numbers.
        """
        return self._apply(checked_vectors(x, self.d))

    @eqx.filter_jit
    def _apply(self, x: Array) -> Array:
        return jnp.matmul(x, self.matrix.astype(x.dtype), precision="highest")
