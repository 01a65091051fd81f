"""Examples that come in batches of the user's: from a loader, a generator function, a list."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from .._arguments import column_ranges
from ..parallel._devices import ONE, Devices
from ._batch_checks import Checked, Kind, checked_batch
from ._blocks import Block, placed
from ._prefetch import prefetched

#: Of the examples of one batch: which stay.
Mask = Callable[[np.ndarray], Bool[np.ndarray, " m"]]
#: Called with every batch that is read: x, y and weights.
Watcher = Callable[[np.ndarray, np.ndarray | None, np.ndarray | None], None]


#: What users give: `Batches` says what is meant.
BatchesLike = Iterable[Any] | Callable[[], Iterable[Any]]


class NoExampleError(ValueError):
    """An iterable of batches without an example."""


class Opened(NamedTuple):
    """A pass that has begun."""

    kind: Kind
    blocks: Generator[Block, None, None]


def is_batches(x: Any) -> bool:
    """Whether x holds batches of examples: an iterable or a function that returns one, and no
    array; of lists those of tuples of arrays.
    """
    if isinstance(x, str | bytes | dict | jax.ShapeDtypeStruct):
        return False
    if any(hasattr(x, name) for name in ("__array__", "toarray", "todense")):
        return False
    if isinstance(x, list | tuple):
        return bool(x) and all(isinstance(e, list | tuple) and _of_arrays(e) for e in x)
    return hasattr(x, "__iter__") or (callable(x) and not isinstance(x, type))


def of_user(x: Any, y: Any) -> Any:
    """`Batches` of what holds inputs and targets; what else x is stays."""
    return Batches(x, targets=True) if y is None and is_batches(x) else x


def _of_arrays(batch: Any) -> bool:
    """Whether this is (x, y), (x, y, sample_weight), or x alone in a sequence of one."""
    arrays = all(hasattr(part, "__array__") and hasattr(part, "shape") for part in batch)
    return arrays and len(batch) in (1, 2, 3) and len(batch[0].shape) > 1


class Batches:
    """An iterable of batches, or a function that returns one, which is called for each pass.

    Batches may be of any sizes; a pass regroups them into blocks of one. It is read and checked by
    a thread of its own (`prefetched`), so that the next block is made while one is used.

    Attributes:
      once: whether it can be read one time only.
      n_examples, n_read: examples of the last whole pass, and those it was made from.
      kind: of its examples, once a pass was opened.
      ranges: of the columns of the last pass, as `column_ranges` has them.
      nothing: the kind of examples that others have where this has none and that is no error.
    """

    def __init__(self, source: Any, targets: bool):
        self._source, self._targets = source, targets
        self.once = hasattr(source, "__next__") and iter(source) is source
        self.n_examples = self.n_read = 0
        self.kind = Kind((), np.dtype(np.float32), None, False)
        self.ranges: tuple[np.ndarray, np.ndarray] | None = None
        self.nothing: Kind | None = None
        self._masks: tuple[Mask, ...] = ()
        self._watchers: tuple[Watcher, ...] = ()
        self._opened: Opened | None = None
        self._read = False

    def check_passes(self, what: str) -> None:
        """Refuses an iterator where more than one pass is needed.

        Raises:
          ValueError: with the reason, and what to do.
        """
        if self.once:
            raise ValueError(
                f"{what} reads the batches more than once, and a {type(self._source).__name__} can"
                " be read once only. Pass what can be read again: a loader, a list, or the function"
                " that makes the iterator, without calling it"
            )

    def where(self, mask: Mask) -> Batches:
        """The examples of which the mask says that they stay."""
        return self._like(masks=(*self._masks, mask))

    @property
    def is_whole(self) -> bool:
        """Whether no example is left out."""
        return not self._masks

    def is_view_of(self, other: Batches) -> bool:
        """Whether the examples are the other's, or some of them."""
        return self._source is other._source

    def watched(self, watcher: Watcher) -> Batches:
        """The same; the watcher sees every batch, in the thread that reads."""
        return self._like(watchers=(*self._watchers, watcher))

    def _like(self, masks=None, watchers=None) -> Batches:
        assert self._opened is None
        view = copy.copy(self)
        view._masks = self._masks if masks is None else masks
        view._watchers = self._watchers if watchers is None else watchers
        return view

    def opened(
        self, rows: int, done: Sequence[bytes] | None = None, devices: Devices = ONE
    ) -> Opened:
        """A pass whose first batch was looked at; the next `blocks` is this pass.

        Raises:
          NoExampleError: no batch, or none with an example.
          ValueError: an iterator that was read already.
          TypeError, ValueError: that of the first batch.
        """
        if self.nothing is not None:
            self.kind = self.nothing
            return Opened(self.kind, (block for block in ()))
        if self._opened is None:
            if self.once and self._read:
                raise ValueError("this iterator was read already and gives its batches once")
            self._read = True
            items = prefetched(self._items(rows, done, devices))
            self._opened = Opened(next(items), items)  # pyright: ignore[reportArgumentType]
        self.kind = self._opened.kind
        return self._opened

    def blocks(
        self, rows: int, done: Sequence[bytes] | None = None, devices: Devices = ONE
    ) -> Generator[Block, None, None]:
        """The blocks of a pass; the last one is padded as the others, or if it is the only one to
        the next power of two of examples.

        Args:
          done: as in `placed`.
        """
        blocks = self.opened(rows, done, devices).blocks
        self._opened = None
        return blocks

    def close(self) -> None:
        """Ends a pass that was opened and is not wanted."""
        if self._opened is not None:
            self._opened.blocks.close()
            self._opened = None

    def _items(
        self, rows: int, done: Sequence[bytes] | None, devices: Devices
    ) -> Generator[Any, None, None]:
        """The kind of examples, then the blocks on the device."""
        batches = self._checked()
        first = next(batches, None)
        if first is None:
            raise NoExampleError(
                "the iterable of batches gives nothing; needed: at least one batch with an example"
                + (". An iterator that was used up before is empty" if self.once else "")
            )
        yield first.kind
        yield from placed(self._blocks(first, batches, rows, devices), done, devices)

    def _blocks(
        self, batch: Checked, batches: Iterator[Checked], rows: int, devices: Devices
    ) -> Iterator[Block]:
        start, kind = 0, batch.kind
        held = _Held(kind, rows)
        while True:
            while len(batch.x):
                batch = _chosen(batch, slice(held.add(batch), None))
                if held.filled == rows:
                    yield held.block(start, rows)
                    start, held = start + rows, _Held(kind, rows)
            following = next(batches, None)
            if following is None:
                break
            batch = following
        if held.filled:
            # few examples in all: few programs serve every number of them
            size = rows if start else min(rows, 1 << (held.filled - 1).bit_length())
            yield held.block(start, devices.rounded(size))
        self.n_examples = start + held.filled

    def _checked(self) -> Iterator[Checked]:
        """Batches as arrays, those without examples left out."""
        kind, number, row = None, 0, 0
        for number, batch in enumerate(self._raw()):
            checked = checked_batch(batch, number, row, kind, self._targets)
            kind = checked.kind
            row += len(checked.x)
            if not len(checked.x):
                continue
            self._widen(checked.x)
            for watch in self._watchers:
                watch(*checked[1:])
            for mask in self._masks:
                checked = _chosen(checked, mask(checked.x))
            yield checked
        self.n_read = row

    def _widen(self, x: np.ndarray) -> None:
        found = column_ranges(x)
        if found is not None and self.ranges is not None:
            low, high = self.ranges
            found = np.minimum(low, found[0]), np.maximum(high, found[1])
        self.ranges = found

    def _raw(self) -> Iterator[Any]:
        """The user's batches; an error of theirs says where it was."""
        number = 0
        try:
            iterable = self._source if hasattr(self._source, "__iter__") else self._source()
            for batch in iterable:
                yield batch
                number += 1
        except GeneratorExit:
            raise
        except BaseException as error:
            error.add_note(f"Raised by the iterable of batches itself, for batch {number}.")
            raise


def _chosen(batch: Checked, rows: Any) -> Checked:
    y, weights = (None if array is None else array[rows] for array in batch[2:])
    return Checked(batch.kind, batch.x[rows], y, weights)


class _Held:
    """Examples of a block that is not full yet: copies, since a buffer may be used again."""

    def __init__(self, kind: Kind, rows: int):
        self.filled = 0
        self._x = np.empty((rows, *kind.shape), kind.dtype)
        self._y = None if kind.outputs is None else np.empty((rows, kind.outputs))
        self._weights = np.empty(rows) if kind.weighted else None

    def add(self, batch: Checked) -> int:
        """Takes as many as there is room for, and says how many."""
        place = slice(self.filled, min(self.filled + len(batch.x), len(self._x)))
        taken = place.stop - place.start
        for held, array in zip((self._x, self._y, self._weights), batch[1:], strict=True):
            if held is not None and array is not None:
                held[place] = array[:taken]
        self.filled = place.stop
        return taken

    def block(self, start: int, size: int) -> Block:
        x = self._x[:size]
        x[self.filled :] = x[self.filled - 1]
        y, weights = (None if a is None else a[: self.filled] for a in (self._y, self._weights))
        return Block(start, start + self.filled, x, y, weights)
