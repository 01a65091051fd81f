"""What a regression is made of: statistics of its examples, or a solver that reads them again."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import jax
import numpy as np

from .._arguments import warn_of_lost_ranges
from ..streaming._batches import Batches
from ..streaming._feature_cache import FeatureCache
from ..streaming._feature_stream import FeatureStream
from . import _checks
from ._conjugate_gradient import ConjugateGradient
from ._examples import Data, Examples, checked_batches
from ._gcv import GCV
from ._leave_one_out import LeaveOneOut
from ._run import Run
from ._selecting import check_validation, select_of_arrays, select_of_batches
from ._selection import Selector
from ._streamed import Streamed
from ._validation import HoldOut, Validation


class How(NamedTuple):
    """Arguments of `ridge` that weigh examples and choose a regulariser."""

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

    def none_of(
        self, features: FeatureStream, spec: jax.ShapeDtypeStruct, one_output: bool
    ) -> Examples | Streamed:
        """No examples yet."""
        if self.solver is None:
            return Examples(features, spec, one_output)
        return Streamed(features, spec, one_output, self.solver)


def sums_of_arrays(
    features: FeatureStream, data: Data, how: How, run: Run | None
) -> tuple[Examples | Streamed, Selector | None]:
    x, targets, one_output, spec, weights = data
    assert targets is not None
    selector, order = select_of_arrays(how.select, x, targets, weights, how.groups, how.refit), None
    _checks.check_extend(how.extend_path, how.values, selector)
    own = selector.x if isinstance(selector, LeaveOneOut | GCV) else None  # examples of x too
    if isinstance(selector, HoldOut):
        landmarks = features.landmarks(x)
        order, selector = selector.split(x, targets, how.groups, landmarks, weights)
        own = selector.x
    if how.cache is not None:
        kind = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        features.cached(how.cache, spec, kind, x, own)
    fitted = weights if weights is None or order is None else weights[order]
    n = len(x) if order is None else len(order)
    _checks.check_intercept(how.fit_intercept, n if fitted is None else int(np.sum(fitted > 0)))
    loo = isinstance(selector, LeaveOneOut)
    if how.keep_features and run is not None and loo and selector.sample is None:
        raise ValueError(
            "keep_features=True computes all features before their statistics, which are what a"
            " checkpoint holds: leave out one of the two"
        )
    if how.keep_features and how.solver is not None:
        features.keep(x)
    elif how.keep_features and loo and len(x) > spec.shape[1]:
        if selector.sample is None:
            features.keep(x, also=selector.x)
        elif selector.x is x and selector.groups is None:
            features.keep_some(x, selector.order(features)[0])
    elif how.keep_features and how.refit and isinstance(selector, Validation):
        features.keep(selector.x)
    none = how.none_of(features, spec, one_output)
    return none.plus(x, targets, order, run, weights), selector


def sums_of_batches(
    features: FeatureStream, x: Batches, how: How, run: Run | None
) -> tuple[Examples | Streamed, Selector | None]:
    if how.keep_features:
        raise ValueError(
            "keep_features=True holds the features of all examples in memory: give these as"
            " arrays, keep_features=path to keep features in a file, or keep_features=False to"
            " compute them again"
        )
    given = x
    x, selector = select_of_batches(how.select, x, features, how.groups, how.refit)
    _checks.check_extend(how.extend_path, how.values, selector)
    with contextlib.closing(x):
        data = checked_batches(features, x, run, how.sample_weight)
        kind, one_output, spec = x.kind, data.one_output, data.spec
        check_validation(selector, kind.shape, kind.outputs, kind.weighted, how.refit)
        if how.cache is not None:
            features.cached(how.cache, spec, kind, given)
        sums = how.none_of(features, spec, one_output).plus(x, None, None, run)
    warn_of_lost_ranges(x.ranges)
    _checks.check_intercept(how.fit_intercept, sums.n_examples)
    return sums, selector
