"""`CountSketch`: signed sums of coordinates in random buckets."""

from typing import Any

import equinox as eqx
import jax
from jax import lax
from jax import numpy as jnp
from jax.experimental.sparse import BCOO
from jaxtyping import Float, Int

from .._arguments import checked_integer, checked_key
from .._typing import Array, Inputs, PRNGKey
from ._sketch import Sketch, checked_dtype
from ._sparse import Coordinates, Sparse, checked_inputs, sum_by_bucket


class CountSketch(Sketch):
    r"""Adds each coordinate to one of m buckets with a random sign.

        (S x)_b = Σ_{i: h(i) = b} s_i x_i,    E <S x, S y> = <x, y>.

    Use this for sparse vectors, or for very long ones where a sketch must be cheap.

    The buckets are balanced: coordinates are dealt out at random, at most `L = ⌈d/m⌉` to each,
    instead of drawn independently. Two of them share a bucket with probability `(L - 1) / (Lm - 1)
    <= 1/m`, so that

        Var <S x, S y> = (L - 1) / (Lm - 1) (‖x‖²‖y‖² + <x, y>² - 2 Σ_i x_i² y_i²)

    is at most that of independent buckets, which has `1/m`. For `d <= m` the sketch is exact. Each
    bucket is a sum of L entries of a permuted vector, so that dense inputs need no scatter.

    Sparse inputs are `jax.experimental.sparse.BCOO` arrays, or SciPy matrices of rows, which are
    constants under `jit`. They give the same dense result in time proportional to their non-zeros.

    Cost: `2d` FLOPs and one permutation for a dense vector, 2 FLOPs a non-zero for a sparse one;
    and m numbers written. The sketch holds at most `3d + m` numbers.

    Source: Charikar, Chen and Farach-Colton 2002; the variance follows from that of Weinberger et
    al. 2009 (arXiv 0902.2206), whose `1/m` is the probability of a collision.

    Attributes:
        d: length of the inputs.
        sources: the coordinate in each of the `Lm` places, or d or more if it is empty. Place p
            belongs to bucket `p mod m`.
        buckets: h(i).
        signs: s_i.

    Example:
        >>> from ntk_sketch.sketches import CountSketch
        >>> import jax
        >>> sketch = CountSketch(8, 4, key=jax.random.key(0))
        >>> sketch(jax.numpy.ones((3, 8))).shape
        (3, 4)
    """

    d: int = eqx.field(static=True)
    sources: Int[Array, " places"]
    buckets: Int[Array, " d"]
    signs: Float[Array, " d"]

    def __init__(self, d: int, m: int, *, key: PRNGKey, dtype=None):
        """Draws the sketch.

        Args:
            d: length of the inputs.
            m: length of the result. The variance falls as 1/m.
            key: of `jax.random`.
            dtype: of the signs; None: JAX's default.

        Raises:
            TypeError: d or m is not an integer; dtype is not real and floating.
            ValueError: d or m is below 1.
        """
        self.d, self.m = checked_integer(d, "d"), checked_integer(m, "m")
        key_places, key_signs = jax.random.split(checked_key(key))
        self.sources = jax.random.permutation(key_places, -(-self.d // self.m) * self.m)
        self.buckets = jnp.argsort(self.sources)[: self.d] % self.m
        self.signs = jax.random.rademacher(key_signs, (self.d,), checked_dtype(dtype))

    def __call__(self, x: Inputs | Sparse) -> Float[Array, "*n m"]:
        """`S x` along the last axis.

        Raises:
            TypeError: inputs are not real and floating.
            ValueError: the last axis is not d long.
        """
        return self._apply(checked_inputs(x, self.d))

    def _apply(self, x: Any) -> Array:
        if isinstance(x, BCOO | Coordinates):
            return sum_by_bucket(x, self.buckets, self.signs, self.m)
        return self._apply_dense(x)

    @eqx.filter_jit
    def _apply_dense(self, x: Array) -> Array:
        signs = self.signs.astype(x.dtype).at[self.sources].get(mode="fill", fill_value=0)
        dealt = x.at[..., self.sources].get(mode="fill", fill_value=0, unique_indices=True)
        signs = lax.expand_dims(signs, range(x.ndim - 1))
        return (dealt * signs).reshape(*x.shape[:-1], -1, self.m).sum(-2)
