"""Random Jacobian-vector products by forward-mode differentiation."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
from jax import numpy as jnp
from jaxtyping import UInt32

from .._typing import Array, PRNGKey
from ..numerics._memory import peak_bytes
from ._at_once import mapped, pieces_within, shapes, tree_bytes
from ._network import Network
from ._signs import seed_of, signs


class ForwardProducts(eqx.Module):
    """`S ∇f` of all outputs, where the rows of S are random signs divided by `√width`.

    Each row is the tangent of a Jacobian-vector product, drawn when it is used, so that S is never
    stored. There are at most as many rows as parameters. With that many, rows are unit vectors and
    the products are the Jacobian itself.
    """

    mode: ClassVar[str] = "forward"
    rows: int = eqx.field(static=True)
    n_params: int = eqx.field(static=True)
    seed: UInt32[Array, " 2"]

    @classmethod
    def drawn(cls, n_params: int, width: int, *, key: PRNGKey) -> "ForwardProducts":
        return cls(min(width, n_params), n_params, seed_of(key))

    def __call__(self, network: Network, params: Any, x: Array, dtype, memory_bytes: int):
        """Products (n, *out, rows) in `dtype`, and outputs (n, *out)."""
        scale = 1.0 if self.rows == self.n_params else self.rows**-0.5
        one = self.bytes_of_one(network, params, x)
        at_once = pieces_within(memory_bytes, len(x) * one + 2 * tree_bytes(params), self.rows)
        outputs, push = jax.linearize(lambda params: network.batch(params, x), params)
        products = mapped(
            lambda row: push(self._tangent(params, row)).astype(dtype),
            jnp.arange(self.rows, dtype="int32"),
            at_once,
        )
        return jnp.moveaxis(products, 0, -1) * scale, outputs

    def _tangent(self, params: Any, row: Array) -> Any:
        leaves, tree = jax.tree.flatten(params)
        if self.rows == self.n_params:
            drawn = jnp.arange(self.n_params, dtype=row.dtype) == row
        else:
            drawn = signs(self.seed, row, self.n_params)
        parts, start = [], 0
        for leaf in leaves:
            parts.append(drawn[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype))
            start += leaf.size
        return jax.tree.unflatten(tree, parts)

    def bytes_of_one(self, network: Network, params: Any, x: Any) -> int:
        """Memory of one product of one example."""

        def product(network: Network, params: Any, tangent: Any, x: Array) -> Array:
            function: Callable = lambda params: network(params, x)  # noqa: E731
            return jax.jvp(function, (params,), (tangent,))[1]

        params = shapes(params)
        return peak_bytes(product, shapes(network), params, params, shapes(x, skip=1))

    def bytes_of_example(self, network: Network, params: Any, x: Any) -> int:
        """Memory per example of a batch, besides its features."""
        return self.bytes_of_one(network, params, x)
