"""Ridge regression in two halves: statistics of the examples, and the regression they make."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

from .._arguments import warn_of_lost_ranges, warn_of_lost_variation
from ..parallel._devices import Devices
from ..streaming._batches import Batches, BatchesLike
from ..streaming._feature_stream import FeatureStream
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from . import _checks
from ._agreement import agreed, given_by, unless_empty
from ._checkpoint import Checkpoint
from ._checks import DiagReg
from ._examples import checked_arrays, checked_batches, decomposed
from ._gcv import GCV, of_all_processes
from ._gram_state import GramState
from ._origin import check_same, origin_of
from ._regression import Regression
from ._run import Run
from ._selection import Selector, needs_spectrum
from ._solution import RidgeSolution
from ._sums import statistics
from ._validation import validation


def accumulate(
    feature_map: FeatureMapLike,
    x: Inputs | BatchesLike,
    y: Inputs | None = None,
    *,
    sample_weight: Inputs | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
    progress: Progress = None,
    checkpoint: Checkpoint | str | os.PathLike | None = None,
    mesh: Any = None,
) -> GramState:
    """Streams features of x into the statistics of a regression on y.

    Use this for every part of the data (shards, augmented copies, another day), then `merge` the
    states and `solve`, with or without an intercept. In place of x and y it takes batches of both.

    Cost: the features, 2 n p (p + k) FLOPs, and 12 p² bytes on the device (24 p² on the host for up
    to 1,024 features on a CPU).

    Args:
      feature_map, x, y, sample_weight, get, batch_size: as in `ridge`.
      progress: as in `ridge`.
      checkpoint: a path, or `Checkpoint(path, seconds=...)`: write the statistics there while they
        are computed, and resume from them if they are there.
      mesh: as in `ridge`. With a second axis the Gram matrix of the state stays split among the
        devices of one row.

    Raises:
      TypeError, ValueError: as `ridge`; for batches the message has the number of the batch. With a
        checkpoint the statistics of earlier batches are kept there.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> from ntk_sketch.solvers import accumulate, solve
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> first = accumulate(features, x[:20], np.sin(x[:20]))
      >>> second = accumulate(features, x[20:], np.sin(x[20:]))
      >>> int(first.merge(second).n_examples)
      50
    """
    devices = Devices.of(mesh)
    with contextlib.ExitStack() as stack:
        with devices.together():
            run = Run.of(checkpoint, devices)
            features = FeatureStream(feature_map, get, batch_size, progress, devices=devices)
            given = given_by(x, y, devices)
            sample_weight = unless_empty(sample_weight, devices)
            if isinstance(given, Batches):
                stack.enter_context(contextlib.closing(given))
                data = checked_batches(features, given, run, sample_weight)
            else:
                data = checked_arrays(features, given, y, sample_weight)
                warn_of_lost_variation(data.x, stacklevel=3)
        data = agreed(features, data, {"function": "accumulate"})
        how = {"run": run, "sample_weight": data.sample_weight}
        state = statistics(features, data.x, data.y, data.one_output, **how)
    if isinstance(given, Batches):
        warn_of_lost_ranges(given.ranges, stacklevel=3)
    return dataclasses.replace(state, origin=origin_of(feature_map, get))


def solve(
    feature_map: FeatureMapLike,
    state: GramState,
    *,
    diag_reg: DiagReg = 1e-3,
    diag_reg_absolute_scale: bool = False,
    select: Selector | str | tuple[Any, ...] | None = None,
    get: str = "ntk",
    batch_size: int | None = None,
    fit_intercept: bool = False,
    extend_path: bool = False,
    progress: Progress = None,
    mesh: Any = None,
) -> RidgeSolution:
    """Solves the regression whose statistics are `state`, in the primal form.

    Use this for states that were merged, or to try other regularisers with the same statistics.

    Cost: that of `ridge` without the sums.

    Args:
      feature_map, get: those of the statistics, for predictions.
      state: from `accumulate`, or a merge of such states.
      diag_reg, diag_reg_absolute_scale, batch_size, fit_intercept, extend_path, progress: as in
        `ridge`.
      select: 'gcv' or `GCV()`, `LeaveOneOut(x, y, groups)`, `(x_val, y_val)` or
        `Validation(x_val, y_val)`, or None. The statistics do not hold the examples: give
        `GCV(x, y)` the examples that landmarks come from to leave these out of its mean. For
        statistics with weights, `GCV` and `LeaveOneOut` take `sample_weight` too.
      mesh: as in `ridge`, for the features of `select`. Each of several processes gives its own
        examples there, and all give the same state.

    Returns:
      A `RidgeSolution` with weights of shape (p, outputs), or (p,) if all targets were (n,).

    Raises:
      TypeError, ValueError: as `ridge`.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> from ntk_sketch.solvers import accumulate, solve
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> first = accumulate(features, x[:20], np.sin(x[:20]))
      >>> second = accumulate(features, x[20:], np.sin(x[20:]))
      >>> solve(features, first.merge(second), diag_reg=1e-2).weights.shape
      (16, 3)
    """
    values, is_path = _checks.checked_diag_reg(diag_reg)
    if isinstance(select, str) and select == "gcv":
        select = GCV()
    elif isinstance(select, tuple | list):
        select = validation(select)
    if not (select is None or isinstance(select, Selector)):
        raise TypeError(
            f"select={select!r}; needed: None, 'gcv', (x_val, y_val), or an object such as "
            "LeaveOneOut(x, y): the statistics do not hold the examples"
        )
    check_same(
        state.origin, origin_of(feature_map, get), "these statistics are not of this feature map"
    )
    features = FeatureStream(feature_map, get, batch_size, progress, devices=Devices.of(mesh))
    selector: Selector | None = of_all_processes(select, features)
    _checks.check_extend(extend_path, values, selector)
    whole = needs_spectrum(selector, values)
    decomposition = decomposed(state, fit_intercept, whole, len(values))
    regression = Regression(decomposition, values, diag_reg_absolute_scale)
    scores = None if selector is None else regression.scores(selector, features, extend_path)
    return regression.solution(features, scores, is_path=is_path, one_output=state.one_output)
