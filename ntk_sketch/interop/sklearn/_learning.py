"""Feature learning by recursive feature machines: inputs rescaled by average gradients."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..._typing import Array, Inputs
from ...numerics._precision import matmul
from ...solvers import RidgeSolution

RELEVANCES = ("diagonal", "full")
_BATCH = 256  # number of rows whose gradients are computed at once


class Rescaled(eqx.Module):
    """x times the root of a relevance matrix, or of its diagonal."""

    root: Float[Inputs, "d ..."]

    def __call__(self, x: Array) -> Array:
        root = jnp.asarray(self.root).astype(x.dtype)
        return x * root[None] if root.ndim == 1 else matmul(x, root, "full")


def relevance_root(
    solution: RidgeSolution, x: Float[np.ndarray, "n d"], relevance: str
) -> Float[np.ndarray, "d ..."]:
    """√M with M = Σᵢ Σₒ ∇fₒ(xᵢ) ∇fₒ(xᵢ)ᵀ, the average outer product of gradients; or √(diag M).

    M is scaled so that the mean of its diagonal is 1.

    Cost: a vector-Jacobian product of the features for each output and row.

    Source: A. Radhakrishnan, D. Beaglehole, P. Pandit, M. Belkin, Mechanism for feature learning in
    neural networks and backpropagation-free machine learning models, Science 383 (2024).
    """
    total = np.zeros((x.shape[1],) * (1 if relevance == "diagonal" else 2))
    for start in range(0, len(x), _BATCH):
        batch = x[start : start + _BATCH]
        rows = np.concatenate([batch, np.repeat(batch[-1:], _BATCH - len(batch), axis=0)])
        for gradient in np.asarray(_gradients(solution, rows))[:, : len(batch)]:
            g = gradient.astype(np.float64)
            total += np.sum(g**2, axis=0) if total.ndim == 1 else g.T @ g
    diagonal = total if total.ndim == 1 else np.diagonal(total)
    if not diagonal.sum() > 0:  # a constant predictor has no gradients
        return np.ones(x.shape[1])
    total /= diagonal.mean()
    if total.ndim == 1:
        return np.sqrt(total)
    values, vectors = np.linalg.eigh(total)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


@eqx.filter_jit
def _gradients(solution: RidgeSolution, x: Any) -> Float[Array, "k n d"]:
    """Gradients of each output with respect to its own row."""
    outputs, pullback = jax.vjp(lambda x: jnp.reshape(solution.predict(x), (len(x), -1)), x)
    ones = jnp.eye(outputs.shape[1], dtype=outputs.dtype)
    towards = jnp.broadcast_to(ones[:, None, :], (len(ones), *outputs.shape))
    return jax.lax.map(lambda c: pullback(c)[0], towards)
