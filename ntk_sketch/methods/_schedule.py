"""Settings that may differ from nonlinearity to nonlinearity."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from .._arguments import checked_integer, checked_share


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One value for all nonlinearities of a model, or one for each in their order."""

    entries: tuple[Any, ...]
    each: bool

    @classmethod
    def of(cls, value: Any, name: str, checked: Callable[[Any], Any]) -> "Schedule":
        """From what a user gives: a value, or any sequence or array of one axis of values.

        Raises:
            ValueError: an empty sequence; and what `checked` raises.
        """
        if isinstance(value, Schedule):
            return value
        if hasattr(value, "tolist"):  # of NumPy or JAX
            value = value.tolist()
        if not isinstance(value, Sequence) or isinstance(value, str):
            return cls((checked(value),), each=False)
        if not value:
            raise ValueError(f"{name} is an empty schedule; give one value for each nonlinearity.")
        return cls(tuple(map(checked, value)), each=True)

    @property
    def one(self) -> Any:
        """The value, where the schedule is that of a single nonlinearity."""
        assert not self.each, self
        return self.entries[0]

    def cut(self, start: int, stop: int) -> "Schedule":
        """Of the nonlinearities `start:stop`; of none, what the one before has, or else the
        next.
        """
        if not self.each:
            return self
        if start == stop:
            start = max(start - 1, 0)
            stop = start + 1
        return Schedule(self.entries[start:stop], each=stop - start != 1)

    def __repr__(self) -> str:
        return repr(self.entries if self.each else self.entries[0])

    def __pdoc__(self, **_) -> Any:
        """How equinox prints it inside of a method."""
        return importlib.import_module("wadler_lindig").TextDoc(repr(self))


def widths(value: Any) -> Schedule:
    """Of numbers of features.

    Raises:
        TypeError, ValueError: entries that are no positive integers.
    """
    return Schedule.of(value, "width", lambda entry: checked_integer(entry, "width"))


def shares(value: Any, name: str) -> Schedule:
    """Of shares of the width, or `None`.

    Raises:
        ValueError: entries that are no shares.
    """
    hint = ", of the width, or one for each nonlinearity"
    return Schedule.of(value, name, lambda entry: checked_share(entry, name, hint))


def ranks(value: Any) -> Schedule:
    """Of numbers of directions, `None` for all.

    Raises:
        TypeError, ValueError: entries that are neither positive integers nor `None`.
    """
    return Schedule.of(
        value, "rank", lambda entry: None if entry is None else checked_integer(entry, "rank")
    )
