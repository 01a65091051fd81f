"""How far the training of a head has come, in memory and in a file."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from ..._typing import Array
from ...solvers._checkpoint import checked_checkpoint
from ...storage._atomic import replacing

#: Raised by one with every change of what is in a file.
_VERSION = 1


class State(NamedTuple):
    """What steps change, and the parameters of the best epoch so far.

    Attributes:
        loss, weight: sums over the examples of this epoch.
    """

    params: dict[str, Any]
    optimizer: Any
    best: dict[str, Any]
    loss: Array
    weight: Array


class HeadRun:
    """The state, its place in the data, and the losses of the epochs before.

    Attributes:
        step: whole steps of this epoch.
        digests: of its blocks, if they are batches.
        history: of each epoch that is done.
    """

    def __init__(self, checkpoint: Any, state: State, settings: dict[str, Any]):
        self._checkpoint, self._settings = checked_checkpoint(checkpoint), settings
        self.state, self.step = state, 0
        self.digests: list[bytes] = []
        self.history: list[dict[str, float]] = []
        if self._checkpoint is not None and self._checkpoint.path.exists():
            self._read()
        self._on_disk = self._place
        self._written_at = time.monotonic()

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def _place(self) -> tuple[int, int]:
        return self.epoch, self.step

    @property
    def epochs_since_best(self) -> int:
        losses = [of["validation_loss"] for of in self.history if "validation_loss" in of]
        return len(losses) - 1 - int(np.argmin(losses)) if losses else 0

    def stepped(self, state: State, digest: bytes) -> None:
        self.state, self.step = state, self.step + 1
        self.digests += [digest] if digest else []

    def ended_epoch(self, validation_loss: float | None) -> None:
        """Adds to the history, and keeps the parameters if they are the best.

        Raises:
            ValueError: a loss that is not finite.
        """
        found = {"epoch": self.epoch + 1, "loss": self._mean_loss()}
        if validation_loss is not None:
            found["validation_loss"] = validation_loss
        if not all(map(np.isfinite, found.values())):
            raise ValueError(
                f"the loss of epoch {self.epoch + 1} is not finite: give an optimizer with a"
                " smaller learning rate, or with optax.clip_by_global_norm"
            )
        self.history.append(found)
        self.step, self.digests = 0, []
        zero = jnp.zeros_like(self.state.loss)
        self.state = self.state._replace(loss=zero, weight=zero)
        if self.epochs_since_best == 0:
            self.state = self.state._replace(best=self.state.params)

    def _mean_loss(self) -> float:
        """So far in this epoch; 0 before its first step."""
        return float(self.state.loss) / (float(self.state.weight) or 1.0)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends the block, its last whole step is in the file."""
        try:
            yield
        except BaseException as error:
            self._stop(error)
            raise
        self._write()

    def write_if_due(self) -> None:
        checkpoint = self._checkpoint
        if checkpoint is not None and time.monotonic() - self._written_at >= checkpoint.seconds:
            self._write()

    def _write(self) -> None:
        if self._checkpoint is None or self._place == self._on_disk:
            return
        about = {"history": self.history, "settings": self._settings, "version": _VERSION}
        content = {
            "about": json.dumps(about),
            "step": self.step,
            "digests": b"".join(self.digests),
            "state": serialization.to_state_dict(jax.tree.map(np.asarray, self.state)),
        }
        with replacing(self._checkpoint.path) as temporary:
            temporary.write_bytes(serialization.msgpack_serialize(content))
        self._on_disk, self._written_at = self._place, time.monotonic()

    def _stop(self, error: BaseException) -> None:
        if self._checkpoint is None:
            return
        if np.isfinite(self._mean_loss()):  # else the file before is the better one
            try:
                self._write()
            except OSError as full:
                error.add_note(f"Nor could a checkpoint be written: {full}")
        epoch, step = self._on_disk
        if epoch or step:
            error.add_note(
                f"Epochs before {epoch + 1} and {step} steps of it are in {self._checkpoint.path}:"
                " the same call on the same data goes on from there."
            )

    def _read(self) -> None:
        assert self._checkpoint is not None
        path = self._checkpoint.path
        anew = "To begin anew, give another path or remove the file"
        try:
            content: Any = serialization.msgpack_restore(path.read_bytes())
            about = json.loads(content["about"])
        except Exception as error:
            raise ValueError(
                f"cannot go on from checkpoint {path}: it is another file, or damaged ({error})."
                f" {anew}"
            ) from error
        before = about["settings"] | {"version": about["version"]}
        now = self._settings | {"version": _VERSION}
        differing = [
            f"{name}: {before.get(name)} there, {now.get(name)} here"
            for name in now
            if before.get(name) != now[name]
        ]
        if differing:
            raise ValueError(
                f"checkpoint {path} is of another call ({'; '.join(differing)}). Give the call what"
                f" it was given then. {anew}"
            )
        try:
            state = serialization.from_state_dict(self.state, content["state"])
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"checkpoint {path} is of another optimizer: {error}. {anew}"
            ) from error
        self.state = jax.tree.map(lambda a, like: jnp.asarray(a, like.dtype), state, self.state)
        self.history, self.step = about["history"], content["step"]
        size = len(content["digests"]) // max(self.step, 1)
        every = range(0, len(content["digests"]), max(size, 1))
        self.digests = [content["digests"][i : i + size] for i in every]
