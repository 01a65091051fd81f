"""The windows of a convolution whose weights differ from position to position."""

import dataclasses
import math

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, Inputs
from ..numerics._precision import Precision, matmul
from ._windows import Windows


@dataclasses.dataclass(frozen=True)
class UnsharedWindows:
    """Windows whose vectors at different positions are orthogonal.

    The patch at position S is block S of a vector of `|outputs|` blocks; all other blocks are 0.
    Random directions for such vectors are independent at different positions, and covariances of
    different positions are 0. A projection multiplies only the block that is not 0: it has the
    FLOPs of a convolution and `|outputs|` times the memory of its filters.

    Args:
        windows: of the layer.
        space: input positions.
    """

    windows: Windows
    space: tuple[int, ...]

    @property
    def places(self) -> int:
        """Blocks of a vector."""
        return math.prod(self.windows.output_space(self.space))

    @property
    def size(self) -> int:
        return self.places * self.windows.size

    def output_space(self, space: tuple[int, ...]) -> tuple[int, ...]:
        return self.windows.output_space(space)

    def project(
        self,
        x: Float[Array, "n *space p"],
        matrix: Float[Array, "d m"],
        precision: Precision = "full",
    ) -> Float[Array, "n *outputs m"]:
        patches = self.windows.patches(x)
        blocks = patches.reshape(len(x), self.places, -1)
        filters = matrix.reshape(self.places, -1, matrix.shape[-1])
        product = jax.vmap(lambda a, b: matmul(a, b, precision), in_axes=(1, 0), out_axes=1)
        return product(blocks, filters).reshape(*patches.shape[:-1], -1)

    def patches(self, x: Float[Array, "n *space p"]) -> Float[Array, "n *outputs d"]:
        """All vectors, which take `|outputs|` times the memory of shared patches."""
        patches = self.windows.patches(x)
        blocks = patches.reshape(len(x), self.places, 1, -1)
        own = jnp.asarray(np.eye(self.places)[None, ..., None], x.dtype)
        return (own * blocks).reshape(*patches.shape[:-1], -1)

    def patches_at(self, x: Array, index: tuple[Inputs, ...]) -> Array:
        patches = self.windows.patches_at(x, index)
        return (self.constants_at(index, x.dtype)[..., None] * patches[:, None]).reshape(
            len(patches), -1
        )

    def constants(self, dtype) -> Float[Array, "*outputs places"]:
        """One constant coordinate for every position."""
        own = np.eye(self.places).reshape(*self.output_space(self.space), -1)
        return jnp.asarray(own, dtype)

    def constants_at(self, index: tuple[Inputs, ...], dtype) -> Float[Array, "m places"]:
        """The constant coordinates of the output positions `index` = (example, *position)."""
        place = jnp.zeros_like(index[0])
        for at, size in zip(index[1:], self.output_space(self.space), strict=True):
            place = place * size + at
        return jax.nn.one_hot(place, self.places, dtype=dtype)
