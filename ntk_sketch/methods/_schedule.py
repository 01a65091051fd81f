"""`Schedule`: a setting that may differ between nonlinearities."""

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
        """From a value, or a sequence or array of values, as given by a user.

        Raises:
            ValueError: an empty sequence; and the errors of `checked`.
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
        """The value of a schedule for a single nonlinearity."""
        assert not self.each, self
        return self.entries[0]

    def cut(self, start: int, stop: int) -> "Schedule":
        """The schedule of nonlinearities `start:stop`. If there are none, it has the value of the
        nonlinearity before, or else of the next.
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
        """The form in which equinox prints it within a method."""
        return importlib.import_module("wadler_lindig").TextDoc(repr(self))


def widths(value: Any) -> Schedule:
    """A schedule of numbers of features.

    Raises:
        TypeError, ValueError: an entry is not a positive integer.
    """
    return Schedule.of(value, "width", lambda entry: checked_integer(entry, "width"))


def shares(value: Any, name: str) -> Schedule:
    """A schedule of shares of the width, or `None`.

    Raises:
        ValueError: an entry is not a share.
    """
    hint = ", of the width, or one for each nonlinearity"
    return Schedule.of(value, name, lambda entry: checked_share(entry, name, hint))


def ranks(value: Any) -> Schedule:
    """A schedule of numbers of directions, or `None` for all.

    Raises:
        TypeError, ValueError: an entry is neither a positive integer nor `None`.
    """
    return Schedule.of(
        value, "rank", lambda entry: None if entry is None else checked_integer(entry, "rank")
    )
