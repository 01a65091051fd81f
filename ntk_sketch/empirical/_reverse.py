"""Sketched gradients by reverse-mode differentiation, a few at a time."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array, PRNGKey
from ..numerics._memory import peak_bytes
from ._at_once import mapped, pieces_within, shapes
from ._blockwise_srht import BlockwiseSRHT
from ._network import Network

OfGradient = Callable[..., Any]


class SketchedGradients(eqx.Module):
    """`S ∇f` of every output, S a subsampled randomised Hadamard transform over all parameters."""

    mode: ClassVar[str] = "reverse"
    sketch: BlockwiseSRHT

    @classmethod
    def drawn(cls, n_params: int, width: int, *, key: PRNGKey) -> "SketchedGradients":
        return cls(BlockwiseSRHT(n_params, width, key=key))

    @property
    def rows(self) -> int:
        return self.sketch.m

    def __call__(self, network: Network, params: Any, x: Array, dtype, memory_bytes: int):
        """Products (n, *out, rows) in `dtype`, and outputs (n, *out)."""
        return of_gradients(self.sketch, network, params, x, dtype, memory_bytes)

    def bytes_of_example(self, network: Network, params: Any, x: Any) -> int:
        """Memory per example of a batch, besides its features: none, since gradients are computed
        for a few examples at a time."""
        return 0


def of_gradients(
    f: OfGradient, network: Network, params: Any, x: Array, dtype, memory_bytes: int
) -> tuple[Array, Array]:
    """`f` of the gradient of every output of every example (n, *out, ...), and the outputs (n,
    *out).

    `f` takes the gradient as one vector for each array of parameters. As many gradients as fit in
    memory are computed at a time.
    """
    outputs = network.outputs(params, shapes(x, skip=1))
    one = _bytes_of_gradient(f, network, params, x, dtype)
    at_once = pieces_within(memory_bytes, one, len(x) * outputs.size)

    def of_example(x: Array) -> tuple[Array, Array]:
        y, pull = jax.vjp(lambda params: network(params, x), params)
        each = jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape)
        found = mapped(lambda cotangent: f(*_vectors(pull(cotangent), dtype)), each, at_once)
        return found.reshape(*y.shape, *found.shape[1:]), y

    return mapped(of_example, x, max(at_once // outputs.size, 1))


def _bytes_of_gradient(f: OfGradient, network: Network, params: Any, x: Array, dtype) -> int:
    """Memory for the gradient of one output of one example, including that of `f`."""

    def gradient(network: Network, params: Any, x: Array) -> Array:
        y, pull = jax.vjp(lambda params: network(params, x), params)
        return f(*_vectors(pull(jnp.ones_like(y)), dtype))

    return peak_bytes(gradient, shapes(network), shapes(params), shapes(x, skip=1))


def _vectors(gradient: Any, dtype) -> list[Array]:
    return [leaf.astype(dtype).reshape(-1) for leaf in jax.tree.leaves(gradient)]
