"""Arguments of constructors as values that can be compared, hashed and stored."""

import dataclasses
import numbers
import operator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


@dataclasses.dataclass(frozen=True)
class Sliced:
    """A hashable `slice` (Python's own is hashable only from 3.12 on), or an ellipsis if `bounds`
    is `None`.
    """

    bounds: tuple | None

    @classmethod
    def of(cls, value: slice) -> "Sliced":
        return cls(tuple(map(_index, (value.start, value.stop, value.step))))

    @property
    def value(self) -> Any:
        return ... if self.bounds is None else slice(*self.bounds)

    def __repr__(self) -> str:
        if self.bounds is None:
            return "..."
        start, stop, step = ("" if bound is None else str(bound) for bound in self.bounds)
        return f"{start}:{stop}" + (f":{step}" if step else "")


def _index(value: Any) -> int | None:
    return None if value is None else operator.index(value)


def plain(value, real: bool):
    """Numbers as arrays of float64, arrays of integers as tuples, and other values unchanged."""
    if isinstance(value, dict):
        return {key: plain(inner, real) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(inner, real) for inner in value)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Tracer):
        return value
    if isinstance(value, slice):
        return Sliced.of(value)
    if value is ...:
        return Sliced(None)
    if isinstance(value, jax.Array | np.ndarray | numbers.Real):
        array = np.asarray(value)
        if array.dtype.kind in "iu" and not real:
            return nested_tuple(array.tolist())
        if array.ndim == 0 or real:
            return array.astype(np.float64)
        return array
    return value


def nested_tuple(value):
    return tuple(map(nested_tuple, value)) if isinstance(value, list) else value
