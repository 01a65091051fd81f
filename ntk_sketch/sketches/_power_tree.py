"""All tensor powers of a vector from one tree of two-factor sketches."""

import itertools
from collections.abc import Iterable

import equinox as eqx
import jax
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, Inputs, PRNGKey
from ._hadamard import RandomHadamard, in_chunks, power_of_two
from ._sketch import Sketch, checked_dtype, checked_size, checked_vectors


class PowerTree(Sketch):
    r"""Sketches of `u^{⊗0}, ..., u^{⊗q}` from q independent unbiased sketches of u, the leaves.

    A node is the `TensorSRHT` of two values `a` and `b` (leaves or other nodes),

        (P_a H D_a a) ⊙ (P_b H D_b b) / √m,        E <node, node'> = <a, a'> <b, b'>.

    Nodes of a binary tree stand for blocks of leaves, `[i 2^j, (i + 1) 2^j)`; and the power l, all
    leaves before l, is the node of the power `l - 2^j` and the last block of `2^j` leaves, with
    `2^j` the largest power of two that divides l: a Fenwick tree. That makes `q - 1` blocks and
    fewer than q further powers. Every value has its own transform P H D, which all its nodes
    share: a power contains no value twice, so that within one power all transforms are independent
    and the power is unbiased. (Those of different powers are not independent.)

    No vector passes more than `2 log2 q` nodes, and the variance grows linearly in l, not
    exponentially: where leaves are u itself,

        Var <power_l, power_l'> <= ((1 + g)^{l-1} - 1) ‖u‖^{2l} ‖u'‖^{2l},    g = 4 / (m - 1)

    for m a power of two, of which each node uses all rows; else `g <= 8 / (m - 1)`, with exponent l
    for leaves longer than m. (A node has variance `σ_a² σ_b² / (m - 1)` given its values, see
    `TensorSRHT`, at most `4 ‖a‖² ‖a'‖² ‖b‖² ‖b'‖² / (m - 1)`; the covariance of its squared norms
    has the same bound; induction over the tree.) Ahle et al. bound it by O(l / m).

    Args:
        m: length of the sketches; a power of two has the smallest variance and cost.
        degree: q, 0 or more.
        key: of `jax.random`.
        dtype: of the signs; `None`: JAX's default.
        d: length of the leaves; `None`: m.

    Raises:
        ValueError: m, degree or d is not positive (degree: negative), or m is less than the degree.
        TypeError: not integers; dtype is not real and floating.

    Cost: q transforms of length d and fewer than `3q / 2` of length m (see `SRHT`), `2q m`
    products; the same number of signs and rows in memory. Nodes of one level are one operation.

    Source: Ahle, Kapralov, Knudsen, Pagh, Velingkar, Woodruff and Zandieh 2020, "Oblivious
    sketching of high-degree polynomial kernels" (arXiv 1909.01410), whose tree has one output and a
    power of two of leaves.
    """

    d: int = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    _leaves: RandomHadamard | None
    _blocks: tuple[RandomHadamard, ...]
    _powers: RandomHadamard | None

    def __init__(self, m: int, degree: int, *, key: PRNGKey, dtype=None, d: int | None = None):
        self.m, dtype = checked_size(m, "m"), checked_dtype(dtype)
        self.degree = checked_size(degree, "degree") if degree != 0 else 0
        self.d = self.m if d is None else checked_size(d, "d")
        if self.m < self.degree:
            raise ValueError(
                f"m={m} is too small for degree={degree}: the variance of the highest power, about"
                " ((1 + 4 / m)^degree - 1) ‖u‖^(4 degree), drowns it for m below the degree. Take"
                f" m={power_of_two(degree)} at the least, better a hundred times more."
            )

        def draw(key, count, d, turns=None):
            keys = jax.random.split(key, count)
            if turns is None:
                turns = jnp.full(count, self.m)
            return jax.vmap(lambda k, t: RandomHadamard(d, self.m, key=k, dtype=dtype, turn=t))(
                keys, turns
            )

        q, (key_leaves, key_blocks, key_powers) = self.degree, jax.random.split(key, 3)
        # Every other leaf is turned: pairs of short leaves repeat pairs of rows late.
        turns = jnp.where(jnp.arange(q) % 2, power_of_two(self.d), self.m)
        self._leaves = draw(key_leaves, q, self.d, turns) if q else None
        counts = [q >> j for j in range(1, q.bit_length()) if 2**j < q]
        keys = jax.random.split(key_blocks, max(len(counts), 1))
        self._blocks = tuple(
            draw(*of_level, self.m) for of_level in zip(keys, counts, strict=False)
        )
        inner = len(_inner(range(q + 1)))
        self._powers = draw(key_powers, inner, self.m) if inner else None

    def __call__(self, leaves: Inputs) -> Float[Array, "*n powers m"]:
        """Sketches of all powers, (..., degree + 1, m).

        Entry l is the sketch of `u^{⊗l}`. Entry 0 is the constant vector of norm 1. Entry 1 is the
        first leaf, with zeros up to m; or, if leaves are longer than m, its `SRHT`.

        Args:
            leaves: (..., degree, d), `leaves[..., i, :]` the i-th sketch of u; all may be the same
                vector, if it is u itself or an isometric image.

        Raises:
            ValueError: the last two axes are not (degree, d), or entries are NaN or infinite.
            TypeError: not an array of real floating point numbers.
        """
        leaves = checked_vectors(leaves, self.d, "leaves")
        if leaves.ndim < 2 or leaves.shape[-2] != self.degree:
            raise ValueError(
                f"leaves has shape {leaves.shape}; this tree needs (..., {self.degree}, {self.d}):"
                " one sketch for each degree."
            )
        return tree_powers(self, leaves, tuple(range(self.degree + 1)))

    def _values(self, leaves: Array, wanted: tuple[int, ...]) -> Array:
        """Powers `wanted` of leaves (n, degree, d) or, for equal ones, (n, 1, d)."""
        scale = self.m**-0.5
        values = {0: jnp.full((leaves.shape[0], self.m), scale, leaves.dtype)}
        if self._leaves is not None:
            blocks = [self._leaves(leaves)]  # transformed, level by level
            ready = {1: blocks[0][..., 0, :]}  # transformed powers
            if self.d <= self.m:
                values[1] = jnp.pad(leaves[..., 0, :], ((0, 0), (0, self.m - self.d)))
            else:
                values[1] = scale * ready[1]
            for j in range(1, self.degree.bit_length()):
                pairs = blocks[-1][..., : 2 * (self.degree >> j), :]
                nodes = scale * pairs[..., ::2, :] * pairs[..., 1::2, :]
                values[2**j] = nodes[..., 0, :]
                if 2**j < self.degree:
                    blocks.append(self._blocks[j - 1](nodes))
                    ready[2**j] = blocks[-1][..., 0, :]
            for group in _rounds(wanted):
                last = [_last_block(l) for l in group]
                left = jnp.stack([ready[l & (l - 1)] for l in group], axis=-2)
                right = jnp.stack([blocks[j][..., i, :] for j, i in last], axis=-2)
                nodes = scale * left * right
                values |= {l: nodes[..., k, :] for k, l in enumerate(group)}
                inner = [l for l in group if l in _inner(wanted)]
                if inner:
                    chosen = jnp.stack([values[l] for l in inner], axis=-2)
                    transformed = self._transform_of(inner)(chosen)
                    ready |= {l: transformed[..., k, :] for k, l in enumerate(inner)}
        return jnp.stack([values[l] for l in wanted], axis=-2)

    def _transform_of(self, powers: list[int]) -> RandomHadamard:
        known = _inner(range(self.degree + 1))
        places = jnp.array([known.index(l) for l in powers])
        return jax.tree.map(lambda leaf: leaf[places], self._powers)


@eqx.filter_jit
def tree_powers(tree: PowerTree, leaves: Array, wanted: tuple[int, ...]) -> Array:
    """Powers `wanted` (..., len(wanted), m) of leaves (..., degree, d), or (..., 1, d)."""
    longest = max(power_of_two(tree.d), power_of_two(tree.m))
    flat = leaves.reshape(-1, *leaves.shape[-2:])
    values = in_chunks(lambda v: tree._values(v, wanted), flat, max(tree.degree, 1) * longest)
    return values.reshape(*leaves.shape[:-2], *values.shape[1:])


def _last_block(l: int) -> tuple[int, int]:
    """Level j and place i of the block `[l - 2^j, l)`, `2^j` the largest one that divides l."""
    j = (l & -l).bit_length() - 1
    return j, (l >> j) - 1


def _chains(wanted: Iterable[int]) -> set[int]:
    """Powers other than blocks that `wanted` needs, itself included."""
    needed = set()
    for l in wanted:
        while l & (l - 1):
            needed.add(l)
            l &= l - 1
    return needed


def _rounds(wanted: Iterable[int]) -> list[list[int]]:
    """Those powers in rounds: each needs one of the round before and a block."""
    needed = sorted(_chains(wanted))
    return [list(g) for _, g in itertools.groupby(sorted(needed, key=int.bit_count), int.bit_count)]


def _inner(wanted: Iterable[int]) -> list[int]:
    """Those of them that others need, in order."""
    needed = _chains(wanted)
    return sorted({l & (l - 1) for l in needed} & needed)
