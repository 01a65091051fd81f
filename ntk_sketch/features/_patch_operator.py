"""Patch operators: the vectors that the weights of a linear layer multiply."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from .._typing import Array, Inputs
from ..numerics._precision import Precision, matmul


@runtime_checkable
class PatchOperator(Protocol):
    """A linear map `P` from a block (n, *space, c) to one vector for each output position.

    A vector has `size` entries for every channel, made alike for all channels. The windows of a
    convolution are an example (`Windows`). Operators must be hashable, and equal if they do the
    same, since compiled programs are looked up by them.
    """

    @property
    def size(self) -> int:
        """Entries of a vector for each channel: vectors have the length `size · c`."""
        ...

    def output_space(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """Output positions for input positions."""
        ...

    def project(self, x: Array, matrix: Array, precision: Precision = "full") -> Array:
        """Inner products (n, *outputs, m) of all vectors with the columns of `matrix` (d, m)."""
        ...

    def patches(self, x: Array) -> Array:
        """All vectors (n, *outputs, d)."""
        ...

    def patches_at(self, x: Array, index: tuple[Inputs, ...]) -> Array:
        """The vectors (m, d) at m positions `index` = (example, *output position)."""
        ...


@dataclasses.dataclass(frozen=True)
class Patches:
    """A patch operator made of one function.

    Use this for the rule `Weights` of a layer of your own. `fn(x)` maps x (n, *space, c) to vectors
    (n, *outputs, size c). It must be linear and treat examples one by one and channels alike: the
    entries number `i c + j`, for `i < size`, depend on channel j only. Define it at the top level
    of a module, so that maps can be saved and compared.

    Cost: patches are formed and take `size` times the memory of x, unlike those of `Conv`.

    Args:
        fn: a function of JAX arrays.
        size: entries of a vector for each channel.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch import stax
        >>> from jax import numpy as jnp
        >>> def neighbours(x):
        ...     return jnp.concatenate([x[:, :-1], x[:, 1:]], axis=-1)
        >>> stax.Patches(neighbours, 2).patches(np.ones((3, 5, 4))).shape
        (3, 4, 8)
    """

    fn: Callable[[Array], Array]
    size: int

    def output_space(self, space: tuple[int, ...]) -> tuple[int, ...]:
        x = jax.ShapeDtypeStruct((1, *space, 1), np.float32)
        shape = jax.eval_shape(self.fn, x).shape
        if shape[0] != 1 or shape[-1] != self.size:
            raise ValueError(
                f"Patches({getattr(self.fn, '__name__', self.fn)}, {self.size}): the function makes"
                f" {shape} of inputs of shape {x.shape}; needed: (1, *outputs, {self.size}), with"
                " `size` entries for each channel."
            )
        return shape[1:-1]

    def project(self, x: Array, matrix: Array, precision: Precision = "full") -> Array:
        return matmul(self.fn(x), matrix, precision)

    def patches(self, x: Array) -> Array:
        return self.fn(x)

    def patches_at(self, x: Array, index: tuple[Inputs, ...]) -> Array:
        return self.fn(x)[index]
