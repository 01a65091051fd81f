"""What a batch of the user's must be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arguments import checked_inputs
from ._sample_weights import checked_weights
from ._targets import checked_targets


class Kind(NamedTuple):
    """What all batches have in common.

    Attributes:
      shape, dtype: of one example.
      outputs: k, or None without targets.
      one_output: targets are given as (n,).
      weighted: examples have weights.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    outputs: int | None
    one_output: bool
    weighted: bool = False


class Checked(NamedTuple):
    """A batch as arrays: inputs, targets (m, k) and weights (m,), where there are any."""

    kind: Kind
    x: np.ndarray
    y: np.ndarray | None
    sample_weight: np.ndarray | None


def checked_batch(batch: Any, number: int, row: int, kind: Kind | None, targets: bool) -> Checked:
    """A batch that is as those before.

    Args:
      batch: `(x, y)` or `(x, y, sample_weight)`; without `targets` also x alone.
      number, row: how many batches and examples came before.
      kind: of those.

    Raises:
      TypeError, ValueError: with the number of the batch and of its examples.
    """
    where = f"batch {number}, which begins with example {row}"
    try:
        x, y, weights = _parts(batch, targets)
        if kind is not None and _is_empty(x) and (y is None or _is_empty(y)):
            return Checked(kind, np.zeros((0, *kind.shape), kind.dtype), None, None)
        if hasattr(x, "__len__"):
            where = f"batch {number}, examples {row} to {row + len(x) - 1}"
        x = np.asarray(checked_inputs(x))
        one_output, outputs = False, None
        if targets:
            y, one_output = checked_targets(y, len(x))
            outputs = y.shape[1]
        if weights is not None:
            weights = checked_weights(weights, len(x), whole=False)
        found = Kind(x.shape[1:], x.dtype, outputs, one_output, weights is not None)
        if kind is not None:
            _check_same(found, kind)
    except (TypeError, ValueError) as error:
        raise type(error)(f"in {where}: {error}") from None
    return Checked(found, x, y, weights)


def _is_empty(x: Any) -> bool:
    return hasattr(x, "__len__") and len(x) == 0


def _parts(batch: Any, targets: bool) -> tuple[Any, Any, Any]:
    """x, y and weights; without `targets` x alone."""
    several = isinstance(batch, tuple | list)
    if targets and not (several and len(batch) in (2, 3)):
        got = f"a {type(batch).__name__}"
        got += f" of {len(batch)}" if several or isinstance(batch, dict) else ""
        raise TypeError(
            f"it is {got}; needed: a pair (x, y) of inputs and targets, or (x, y, sample_weight)."
            " Pass a function that"
            " makes pairs of what your loader gives, which is called for each pass: lambda:"
            ' ((b["x"], b["y"]) for b in loader). With arrays x, give y'
        )
    if targets:
        x, y, *weights = batch
        return x, y, weights[0] if weights else None
    if several and len(batch) in (1, 2, 3) and all(hasattr(part, "__array__") for part in batch):
        return batch[0], None, None
    return batch, None, None


def _check_same(found: Kind, kind: Kind) -> None:
    """
    Raises:
      ValueError: with both shapes.
    """
    if found.shape != kind.shape:
        raise ValueError(
            f"x has examples of shape {found.shape}, those of the batches before {kind.shape}"
        )
    if found.dtype != kind.dtype:
        raise ValueError(
            f"x has dtype {found.dtype}, in the batches before {kind.dtype}: give all of them one"
        )
    if (found.outputs, found.one_output) != (kind.outputs, kind.one_output):
        ours, theirs = ("(m,)" if k.one_output else f"(m, {k.outputs})" for k in (found, kind))
        raise ValueError(f"y has shape {ours}, in the batches before {theirs}")
    if found.weighted != kind.weighted:
        without = "no sample_weight, unlike" if kind.weighted else "sample_weight, unlike"
        raise ValueError(f"it has {without} the batches before: give all of them (x, y, weights)")
