"""One run with a checkpoint: what was done before it, and what it writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..numerics._threads import uninterrupted
from ..parallel._devices import ONE, Devices
from ..storage import _file
from ..storage._atomic import replacing
from ..streaming._computed import Part
from ._checkpoint import Checkpoint, checked_checkpoint
from ._origin import Origin, check_same
from ._running_sums import RunningSums

#: Raised by one with every change of what is in a file.
_VERSION = 3
_KIND = "checkpoint"


class Run:
    """Statistics on their way to a file.

    Attributes:
      done: digests of the batches that were done before.
    """

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint
        self._about: dict[str, Any] | None = None
        self._arrays: list[np.ndarray] = []
        self.done: list[bytes] = []
        if checkpoint.path.exists():
            self._read()
        self._digests = list(self.done)
        self._sums: RunningSums | None = None
        self._whole = True  # the sums hold whole blocks
        self._on_disk, self._finished = 0, bool(self._about and self._about["finished"])
        self._written_at = time.monotonic()

    @classmethod
    def of(cls, checkpoint: Any, devices: Devices = ONE) -> Run | None:
        """Of what the user gave as a checkpoint."""
        checked = checked_checkpoint(checkpoint)
        if checked is None:
            return None
        if devices.processes is not None and not checked.of_each_process:
            raise ValueError(
                f"checkpoint={str(checked.path)!r}: every process writes one of its own; put"
                " {process} into the name, such as 'run-{process}.safetensors'"
            )
        return cls(checked)

    def _read(self) -> None:
        path = self._checkpoint.path
        try:
            about, arrays = _file.read(path)
            if about.get("kind") != _KIND:
                raise ValueError(f"it holds a {about.get('kind')}, which is not overwritten")
            if about["checkpoint"] != _VERSION:
                raise ValueError(
                    f"it has version {about['checkpoint']} of a checkpoint; this ntk_sketch reads"
                    f" version {_VERSION}: install the one that wrote it"
                )
        except ValueError as error:
            raise ValueError(
                f"cannot go on from checkpoint {path}: {error} To begin anew, give another path or"
                " remove the file"
            ) from error
        *self._arrays, digests = arrays
        self._about, self.done = about, [row.tobytes() for row in digests]

    def check(self, origin: Origin, settings: dict[str, Any]) -> None:
        """Refuses a checkpoint of another run.

        Args:
          origin: of the feature map.
          settings: what has to be equal, in words; a number of examples only if it is known.

        Raises:
          ValueError: with what differs.
        """
        if self._about is not None:
            path = self._checkpoint.path
            before = self._about["settings"]
            check_same(
                np.array(self._about["origin"], np.uint32),
                origin,
                f"checkpoint {path} is not of this feature map",
            )
            differing = [
                f"{name}: {before[name]} there, {now} here"
                for name, now in settings.items()
                if before[name] != now
                and not (name == "number of examples" and None in (before[name], now))
            ]
            if differing:
                raise ValueError(
                    f"checkpoint {path} is of another run ({'; '.join(differing)}). Give the call"
                    " what it was given then, or another path"
                )
        self._settings, self._origin = settings, np.asarray(origin).tolist()

    @contextlib.contextmanager
    def going_on(self, sums: RunningSums) -> Iterator[None]:
        """Takes the sums up where they were, and writes what is reached when the block ends."""
        self._sums = sums
        if self._about is not None:
            self._on_disk = self._about["examples"]
            sums.restore(self._arrays, self._on_disk)
            self._arrays = []
        try:
            yield
        except BaseException as error:
            self._stop(error)
            raise
        if not self._finished and sums.n:
            self._write(finished=True)

    @contextlib.contextmanager
    def block(self, parts: Sequence[Part]) -> Iterator[None]:
        """One more block is added; then written, if it is time."""
        if self._finished:
            raise ValueError(
                f"checkpoint {self._checkpoint.path} is of a run that came to its end with example"
                f" {self._on_disk - 1}, and there are more examples now: accumulate those alone,"
                " and merge the two states"
            )
        with uninterrupted():
            self._whole = False
            yield
            self._digests += [part.digest for part in parts]
            self._whole = True
        if time.monotonic() - self._written_at >= self._checkpoint.seconds:
            self._write()

    def _write(self, finished: bool = False) -> None:
        assert self._sums is not None
        sums, path = self._sums, self._checkpoint.path
        about = {
            "kind": _KIND,
            "checkpoint": _VERSION,
            "finished": finished,
            "examples": sums.n,
            "settings": self._settings,
            "origin": self._origin,
        }
        digests = np.frombuffer(b"".join(self._digests), np.uint8).reshape(len(self._digests), -1)
        try:
            with replacing(path) as temporary:
                _file.write(temporary, about, [*sums.arrays(), digests])
        except OSError as error:
            self._whole = False  # not tried again
            error.add_note(
                f"The last checkpoint there is of {self._on_disk} examples. The same call goes on"
                " from it when there is room."
                if self._on_disk
                else "There is no checkpoint yet."
            )
            raise
        self._on_disk, self._written_at = sums.n, time.monotonic()

    def _stop(self, error: BaseException) -> None:
        """Keeps what there is and says so."""
        assert self._sums is not None
        if self._whole and self._sums.n > self._on_disk:
            try:
                self._write()
            except OSError as full:
                error.add_note(f"Nor could a checkpoint be written: {full}")
        if self._on_disk:
            error.add_note(
                f"The statistics of the first {self._on_disk} examples are in"
                f" {self._checkpoint.path}: the same call on the same data goes on from there."
            )
