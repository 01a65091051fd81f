"""The examples of a head: those it is trained on, and those that say when to stop."""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..._typing import Array
from ...solvers import HoldOut, Validation
from ...solvers._examples import checked_arrays, checked_batches
from ...solvers._selecting import check_validation
from ...solvers._validation import validation as validation_of
from ...streaming._batch_checks import Kind
from ...streaming._batches import Batches, is_batches, of_user
from ...streaming._blocks import Block, blocks_of, placed
from ...streaming._computed import Part
from ...streaming._feature_cache import checked_cache
from ...streaming._feature_stream import FeatureStream


class Step(NamedTuple):
    """What a step is made from: inputs of the program, rows behind the last example filled up.

    Attributes:
        weights: 0 behind the last example.
        n: examples.
    """

    inputs: Array
    y: Float[np.ndarray, "b k"]
    weights: Float[np.ndarray, " b"]
    n: int
    digest: bytes

    @classmethod
    def of(cls, part: Part | Block) -> "Step":
        inputs = part.z if isinstance(part, Part) else part.x
        n, own = part.stop - part.start, part.sample_weight
        assert part.y is not None
        filled = ((0, len(inputs) - n), (0, 0))
        weights = np.pad(np.ones(n) if own is None else own, filled[0])
        return cls(inputs, np.pad(part.y, filled), weights, n, part.digest)


class Examples(NamedTuple):
    """Arrays, or batches."""

    x: Any
    y: Float[np.ndarray, "n k"] | None
    sample_weight: Float[np.ndarray, " n"] | None

    def steps(
        self,
        features: FeatureStream,
        *,
        raw: bool,
        order: Int[np.ndarray, " m"] | None = None,
        done: Sequence[bytes] | None = None,
    ) -> Generator[Step, None, None]:
        """Of a pass.

        Args:
            raw: inputs are the examples, not their features.
            order: of arrays.
            done: digests of the first blocks of batches, which are left out.
        """
        if order is not None and not len(order):
            return
        if not raw:
            parts: Any = features.with_targets(self.x, self.y, order, done, self.sample_weight)
        elif isinstance(self.x, Batches):
            parts = self.x.blocks(features.rows(None), done)
        else:
            rows = features.rows(len(self.x) if order is None else len(order))
            parts = placed(blocks_of(self.x, self.y, rows, order, self.sample_weight), done)
        with contextlib.closing(parts):
            for part in parts:
                yield Step.of(part)


class HeadData(NamedTuple):
    """Examples to train on, those of `order` if they are arrays, and others.

    Attributes:
        kind: of an example, its targets and weights.
        given: what all are examples of; None: the others are others.
    """

    train: Examples
    order: Int[np.ndarray, " n"] | None
    others: Examples | None
    kind: Kind
    given: Any

    @property
    def n(self) -> int | None:
        """Examples to train on; None: batches do not say."""
        return None if self.order is None else len(self.order)

    @property
    def outputs(self) -> int:
        assert self.kind.outputs is not None
        return self.kind.outputs


def head_data(
    features: FeatureStream,
    x: Any,
    y: Any,
    sample_weight: Any,
    validation: Any,
    stack: contextlib.ExitStack,
) -> HeadData:
    """What the user gave, checked.

    Args:
        stack: at whose end batches are closed.
    """
    given = of_user(x, y)
    held_out = validation if isinstance(validation, HoldOut) else None
    others = None if held_out is not None else _validation(validation)
    if isinstance(given, Batches):
        given.check_passes("training, with a pass for every epoch,")
        if held_out is not None:
            given, others = held_out.views(given, features)
        stack.enter_context(contextlib.closing(given))
        data, order = checked_batches(features, given, None, sample_weight), None
    else:
        data = checked_arrays(features, given, y, sample_weight)
        assert data.y is not None
        order = np.arange(len(data.x))
        if held_out is not None:
            landmarks = features.landmarks(data.x)
            order, others = held_out.split(data.x, data.y, None, landmarks, data.sample_weight)
    assert data.kind is not None
    check_validation(others, data.kind.shape, data.kind.outputs, data.kind.weighted, False)
    apart = None if others is None else Examples(others.x, others.y, others.sample_weight)
    whole = None if held_out is None else given
    return HeadData(Examples(*data[:2], data.sample_weight), order, apart, data.kind, whole)


def _validation(given: Any) -> Validation | None:
    if given is None or isinstance(given, Validation):
        return given
    if is_batches(given):
        return Validation(given)
    if isinstance(given, tuple | list):
        return validation_of(given)
    raise TypeError(
        f"validation={given!r}; needed: (x_val, y_val), batches of both that can be read again,"
        " Validation(...), HoldOut(share, key=...), or None"
    )


def keep(features: FeatureStream, data: HeadData, keep_features: Any) -> None:
    """Features are computed once, and kept in memory if this is True, else in this file."""
    train, others = data.train.x, None if data.others is None else data.others.x
    if not isinstance(keep_features, bool):
        all_of_it = (train, None) if data.given is None else (data.given, others)
        features.cached(checked_cache(keep_features), data.kind, *all_of_it, train)
    elif keep_features and isinstance(train, Batches):
        raise ValueError(
            "keep_features=True holds the features of all examples in memory: give these as arrays,"
            " or keep_features=path to keep features in a file"
        )
    elif keep_features:
        for x in (train, others):
            if x is not None:
                features.keep(x)
