"""The randomised Hadamard transform, of which dense sketches are made."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import scipy.linalg
from jax import lax
from jax import numpy as jnp
from jaxtyping import Float, Int

from .._typing import Array, PRNGKey

#: Numbers in one chunk of work on a CPU, few enough to stay in the caches.
_CHUNK = 2**19


def hadamard_transform(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """`H x` along the last axis, of length a power of two; `H[i, j] = (-1)^popcount(i & j)`.

    `H` is the Kronecker product of Hadamard matrices of at most 32 rows. Each is one matrix product
    along its own axis, which suits matrix units. For d up to 32,768 that makes three passes over
    the data, where the textbook's butterflies make 15.

    Cost: `2 d` FLOPs a vector times the sum of the sizes of those matrices, which is at most about
    `6.4 log2 d`.
    """
    shape = x.shape
    x = x.reshape(-1, *_factors(shape[-1]))
    for k in x.shape[1:]:
        # Contracts the first axis and appends the new one; after all of them the order is restored.
        h = jnp.asarray(scipy.linalg.hadamard(k), x.dtype)  # in Sylvester's order
        x = lax.dot_general(x, h, (((1,), (0,)), ((), ())), precision="highest")
    return x.reshape(shape)


class RandomHadamard(eqx.Module):
    """m rows of `H D x`, unscaled: random signs D, padding to a power of two, the transform H.

    Rows are drawn without replacement. If m exceeds their number, they repeat, with numbers that
    differ by at most one. Each coordinate is an unbiased sketch: `E (HDx)_k (HDx')_k = <x, x'>`.

    Args:
        turn: rotate the sequence of rows by one place after every `turn` of them; `None`: never.
            With the length of the longer of two transforms, pairs of rows repeat as late as
            possible.

    A call maps vectors (n, d) to (n, m). Both arrays may have one leading axis, for b independent
    transforms of vectors (n, b, d), or (n, 1, d), to (n, b, m).
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
    """`f(x)` for x (n, ...), computed chunk by chunk on a CPU.

    On a CPU these transforms are bound by memory. Chunks keep their intermediate arrays in the
    caches.

    Args:
        f: acts on every row of the first axis separately.
        x: the batch.
        numbers: how many numbers a row needs at one time.
    """
    n, size = x.shape[0], max(_CHUNK // numbers, 1)
    if jax.default_backend() != "cpu" or n <= size:
        return f(x)
    whole = n // size * size
    y = lax.map(f, x[:whole].reshape(-1, size, *x.shape[1:]))
    y = y.reshape(whole, *y.shape[2:])
    return y if whole == n else jnp.concatenate([y, f(x[whole:])])


def power_of_two(d: int) -> int:
    """The smallest power of two that is not below d."""
    return 1 << (d - 1).bit_length()


def _factors(d: int) -> list[int]:
    """Powers of two from 2 to 32, as equal as possible, whose product is d."""
    bits = d.bit_length() - 1
    count = max(-(-bits // 5), 1)
    return [2 ** ((bits + k) // count) for k in range(count)]
