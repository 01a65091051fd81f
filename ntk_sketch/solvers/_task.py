"""What a regression is asked to fit and to choose by, checked."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from ..streaming._batches import Batches
from ..streaming._feature_stream import FeatureStream
from . import _checks
from ._examples import Data, checked_batches
from ._leave_one_out import LeaveOneOut
from ._run import Run
from ._selecting import check_validation, select_of_arrays, select_of_batches
from ._selection import Selector
from ._validation import HoldOut, Validation


class How(NamedTuple):
    """Arguments of `ridge` that weigh examples and choose a regulariser."""

    sample_weight: Any
    select: Any
    groups: Any
    refit: bool
    keep_features: bool
    fit_intercept: bool
    extend_path: bool
    values: list[float]

    def in_words(self) -> dict[str, Any]:
        """What all processes of a mesh must be given alike."""
        select = self.select if isinstance(self.select, str) else type(self.select).__name__
        named = ("refit", "fit_intercept", "extend_path")
        options = {name: bool(getattr(self, name)) for name in named}
        return {"function": "ridge", "diag_reg": self.values, "select": select} | options


class Task(NamedTuple):
    """What is fitted, `data[order]`, and what chooses."""

    data: Data
    selector: Selector | None
    order: Int[np.ndarray, " m"] | None = None


def task_of_arrays(features: FeatureStream, data: Data, how: How, run: Run | None) -> Task:
    assert data.y is not None
    x, targets, weights, order = data.x, data.y, data.sample_weight, None
    selector = select_of_arrays(how.select, x, targets, weights, how.groups, how.refit)
    _checks.check_extend(how.extend_path, how.values, selector)
    if isinstance(selector, HoldOut):
        landmarks = features.landmarks(x)
        order, selector = selector.split(x, targets, how.groups, landmarks, weights)
    fitted = weights if weights is None or order is None else weights[order]
    n = len(x) if order is None else len(order)
    if features.devices.processes is None:
        _checks.check_intercept(how.fit_intercept, n if fitted is None else int(np.sum(fitted > 0)))
    elif how.keep_features:
        raise ValueError("keep_features=True is of one process: leave it out")
    loo = isinstance(selector, LeaveOneOut)
    if how.keep_features and run is not None and loo and selector.sample is None:
        raise ValueError(
            "keep_features=True computes all features before their statistics, which are what a"
            " checkpoint holds: leave out one of the two"
        )
    return Task(data, selector, order)


def keep_twice(features: FeatureStream, data: Data, selector: Selector | None, how: How) -> None:
    x = data.x
    if isinstance(selector, LeaveOneOut) and len(x) > features.spec(x).shape[1]:
        if selector.sample is None:
            features.keep(x, also=selector.x)
        elif selector.x is x and selector.groups is None:
            features.keep_some(x, selector.order(features)[0])
    elif how.refit and isinstance(selector, Validation):
        features.keep(selector.x)


def task_of_batches(
    features: FeatureStream,
    x: Batches,
    how: How,
    run: Run | None,
    stack: contextlib.ExitStack,
) -> Task:
    """
    Args:
      stack: at whose end the batches are closed.
    """
    if how.keep_features:
        raise ValueError(
            "keep_features=True holds the features of all examples in memory: give these as"
            " arrays, or keep_features=False to compute features again"
        )
    x, selector = select_of_batches(how.select, x, features, how.groups, how.refit)
    _checks.check_extend(how.extend_path, how.values, selector)
    stack.enter_context(contextlib.closing(x))
    data = checked_batches(features, x, run, how.sample_weight)
    if data.kind is not None:
        kind = data.kind
        check_validation(selector, kind.shape, kind.outputs, kind.weighted, how.refit)
    return Task(data, selector)
