"""A subsampled randomised Hadamard transform for very long vectors, block by block."""

import equinox as eqx
import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Float, Int, UInt32

from .._typing import Array, PRNGKey
from ..sketches._hadamard import hadamard_transform, power_of_two
from ._signs import seed_of, signs

_LARGEST_BLOCK = 2**15


class BlockwiseSRHT(eqx.Module):
    r"""`S x = P H D x / √m` as `sketches.SRHT`, in the memory of one block besides x.

    The Hadamard matrix of length `d̂ = B b` is a Kronecker product, `H = H_B ⊗ H_b`. Entry `(i, j)`
    of `H D x` is therefore a signed sum over blocks, of one entry of each block's transform:

        (H D x)_{ij} = Σ_β H_B[i, β] (H_b D_β x_β)_j,    H_B[i, β] = (-1)^popcount(i & β).

    Signs are drawn block by block when they are used. A row has a place j and a number i. The first
    b rows have all places in random order, and so have the next b. Numbers are independent at
    different places and never repeat at one place. Then

        E <Sx, Sx'> = <x, x'>,
        Var <Sx, Sx'> <= (‖x‖² ‖x'‖² + <x, x'>² - 2 Σ_a x_a² x'_a²) / m,

    where the right-hand side is the variance of independent rows. The difference is a sum over
    pairs of coordinates a, c of `s_ac = (x_a x'_c + x_c x'_a)² / m`, times an average over pairs of
    rows r, r' of E of `H_ra H_rc H_r'a H_r'c`. If the places of the rows differ, that is `-1 / (b -
    1)` for coordinates in one block and 0 for others. If the places agree, it is 1 for coordinates
    in one block and `-1 / (B - 1)` for others. Places are used so evenly that the sum over r, r' is
    negative for both kinds of coordinates. With all rows, m = d̂, S is an isometry.

    Args:
        d: length of the vectors.
        width: number of rows wanted; there are at most d̂.
        key: of `jax.random`.
        largest_block: a power of two.

    Cost: `2 d · 32 ⌈log2 b / 5⌉ + 2 m B` FLOPs a vector; the sketch holds `2 m` integers.
    """

    d: int = eqx.field(static=True)
    m: int = eqx.field(static=True)
    block: int = eqx.field(static=True)
    seed: UInt32[Array, " 2"]
    numbers: Int[Array, " m"]
    places: Int[Array, " m"]

    def __init__(self, d: int, width: int, *, key: PRNGKey, largest_block: int = _LARGEST_BLOCK):
        key_signs, key_places, key_numbers, key_offsets = jax.random.split(key, 4)
        self.d, self.block = d, min(power_of_two(d), largest_block)
        count = power_of_two(self.count)
        self.m = min(width, count * self.block)
        self.seed = seed_of(key_signs)
        row = jnp.arange(self.m, dtype="int32")
        at, run = row % self.block, row // self.block
        self.places = _permutation(key_places, self.block)[at]
        offsets = jax.random.randint(key_offsets, (self.block,), 0, count, "int32")
        self.numbers = _permutation(key_numbers, count)[(offsets[at] + run) % count]

    @property
    def count(self) -> int:
        """The number of blocks of a vector."""
        return -(-self.d // self.block)

    def __call__(self, *parts: Float[Array, " _"]) -> Float[Array, " m"]:
        """The sketch of one vector, given whole or in parts; use `jax.vmap` for several."""
        dtype = parts[0].dtype
        zeros = jnp.zeros(self.count * self.block - self.d, dtype)
        blocks = jnp.concatenate([*parts, zeros]).reshape(self.count, self.block)

        def add(total, numbered):
            number, part = numbered
            drawn = signs(self.seed, number, self.block).astype(dtype)
            transformed = hadamard_transform(part * drawn)
            odd = lax.population_count(self.numbers & number) & jnp.int32(1)
            return total + transformed[self.places] * (1 - 2 * odd).astype(dtype), None

        numbers = jnp.arange(self.count, dtype="int32")
        total, _ = lax.scan(add, jnp.zeros(self.m, dtype), (numbers, blocks))
        return total * self.m**-0.5


def _permutation(key: PRNGKey, n: int) -> Int[Array, " n"]:
    return jax.random.permutation(key, jnp.arange(n, dtype="int32"))
