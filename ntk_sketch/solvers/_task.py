"""What a regression is asked to fit and to choose by, checked."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from ..parallel._devices import Devices
from ..streaming._batches import Batches
from ..streaming._feature_cache import FeatureCache, checked_cache
from ..streaming._feature_stream import FeatureStream
from . import _checks
from ._conjugate_gradient import ConjugateGradient, checked_solver
from ._examples import Data, Examples, checked_batches
from ._gcv import GCV
from ._leave_one_out import LeaveOneOut
from ._run import Run
from ._selecting import check_iterative, check_validation, select_of_arrays, select_of_batches
from ._selection import Selector
from ._streamed import Streamed
from ._validation import HoldOut, Validation


class How(NamedTuple):
    """Arguments of `ridge` that weigh examples, choose a regulariser and say how it is solved.

    Attributes:
      keep_features: in memory.
      cache: where they are kept otherwise.
    """

    sample_weight: Any
    select: Any
    groups: Any
    refit: bool
    keep_features: bool
    cache: FeatureCache | None
    fit_intercept: bool
    extend_path: bool
    values: list[float]
    solver: ConjugateGradient | None

    @classmethod
    def of(cls, devices: Devices, keep_features: Any, solver: Any, **others: Any) -> How:
        """Of what the user gave.

        Raises:
          TypeError, ValueError: what is none, or cannot go together.
        """
        cache, solver = None, checked_solver(solver)
        if not isinstance(keep_features, bool):
            keep_features, cache = False, checked_cache(keep_features)
        if devices.processes is not None:
            _check_of_one_process(keep_features or cache is not None)
        if solver is not None:
            check_iterative(others["select"], others["values"])
        return cls(keep_features=keep_features, cache=cache, solver=solver, **others)

    def no_examples(self, features: FeatureStream, one_output: bool) -> Examples | Streamed:
        """To which those that are fitted are added."""
        if self.solver is None:
            return Examples(features, one_output)
        return Streamed(features, one_output, self.solver)

    def in_words(self) -> dict[str, Any]:
        """What all processes of a mesh must be given alike."""
        select = self.select if isinstance(self.select, str) else type(self.select).__name__
        named = ("refit", "fit_intercept", "extend_path")
        options: dict[str, Any] = {name: bool(getattr(self, name)) for name in named}
        options["solver"] = self.solver and vars(self.solver)
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
    own = selector.x if isinstance(selector, LeaveOneOut | GCV) else None  # examples of x too
    if isinstance(selector, HoldOut):
        landmarks = features.landmarks(x)
        order, selector = selector.split(x, targets, how.groups, landmarks, weights)
        own = selector.x
    if how.cache is not None:
        features.cached(how.cache, data.kind, x, own)
    fitted = weights if weights is None or order is None else weights[order]
    n = len(x) if order is None else len(order)
    if features.devices.processes is None:
        _checks.check_intercept(how.fit_intercept, n if fitted is None else int(np.sum(fitted > 0)))
    loo = isinstance(selector, LeaveOneOut)
    if how.keep_features and run is not None and loo and selector.sample is None:
        raise ValueError(
            "keep_features=True computes all features before their statistics, which are what a"
            " checkpoint holds: leave out one of the two"
        )
    return Task(data, selector, order)


def keep_twice(features: FeatureStream, data: Data, selector: Selector | None, how: How) -> None:
    x = data.x
    if how.solver is not None:
        features.keep(x)
    elif isinstance(selector, LeaveOneOut) and len(x) > features.spec(x).shape[1]:
        if selector.sample is None:
            features.keep(x, also=selector.x)
        elif selector.x is x and selector.groups is None:
            features.keep_some(x, selector.order(features)[0])
    if how.refit and isinstance(selector, Validation):
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
            " arrays, keep_features=path to keep features in a file, or keep_features=False to"
            " compute them again"
        )
    given = x
    x, selector = select_of_batches(how.select, x, features, how.groups, how.refit)
    _checks.check_extend(how.extend_path, how.values, selector)
    stack.enter_context(contextlib.closing(x))
    data = checked_batches(features, x, run, how.sample_weight)
    if data.kind is not None:
        kind = data.kind
        check_validation(selector, kind.shape, kind.outputs, kind.weighted, how.refit)
        if how.cache is not None:
            features.cached(how.cache, kind, given)
    return Task(data, selector)


def _check_of_one_process(kept: bool) -> None:
    """Refuses what is not shared over processes."""
    if kept:
        raise ValueError(
            "keep_features is of one process, and this mesh is of several: leave it out, so that"
            " each of them computes features again; or give a mesh of jax.local_devices()"
        )
