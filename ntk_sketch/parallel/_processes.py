"""Processes that `jax.distributed` joined, in step with each other."""

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

PERIOD = 20.0  # seconds after which working processes hear of each other

_WORKING, _DONE, _FAILED = range(3)


class LostError(RuntimeError):
    """Another process cannot be reached any more."""


class Processes:
    """All processes, each of which makes the same calls of these methods in the same order."""

    def __init__(self):
        self._due = float("inf")  # nobody works

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Work of this process's own, behind which it waits for the others.

        An error in one process ends the work of all, at once where it is and with its next `step`
        elsewhere.

        Raises:
          RuntimeError: of another process, with its number and its error.
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
        """Called often by whoever works: hears of the others every `PERIOD`."""
        if time.monotonic() >= self._due:
            self._meet(_WORKING)
            self._due = time.monotonic() + PERIOD

    def _meet(self, state: int, error: str = "") -> bool:
        """Whether all are done."""
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
        """What each process gives, of what JSON can hold."""
        return [json.loads(text) for text in self._bytes(json.dumps(value).encode())]

    def gathered_arrays(
        self, array: Shaped[np.ndarray, ...] | None
    ) -> list[Shaped[np.ndarray, ...]]:
        """The arrays of those processes that give one, bit for bit, of any shapes."""
        about = None if array is None else (str(array.dtype), array.shape)
        found = []
        contents = self._bytes(b"" if array is None else np.ascontiguousarray(array).tobytes())
        for told, content in zip(self.gathered(about), contents, strict=True):
            if told is not None:
                dtype, shape = told
                found.append(np.frombuffer(content, jnp.dtype(dtype)).reshape(shape))
        return found

    def summed(self, numbers: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """In float64 and in the order of the processes: the same bits for all."""
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
        except Exception as error:  # of many kinds, that of a device library
            raise LostError(_lost(error)) from error


class _ElsewhereError(RuntimeError):
    """The error of another process, which it told of itself."""


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
