"""`Network`: a function of parameters and one example."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array


class Network(eqx.Module):
    """`apply_fn(params, x, **kwargs)` for one example: outputs (*out) of x (*shape).

    Batches are evaluated under `jax.vmap`, so that the outputs of an example do not depend on the
    others.

    Attributes:
        apply_fn: a function of a batch.
        arrays: the arrays among `kwargs`, and None for the others.
    """

    apply_fn: Callable = eqx.field(static=True)
    arrays: tuple
    _others: tuple = eqx.field(static=True)
    _tree: Any = eqx.field(static=True)

    @classmethod
    def of(cls, apply_fn: Callable, kwargs: dict[str, Any]) -> "Network":
        leaves, tree = jax.tree.flatten(kwargs)
        arrays = tuple(leaf if _is_array(leaf) else None for leaf in leaves)
        others = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
        return cls(apply_fn, arrays, others, tree)

    @property
    def kwargs(self) -> dict[str, Any]:
        pairs = zip(self.arrays, self._others, strict=True)
        leaves = [other if array is None else array for array, other in pairs]
        return jax.tree.unflatten(self._tree, leaves)

    def __call__(self, params: Any, x: Array) -> Array:
        return jnp.squeeze(self.apply_fn(params, jnp.expand_dims(x, 0), **self.kwargs), 0)

    def outputs(self, params: Any, x: Any) -> jax.ShapeDtypeStruct:
        """Shape and dtype of those of one example, whether arrays are there or their shapes."""
        return jax.eval_shape(Network.__call__, self, params, x)

    def batch(self, params: Any, x: Array) -> Array:
        """Outputs (n, *out) of examples (n, *shape)."""
        return jax.vmap(self, (None, 0))(params, x)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)
