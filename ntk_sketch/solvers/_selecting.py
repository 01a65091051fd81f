"""The selector that a name, a tuple or an object stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ..streaming._batches import Batches
from ..streaming._feature_stream import FeatureStream
from ._gcv import GCV, LandmarksOfBatches
from ._leave_one_out import LeaveOneOut
from ._left_out import check_weighting
from ._loss import loss_of
from ._selection import Selector
from ._validation import HoldOut, Validation, validation


def select_of_arrays(
    select: Any,
    x: Any,
    y: Float[np.ndarray, "n k"],
    sample_weight: Float[np.ndarray, " n"] | None,
    groups: Any,
    refit: bool,
) -> Selector | HoldOut | None:
    """`ridge`'s `select` as an object, checked."""
    _check_options(select, groups, refit)
    if isinstance(select, HoldOut):
        return select
    if isinstance(select, str) and select == "loo":
        return LeaveOneOut(x, y, groups, sample_weight=sample_weight)
    if _is_gcv(select):
        return GCV(x, y, sample_weight)
    selector, weighted = _as_object(select), sample_weight is not None
    check_validation(selector, tuple(x.shape[1:]), y.shape[1], weighted, refit)
    return selector


def select_of_batches(
    select: Any, x: Batches, features: FeatureStream, groups: Any, refit: bool
) -> tuple[Batches, Selector | None]:
    """The same for batches, before one is read; and the batches that are fitted."""
    _check_options(select, groups, refit)
    if groups is not None:
        raise ValueError("groups are of arrays: with batches, which have no numbers, give none")
    if isinstance(select, HoldOut):
        x.check_passes("HoldOut, with a pass for the fit and one for the scores,")
        return select.views(x, features)
    if isinstance(select, str) and select == "loo":
        return x, LeaveOneOut(x)
    if _is_gcv(select):
        landmarks = LandmarksOfBatches(features)
        return x.watched(landmarks.add), landmarks
    return x, _as_object(select)


def check_validation(
    selector: Any, shape: tuple[int, ...], outputs: int | None, weighted: bool, refit: bool
) -> None:
    """Refuses validation examples of another shape than those that are fitted, a loss that is not
    of their targets, and weights where the others have none."""
    if isinstance(selector, LeaveOneOut | GCV):
        check_weighting(selector, weighted)
    arrays = isinstance(selector, Validation) and selector.y is not None
    if refit and arrays and weighted != (selector.sample_weight is not None):
        raise ValueError(
            "refit=True fits the validation examples too, and they have"
            f" {'no weights' if weighted else 'weights'}, unlike the others: give"
            " select=(x_val, y_val, sample_weight_val) together with sample_weight"
        )
    if outputs is not None and isinstance(selector, LeaveOneOut | Validation):
        loss_of(selector.loss, outputs)
    if not isinstance(selector, Validation) or selector.y is None:
        return
    if selector.x.shape[1:] != shape:
        raise ValueError(
            f"x_val has shape {selector.x.shape} but examples of x have shape {shape}: all must"
            f" have the same shape"
        )
    if selector.y.shape[1] != outputs:
        raise ValueError(f"y_val has {selector.y.shape[1]} outputs but y has {outputs}")


def check_iterative(select: Any, values: list[float]) -> None:
    """Refuses what conjugate gradients cannot do.

    Raises:
      ValueError: with the reason.
    """
    if not (select is None or isinstance(select, tuple | list | Validation | HoldOut)):
        raise ValueError(
            f"select={select!r} needs the trace or the diagonal of the hat matrix, which conjugate"
            " gradients do not have: choose by examples held out, (x_val, y_val) or"
            " HoldOut(share, key=key), or solver=None"
        )
    if min(values) == 0:
        raise ValueError(
            "diag_reg=0 with conjugate gradients, which need a matrix that is not singular: give"
            " diag_reg > 0, or solver=None"
        )


def _check_options(select: Any, groups: Any, refit: bool) -> None:
    held_out = isinstance(select, tuple | list | Validation | HoldOut)
    if groups is not None and not (
        isinstance(select, HoldOut) or (isinstance(select, str) and select == "loo")
    ):
        raise ValueError(
            "groups are left out together by select='loo' and HoldOut(share, key=key); "
            f"select={select!r} does not look at them: pass one of those, or no groups"
        )
    if refit and not held_out:
        raise ValueError(
            f"refit=True adds the examples that were held out, but select={select!r} holds none: "
            "use select=(x_val, y_val) or HoldOut(share, key=key), or no refit"
        )


def _is_gcv(select: Any) -> bool:
    named = isinstance(select, str) and select == "gcv"
    return named or (isinstance(select, GCV) and select.x is None)


def _as_object(select: Any) -> Selector | None:
    if isinstance(select, tuple | list):
        select = validation(select)
    if select is None or isinstance(select, Selector):
        return select
    raise ValueError(
        f"select={select!r} is unknown; known: None, 'gcv', 'loo', (x_val, y_val), or an object of "
        "GCV, LeaveOneOut, Validation or HoldOut"
    )
