"""The randomised Hadamard transform that the dense sketches are made of."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import scipy.linalg
from jax import lax
from jax import numpy as jnp
from jaxtyping import Float, Int

from .._typing import Array, PRNGKey

#: Numbers that one chunk of the work may hold on a CPU, to stay in the caches.
_CHUNK = 2**19


def hadamard_transform(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """`H x` along the last axis, of length a power of two; `H[i, j] = (-1)^popcount(i & j)`.

    `H` is the Kronecker product of Hadamard matrices of at most 32 rows. Each is one matrix product
    along an axis of its own, what matrix units are made for: three passes over the data for d up to
    32,768, where the butterflies of the textbook make 15.

    Cost: `2 d` FLOPs a vector times the sum of the sizes of those matrices, about `6.4 log2 d` at
    most.
    """
    shape = x.shape
    x = x.reshape(-1, *_factors(shape[-1]))
    for k in x.shape[1:]:
        # Contracts the first axis and appends the new one: in the end all are back in order.
        h = jnp.asarray(scipy.linalg.hadamard(k), x.dtype)  # Sylvester's
        x = lax.dot_general(x, h, (((1,), (0,)), ((), ())), precision="highest")
    return x.reshape(shape)


class RandomHadamard(eqx.Module):
    """m rows of `H D x`, unscaled: random signs D, zeros up to a power of two, the transform H.

    Rows are drawn without replacement; where m exceeds their number, all are taken equally often
    (by at most one). Each coordinate is an unbiased sketch: `E (HDx)_k (HDx')_k = <x, x'>`.

    Args:
        turn: turns the sequence of rows by one place after every `turn` of them; `None`: never. If
            this is the longer one of two transforms, pairs of rows of both repeat as late as
            possible.

    A call takes vectors (n, d) to (n, m). Both arrays may have one leading axis, for that many
    independent transforms of vectors (n, b, d), or (n, 1, d), to (n, b, m).
    """

    signs: Float[Array, "*b d"]
    rows: Int[Array, "*b m"]

    def __init__(self, d: int, m: int, *, key: PRNGKey, dtype, turn: int | Array | None = None):
        key_signs, key_rows = jax.random.split(key)
        padded, k = power_of_two(d), jnp.arange(m)
        order = (k if turn is None else k + k // turn) % padded
        self.signs = jax.random.rademacher(key_signs, (d,), dtype)
        self.rows = jax.random.permutation(key_rows, padded)[order]

    def __call__(self, x: Array) -> Array:
        d = self.signs.shape[-1]
        x = x * self.signs[None].astype(x.dtype)
        padding = [(0, 0)] * (x.ndim - 1) + [(0, power_of_two(d) - d)]
        x = hadamard_transform(jnp.pad(x, padding))
        if self.rows.ndim == 1:
            return jnp.take(x, self.rows, axis=-1)
        take = functools.partial(jnp.take, axis=-1)
        return jax.vmap(take, in_axes=(-2, 0), out_axes=-2)(x, self.rows)


def in_chunks(f: Callable[[Array], Array], x: Array, numbers: int) -> Array:
    """`f(x)` for x (n, ...), on a CPU chunk by chunk.

    The intermediate arrays of a large batch leave the caches, and on a CPU it is memory that such
    transforms wait for.

    Args:
        f: acts on every row of the first axis alone.
        x: the batch.
        numbers: that one row needs at once, in its largest array or in all that are alive.
    """
    n, size = x.shape[0], max(_CHUNK // numbers, 1)
    if jax.default_backend() != "cpu" or n <= size:
        return f(x)
    whole = n // size * size
    y = lax.map(f, x[:whole].reshape(-1, size, *x.shape[1:]))
    y = y.reshape(whole, *y.shape[2:])
    return y if whole == n else jnp.concatenate([y, f(x[whole:])])


def power_of_two(d: int) -> int:
    """The smallest one that is not below d."""
    return 1 << (d - 1).bit_length()


def _factors(d: int) -> list[int]:
    """Powers of two from 2 to 32, as equal as can be, whose product is d."""
    bits = d.bit_length() - 1
    count = max(-(-bits // 5), 1)
    return [2 ** ((bits + k) // count) for k in range(count)]
