"""What a prediction costs that is not its target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ..parallel._devices import Devices

Loss = Callable[[Float[np.ndarray, "... k"], Float[np.ndarray, "... k"]], np.ndarray]
"""`loss(residuals, targets)`, one number (...) for each example; residuals are y - prediction."""


def _squared(residuals: Float[np.ndarray, "... k"], targets: Float[np.ndarray, "... k"]):
    del targets
    return np.mean(residuals**2, axis=-1)


def _zero_one(residuals: Float[np.ndarray, "... k"], targets: Float[np.ndarray, "... k"]):
    wrong = (targets - residuals).argmax(axis=-1) != targets.argmax(axis=-1)
    return np.where(np.isfinite(residuals).all(axis=-1), wrong, np.inf)


_LOSSES: dict[str, Loss] = {"squared": _squared, "zero_one": _zero_one}


def checked_loss(loss: str) -> str:
    """The name, if there is such a loss."""
    if loss not in _LOSSES:
        raise ValueError(f"loss={loss!r} is unknown; known: {', '.join(map(repr, _LOSSES))}")
    return loss


def summed(devices: Devices, losses: Callable[[], tuple]) -> tuple[Any, ...]:
    """What `losses` returns, sums of losses (m,) and numbers of examples, over all processes."""
    with devices.together():
        total, *counts = losses()
    sums = devices.summed(np.concatenate([total, np.asarray(counts, np.float64)]))
    return sums[: len(total)], *map(float, sums[len(total) :])


def loss_of(name: str, outputs: int) -> Loss:
    """The loss of this name, for targets with so many columns."""
    if name == "zero_one" and outputs < 2:
        raise ValueError(
            "loss='zero_one' compares the largest prediction of an example with its class, but the"
            " targets have one column: give one for each class, for instance"
            " jax.nn.one_hot(labels, k) - 1 / k"
        )
    return _LOSSES[name]
