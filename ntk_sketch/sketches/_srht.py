"""The subsampled randomised Hadamard transform."""

import equinox as eqx
from jaxtyping import Float

from .._arguments import checked_integer, checked_key
from .._typing import Array, Inputs, PRNGKey
from ._hadamard import RandomHadamard, in_chunks, power_of_two
from ._sketch import Sketch, checked_dtype, checked_vectors


class SRHT(Sketch):
    r"""The subsampled randomised Hadamard transform `S x = P H D x / √m`.

    Use this for dense vectors: its variance is smaller than that of a `GaussianSketch`, and, unless
    m is small, it costs less.

    D are random signs, H is the Hadamard transform of length `d̂`, and P takes m of its rows. `d̂` is
    the smallest power of two that is not below d; vectors are padded with zeros. Rows are drawn
    without replacement, so that

        E <Sx, Sx'> = <x, x'>,
        Var <Sx, Sx'> = (‖x‖² ‖x'‖² + <x, x'>² - 2 Σ_i x_i² x'_i²) / m · (d̂ - m) / (d̂ - 1).

    With all rows, m = d̂, S is an isometry. For m > d̂ rows repeat, their numbers differing by at
    most one; if d̂ divides m, S is an isometry again.

    Args:
        d: dimension of the vectors, any.
        m: length of the sketch. The variance falls as 1/m, and to 0 at d̂.
        key: of `jax.random`.
        dtype: of the signs; `None`: JAX's default.

    Raises:
        ValueError, TypeError: d or m is not a positive integer; dtype is not real and floating.

    Cost: about `2 d̂ · 32 ⌈log2 d̂ / 5⌉` FLOPs a vector, as matrix products with Hadamard matrices
    of at most 32 rows; `d + m` numbers of memory.

    Source: Ailon and Chazelle 2009; Tropp 2011 (arXiv 1011.1595), also without replacement.

    Example:
        >>> from ntk_sketch.sketches import SRHT
        >>> import jax
        >>> sketch = SRHT(8, 4, key=jax.random.key(0))
        >>> sketch(jax.numpy.ones((3, 8))).shape
        (3, 4)
    """

    d: int = eqx.field(static=True)
    transform: RandomHadamard

    def __init__(self, d: int, m: int, *, key: PRNGKey, dtype=None):
        self.d, self.m = checked_integer(d, "d"), checked_integer(m, "m")
        self.transform = RandomHadamard(
            self.d, self.m, key=checked_key(key), dtype=checked_dtype(dtype)
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
        rows = in_chunks(self.transform, x.reshape(-1, self.d), power_of_two(self.d))
        return self.m**-0.5 * rows.reshape(*x.shape[:-1], self.m)
