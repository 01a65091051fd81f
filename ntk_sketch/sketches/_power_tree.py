"""All tensor powers of a vector from one tree of two-factor sketches."""

import functools
import math
import operator
from collections.abc import Iterable
from typing import TypeAlias

import equinox as eqx
import jax
from jax import numpy as jnp
from jaxtyping import Float

from .._arguments import checked_integer, checked_key
from .._typing import Array, Inputs, PRNGKey
from ..numerics._compiling import fitting_jit
from ._hadamard import RandomHadamard, in_chunks, power_of_two
from ._sketch import Sketch, checked_dtype, checked_vectors

#: The leaves `[start, stop)` that a node multiplies.
Node: TypeAlias = tuple[int, int]


class PowerTree(Sketch):
    r"""Sketches of all tensor powers `u^{⊗0}, ..., u^{⊗q}` of a vector in one pass.

    Use this if you already have q independent unbiased sketches of u, the leaves, or need different
    leaves; for sketches of a vector itself use `PolynomialSketch`.

    A node is the `TensorSRHT` of two values `a` and `b` (leaves or other nodes),

        (P_a H D_a a) ⊙ (P_b H D_b b) / √m,        E <node, node'> = <a, a'> <b, b'>.

    The nodes of a binary tree are blocks of leaves, `[i 2^j, (i + 1) 2^j)`. The power l, made of
    all leaves before l, is the node of the power `l - 2^j` and the last block of `2^j` leaves,
    where `2^j` is the largest power of two that divides l (a Fenwick tree). There are `q - 1`
    blocks and fewer than q further powers. Every value has one transform P H D, which all of its
    nodes share. A power contains no value twice, so that its transforms are independent and it is
    unbiased. (Those of different powers are not independent.)

    No vector passes more than `2 log2 q` nodes, and the variance grows linearly in l, not
    exponentially. If leaves are u itself,

        Var <power_l, power_l'> <= ((1 + g)^{l-1} - 1) ‖u‖^{2l} ‖u'‖^{2l},    g = 4 / (m - 1)

    for m a power of two, of which each node uses all rows. Otherwise `g <= 8 / (m - 1)`, with
    exponent l for leaves longer than m. (Given its values, a node has variance `σ_a² σ_b² / (m -
    1)`, see `TensorSRHT`, which is at most `4 ‖a‖² ‖a'‖² ‖b‖² ‖b'‖² / (m - 1)`. The covariance of
    its squared norms has the same bound. The result follows by induction over the tree.) Ahle et
    al. bound it by O(l / m).

    Args:
        m: length of the sketches. A power of two has the smallest variance and cost.
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

    Example:
        >>> from ntk_sketch.sketches import PowerTree
        >>> import jax
        >>> tree = PowerTree(4, 3, key=jax.random.key(0), d=8)
        >>> tree(jax.numpy.ones((5, 3, 8))).shape  # powers 0 to 3
        (5, 4, 4)
    """

    d: int = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    _leaves: RandomHadamard | None
    _nodes: RandomHadamard | None

    def __init__(self, m: int, degree: int, *, key: PRNGKey, dtype=None, d: int | None = None):
        self.m, dtype = checked_integer(m, "m"), checked_dtype(dtype)
        self.degree = checked_integer(degree, "degree", least=0)
        self.d = self.m if d is None else checked_integer(d, "d")
        if self.m < self.degree:
            raise ValueError(
                f"m={m} is too small for degree={degree}: the variance of the highest power, about"
                " ((1 + 4 / m)^degree - 1) ‖u‖^(4 degree), drowns it for m below the degree. Take"
                f" m={power_of_two(degree)} at the least, better a hundred times more."
            )
        self._leaves, self._nodes = _draw(checked_key(key), self.d, self.m, self.degree, dtype)

    def __call__(self, leaves: Inputs) -> Float[Array, "*n powers m"]:
        """Sketches of all powers, (..., degree + 1, m).

        Entry l is the sketch of `u^{⊗l}`. Entry 0 is the constant vector of norm 1. Entry 1 is the
        first leaf, padded with zeros to m; if leaves are longer than m, it is its `SRHT`.

        Args:
            leaves: (..., degree, d), where `leaves[..., i, :]` is the i-th sketch of u. All may be
                the same vector if it is u itself or an isometric image of it.

        Raises:
            ValueError: the last two axes are not (degree, d).
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
        values = {0: jnp.full((len(leaves), self.m), scale, leaves.dtype)}
        if self._leaves is not None:
            leaf_rows = self._leaves(leaves)
            transformed = {(i, i + 1): leaf_rows[:, i] for i in range(self.degree)}
            values[1] = scale * transformed[0, 1]
            if self.d <= self.m:
                values[1] = jnp.pad(leaves[:, 0], ((0, 0), (0, self.m - self.d)))
            places = {node: i for i, node in enumerate(_used(range(self.degree + 1)))}
            used = set(_used(wanted))
            for group in _rounds(wanted):
                nodes = {}
                for node in group:
                    first, second = _halves(*node)
                    nodes[node] = scale * transformed[first] * transformed[second]
                values |= {stop: nodes[start, stop] for start, stop in group if start == 0}
                if more := [node for node in group if node in used]:
                    known = jnp.array([places[node] for node in more])
                    own = jax.tree.map(operator.itemgetter(known), self._nodes)
                    rows = own(jnp.stack([nodes[node] for node in more], axis=1))
                    transformed |= {node: rows[:, i] for i, node in enumerate(more)}
        return jnp.stack([values[l] for l in wanted], axis=1)


@functools.partial(fitting_jit, level=0)
def _draw(key: PRNGKey, d: int, m: int, q: int, dtype):
    """Transforms of the leaves, and of all nodes that other nodes use."""

    def draw(key, d, turns):
        if not len(turns):
            return None
        keys = jax.random.split(key, len(turns))
        return jax.vmap(lambda k, t: RandomHadamard(d, m, key=k, dtype=dtype, turn=t))(keys, turns)

    key_leaves, key_nodes = jax.random.split(key)
    # The rows of every other leaf are rotated, so that pairs of short leaves repeat rows late.
    leaves = draw(key_leaves, d, jnp.where(jnp.arange(q) % 2, power_of_two(d), m))
    return leaves, draw(key_nodes, m, jnp.full(len(_used(range(q + 1))), m))


@eqx.filter_jit
def tree_powers(tree: PowerTree, leaves: Array, wanted: tuple[int, ...]) -> Array:
    """Powers `wanted` (..., len(wanted), m) of leaves (..., degree, d), or (..., 1, d)."""
    longest = max(power_of_two(tree.d), power_of_two(tree.m))
    batch = leaves.shape[:-2]
    flat = leaves.reshape(math.prod(batch), *leaves.shape[-2:])
    # Live at one time: values, their factors, and two steps of a transform.
    numbers = 4 * max(tree.degree, 1) * longest
    values = in_chunks(lambda v: tree._values(v, wanted), flat, numbers)
    return values.reshape(*batch, *values.shape[1:])


def _halves(start: int, stop: int) -> tuple[Node, Node]:
    """The two values that the node of leaves `[start, stop)` multiplies."""
    middle = stop - (stop & -stop)
    if middle <= start:  # a block of the binary tree
        middle = (start + stop) // 2
    return (start, middle), (middle, stop)


def _rounds(wanted: Iterable[int]) -> list[list[Node]]:
    """All nodes of some powers, in rounds that need only nodes of earlier rounds."""
    depths: dict[Node, int] = {}

    def depth(node: Node) -> int:
        if node[1] - node[0] <= 1:
            return 0
        if node not in depths:
            depths[node] = 1 + max(map(depth, _halves(*node)))
        return depths[node]

    deepest = max((depth((0, l)) for l in wanted), default=0)
    return [sorted(n for n in depths if depths[n] == k) for k in range(1, deepest + 1)]


def _used(wanted: Iterable[int]) -> list[Node]:
    """The nodes of some powers that other nodes use."""
    nodes = [node for group in _rounds(wanted) for node in group]
    halves = {half for node in nodes for half in _halves(*node)}
    return [node for node in nodes if node in halves]
