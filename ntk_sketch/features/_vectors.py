"""Vectors of positions after a pending layer, projected without being formed."""

import functools
from typing import Any

import equinox as eqx
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, Inputs, Scalar
from ..numerics._precision import Precision, matmul
from ._patch_operator import PatchOperator
from ._rooted import Rooted, formed, mapped
from ._unshared_windows import UnsharedWindows


class Vectors(eqx.Module):
    """One vector per position: patches of scaled blocks, and a constant coordinate.

    The vector is the concatenation of `scale · patch(block)` over the blocks and, unless it is
    `None`, of `constant`. With unshared windows there is one constant coordinate per position.
    """

    # Arrays or `Rooted`, or shapes while a map is planned.
    blocks: tuple[tuple[Any, Scalar], ...]
    constant: Scalar | None
    operator: PatchOperator | None = eqx.field(static=True)

    @property
    def sizes(self) -> tuple[int, ...]:
        size = 1 if self.operator is None else self.operator.size
        return tuple(size * block.shape[-1] for block, _ in self.blocks)

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        return sum(self.sizes) + (self.constant is not None) * self.places

    @property
    def places(self) -> int:
        """The number of constant coordinates."""
        return self.operator.places if isinstance(self.operator, UnsharedWindows) else 1

    @property
    def space(self) -> tuple[int, ...]:
        space = self.blocks[0][0].shape[1:-1]
        return space if self.operator is None else self.operator.output_space(space)

    def terms(self, matrix: Float[Inputs, "d m"]) -> list[tuple[Array, Array]]:
        """Each block with the rows of `matrix` (d, m) that multiply it, times its scale."""
        terms, row = [], 0
        for (block, scale), size in zip(self.blocks, self.sizes, strict=True):
            terms.append((block, scale * matrix[row : row + size]))
            row += size
        return terms

    def fold(self, matrix: Inputs, columns: tuple[int, ...], numpy: Any = jnp) -> Any:
        """`matrix` (d, m) with pending roots multiplied into its rows, where that costs less.

        Args:
            columns: for each block the total number of columns that it is projected on.
        """
        size = 1 if self.operator is None else self.operator.size
        parts, row = [], 0
        for (block, _), rows, count in zip(self.blocks, self.sizes, columns, strict=True):
            part = matrix[row : row + rows]
            folds = isinstance(block, Rooted) and block.folds(size, count)
            parts.append(block.fold(part, numpy) if folds else part)
            row += rows
        return numpy.concatenate([*parts, matrix[row:]])

    def project(
        self, matrix: Float[Inputs, "d m"], precision: Precision = "full"
    ) -> Float[Array, "n *space m"]:
        """Inner products (n, *space, m) with the columns of `matrix` (d, m).

        After a convolution this is a convolution with the columns as filters.

        Cost: `2 n |space| d m` FLOPs.
        """
        vectors = self.formed()
        terms = vectors.terms(matrix)
        return self.summed([vectors.through(*term, precision) for term in terms], matrix)

    def through(self, block: Array, rows: Array, precision: Precision) -> Array:
        """Products of one block's patches with some rows of a matrix."""
        if self.operator is None:
            return matmul(block, rows, precision)
        return self.operator.project(block, rows, precision)

    def summed(self, parts: list[Any], matrix: Inputs) -> Array:
        """The sum of the blocks' products and of the constant coordinate's."""
        if self.constant is not None:
            constant = self.constant * matrix[-self.places :]
            shared = self.places == 1
            space = (1,) * (parts[0].ndim - 2) if shared else parts[0].shape[1:-1]
            parts = [*parts, constant.reshape(1, *space, constant.shape[-1])]
        return functools.reduce(jnp.add, parts)

    def at(self, index: tuple[Inputs, ...]) -> Array:
        """The vectors (m, d) at m positions `index` = (example, *position)."""
        parts = []
        for block, scale in self.blocks:
            array = block.values if isinstance(block, Rooted) else block
            rows = array[index] if self.operator is None else self.operator.patches_at(array, index)
            if isinstance(block, Rooted):
                taps = rows.reshape(len(rows), -1, array.shape[-1])
                rows = Rooted(taps, block.root).formed().reshape(len(rows), -1)
            parts.append(scale * rows)
        if self.constant is not None:
            parts.append(self.constants_at(index, parts[0].dtype))
        return jnp.concatenate(parts, axis=-1)

    def formed(self) -> "Vectors":
        """The same vectors with all roots applied, before patches are taken."""
        blocks = tuple((formed(block), scale) for block, scale in self.blocks)
        return Vectors(blocks, self.constant, self.operator)

    def blocks_formed(self) -> tuple[Any, ...]:
        """The vectors, formed block by block. Roots stay pending if there are no patches.

        Patches multiply the memory by the size of the window.
        """
        formed: list[Any] = [
            mapped(lambda values, scale=scale: scale * values, block)
            if self.operator is None
            else scale * self.operator.patches(block)
            for block, scale in self.blocks
        ]
        if self.constant is not None:
            formed.append(self.constants(formed[0].shape[:-1], formed[0].dtype))
        return tuple(formed)

    def constants(self, shape: tuple[int, ...], dtype) -> Array:
        """Constant coordinates (n, *space, places) of all positions; `shape` is (n, *space)."""
        constant: Any = self.constant
        if isinstance(self.operator, UnsharedWindows):
            own = constant * self.operator.constants(dtype)
            return jnp.broadcast_to(own[None], (*shape, self.places))
        return jnp.full((*shape, 1), constant, dtype)

    def constants_at(self, index: tuple[Inputs, ...], dtype) -> Array:
        """Constant coordinates (m, places) at m positions `index` = (example, *position)."""
        constant: Any = self.constant
        if isinstance(self.operator, UnsharedWindows):
            return constant * self.operator.constants_at(index, dtype)
        return jnp.full((len(index[0]), 1), constant, dtype)
