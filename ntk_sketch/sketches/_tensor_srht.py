"""Sketches of tensor products of two vectors by randomised Hadamard transforms."""

import equinox as eqx
import jax
from jax import numpy as jnp
from jaxtyping import Float

from .._arguments import checked_integer, checked_key
from .._typing import Array, Inputs, PRNGKey
from ._hadamard import RandomHadamard, in_chunks, power_of_two
from ._sketch import Sketch, checked_dtype, checked_vectors


class TensorSRHT(Sketch):
    r"""A sketch of the tensor product `x ⊗ y` of dense vectors, which is never formed.

        S(x, y) = (P₁ H D₁ x) ⊙ (P₂ H D₂ y) / √m,    E <S(x, y), S(x', y')> = <x, x'> <y, y'>.

    Use this for products of two kernels with features x and y.

    `D₁` and `D₂` are independent random signs, and `P₁` and `P₂` sample rows of Hadamard
    transforms: m pairs of rows, each uniform among all pairs. No row of either transform is used
    twice before all are used once, and no pair twice before all pairs are (if there are that many).
    Let `α_i = (HD₁x)_i (HD₁x')_i - <x, x'>` and `β_j` likewise: both sum to 0 over all rows. If m
    is a multiple of both (padded) dimensions, only their products remain in the error. With m equal
    to both

        Var = σ_α² σ_β² / (m - 1),    σ_α² = ‖x‖² ‖x'‖² + <x, x'>² - 2 Σ_i x_i² x'_i²,

    which is half of the variance of independent pairs if x = x'. A smaller m adds `(<x, x'>² σ_β² +
    <y, y'>² σ_α²) / m`, each term times the share of rows that are left out.

    Args:
        d1: dimension of x, any.
        d2: dimension of y, any.
        m: length of the sketch. It may exceed both dimensions.
        key: of `jax.random`.
        dtype: of the signs; `None`: JAX's default.

    Raises:
        ValueError, TypeError: a dimension is not a positive integer; dtype is not real and
            floating.

    Cost: that of an `SRHT` of x and one of y, and m products.

    Source: Ahle, Kapralov, Knudsen, Pagh, Velingkar, Woodruff and Zandieh 2020 (arXiv 1909.01410),
    where pairs are drawn independently.

    Example:
        >>> from ntk_sketch.sketches import TensorSRHT
        >>> import jax
        >>> sketch = TensorSRHT(8, 6, 4, key=jax.random.key(0))
        >>> sketch(jax.numpy.ones((3, 8)), jax.numpy.ones((3, 6))).shape
        (3, 4)
    """

    d1: int = eqx.field(static=True)
    d2: int = eqx.field(static=True)
    first: RandomHadamard
    second: RandomHadamard

    def __init__(self, d1: int, d2: int, m: int, *, key: PRNGKey, dtype=None):
        self.d1, self.d2 = checked_integer(d1, "d1"), checked_integer(d2, "d2")
        self.m, dtype = checked_integer(m, "m"), checked_dtype(dtype)
        key_first, key_second = jax.random.split(checked_key(key))
        longer = max(power_of_two(self.d1), power_of_two(self.d2))
        self.first = RandomHadamard(self.d1, self.m, key=key_first, dtype=dtype)
        self.second = RandomHadamard(self.d2, self.m, key=key_second, dtype=dtype, turn=longer)

    def __call__(self, x: Inputs, y: Inputs) -> Float[Array, "*n m"]:
        """Sketches of pairs x (..., d1), y (..., d2): (..., m); leading axes broadcast.

        Raises:
            ValueError: a last axis is not d1 or d2 long.
            TypeError: inputs are not arrays of real floating point numbers.
        """
        return self._apply(checked_vectors(x, self.d1, "x"), checked_vectors(y, self.d2, "y"))

    @eqx.filter_jit
    def _apply(self, x: Array, y: Array) -> Array:
        factors = [
            in_chunks(transform, v.reshape(-1, d), power_of_two(d)).reshape(*v.shape[:-1], self.m)
            for transform, v, d in ((self.first, x, self.d1), (self.second, y, self.d2))
        ]
        first, second = jnp.broadcast_arrays(*factors)
        return self.m**-0.5 * first * second
