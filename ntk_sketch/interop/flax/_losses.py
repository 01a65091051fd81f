"""What a head minimises."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import optax
from jax import numpy as jnp
from jaxtyping import Float

from ..._typing import Array

LossLike: TypeAlias = Callable[[Array, Array], Any]
"""Outputs (b, k) and targets (b, k) to the loss of each example (b,)."""

LOSSES: dict[str, LossLike] = {
    "softmax": optax.softmax_cross_entropy,
    "squared": lambda outputs, y: 0.5 * jnp.sum((outputs - y) ** 2, axis=1),
}

_ROUNDING = 1e-5  # of sums over classes in float32


def loss_of(loss: Any) -> LossLike:
    """By its name, or a function itself."""
    found = LOSSES.get(loss) if isinstance(loss, str) else loss
    if callable(found):
        return found
    raise ValueError(
        f"loss={loss!r}; needed: {', '.join(map(repr, LOSSES))}, or a function from outputs (b, k)"
        " and targets (b, k) to (b,)"
    )


def targets_of(loss: Any, y: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b k"]:
    """As the loss takes them: probabilities for a softmax, also of centred rows.

    Raises:
        ValueError: they are none.
    """
    if loss != "softmax":
        return y
    k = y.shape[1]
    shares = y + (1 - y.sum(axis=1, keepdims=True)) / k
    if k < 2 or shares.min() < -_ROUNDING:
        row = int(np.argmin(shares.min(axis=1)))
        raise ValueError(
            f"loss='softmax' needs targets (n, classes) that are one-hot rows or probabilities; got"
            f" {y[row].tolist()}. Labels become jax.nn.one_hot(labels, classes)"
        )
    return shares
