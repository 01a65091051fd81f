"""Synchronised work and communication of the processes of `jax.distributed`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.experimental import multihost_utils
from jaxtyping import Float, Shaped, UInt8

from ..numerics._threads import uninterrupted

PERIOD = 20.0  # seconds between the synchronisations of working processes

_WORKING, _DONE, _FAILED = range(3)


class LostError(RuntimeError):
    """Another process cannot be reached."""


class Processes:
    """All processes. Each of them must call these methods in the same order."""

    def __init__(self):
        self._due = float("inf")  # no work is going on

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context for work of this process, which waits for the others at its end.

        An error in one process ends the work of all: at once in that process, and at the next
        `step` in the others.

        Raises:
          RuntimeError: another process failed; the message has its number and its error.
        """
        self._due = time.monotonic() + PERIOD
        try:
            yield
        except (LostError, _ElsewhereError):
            raise
        except BaseException as error:
            self._meet(_FAILED, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._due = float("inf")
        while not self._meet(_DONE):
            pass

    def step(self) -> None:
        """To be called often during work: synchronises with the others every `PERIOD`."""
        if time.monotonic() >= self._due:
            self._meet(_WORKING)
            self._due = time.monotonic() + PERIOD

    def _meet(self, state: int, error: str = "") -> bool:
        """Exchanges states; returns whether all processes are done."""
        states = [int(s[0]) for s in self._equal_bytes(np.array([state], np.uint8))]
        if _FAILED not in states:
            return all(s == _DONE for s in states)
        errors = self.gathered(error)
        if state != _FAILED:
            failed = [i for i, s in enumerate(states) if s == _FAILED]
            told = "; ".join(f"process {i} of {len(states)} ended by {errors[i]}" for i in failed)
            raise _ElsewhereError(f"the work of all processes ends: {told}")
        return False

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, which JSON must support."""
        return [json.loads(text) for text in self._bytes(json.dumps(value).encode())]

    def gathered_arrays(
        self, array: Shaped[np.ndarray, ...] | None
    ) -> list[Shaped[np.ndarray, ...]]:
        """The arrays, of any shapes, of all processes that give one, bit for bit."""
        about = None if array is None else (str(array.dtype), array.shape)
        found = []
        contents = self._bytes(b"" if array is None else np.ascontiguousarray(array).tobytes())
        for told, content in zip(self.gathered(about), contents, strict=True):
            if told is not None:
                dtype, shape = told
                found.append(np.frombuffer(content, jnp.dtype(dtype)).reshape(shape))
        return found

    def summed(self, numbers: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """The sum in float64 and in the order of the processes, with the same bits for all."""
        return np.sum(self.gathered_arrays(numbers), axis=0)

    def _bytes(self, content: bytes) -> list[bytes]:
        length = np.frombuffer(np.array([len(content)], np.int64).tobytes(), np.uint8)
        lengths = [int(row.view(np.int64)[0]) for row in self._equal_bytes(length)]
        padded = np.zeros(max(*lengths, 1), np.uint8)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        rows = self._equal_bytes(padded)
        return [row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)]

    def _equal_bytes(self, row: UInt8[np.ndarray, " b"]) -> UInt8[np.ndarray, "q b"]:
        try:
            with uninterrupted():
                return np.asarray(multihost_utils.process_allgather(row))
        except Exception as error:  # device libraries raise errors of many kinds
            raise LostError(_lost(error)) from error


class _ElsewhereError(RuntimeError):
    """The error of another process, reported by that process."""


def _lost(error: Exception) -> str:
    here = f"process {jax.process_index()} of {jax.process_count()}"
    if "implemented on the CPU backend" in str(error):
        return (
            f"{here} cannot reach the others: this JAX has no collectives between CPUs as it is set"
            ' up. Call jax.config.update("jax_cpu_collectives_implementation", "gloo") before'
            " jax.distributed.initialize()"
        )
    return (
        f"{here} cannot reach the others any more: one of them was killed, or the network is down"
        f" ({error}). Start all of them again; with checkpoint= they go on from what was written"
    )
