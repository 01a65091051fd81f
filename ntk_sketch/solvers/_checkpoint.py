"""Statistics that outlive the process which makes them."""

from __future__ import annotations

import numbers
import os
from pathlib import Path
from typing import Any

import jax

PROCESS = "{process}"


class Checkpoint:
    """A file to which `accumulate` and `ridge` write their statistics, and from which they resume.

    Use this if a pass over the examples takes so long that it may be interrupted. After Ctrl-C, an
    error in the data or `kill -9`, the same call resumes the run: it reads the file, skips the
    examples that are done, and returns the same result, bit for bit on the same machine. At most
    the time between two writes is lost.

    The file is replaced atomically, so that there is always a valid one. It holds a checksum, the
    fingerprint of the feature map and a digest of every batch that is done. A call with another map
    or batch size, or with other examples or another order among those done, is refused, and the
    error says what differs. (A map that is a function has no fingerprint, and you must take care
    yourself.) Examples that are done are read once more for their digests; batches of an iterable
    are made again, but no features. The file of a completed run stays: the same call then returns
    at once.

    Cost: 8 p² bytes for each write (16 p² for float64 features on an accelerator), on the disk and
    briefly in memory.

    Args:
      path: of the file, in a folder that exists. `{process}` in it is replaced by
        `jax.process_index()`, which gives each of several processes its own file.
      seconds: the least time between two writes, apart from the time of writing. 0: write after
        every block of 2,048 examples (1,024 on an accelerator).

    Raises:
      ValueError: the path is a folder, its folder does not exist, or seconds are negative.

    Example:
      >>> import os
      >>> import tempfile
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> from ntk_sketch.solvers import Checkpoint, accumulate
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoint = Checkpoint(os.path.join(folder, "run.safetensors"), seconds=30)
      ...     state = accumulate(features, x, np.sin(x), checkpoint=checkpoint)
      ...     again = accumulate(features, x, np.sin(x), checkpoint=checkpoint)  # at once
      >>> bool((again.gram.high == state.gram.high).all())
      True
    """

    def __init__(self, path: str | os.PathLike, seconds: float | int = 60):
        if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real) or not seconds >= 0:
            raise ValueError(f"Checkpoint: seconds={seconds!r}; needed: a number >= 0")
        text, self.seconds = os.fspath(path), float(seconds)
        self.of_each_process = PROCESS in text
        number = str(jax.process_index()) if self.of_each_process else ""
        self.path = Path(text.replace(PROCESS, number))
        if self.path.is_dir():
            raise ValueError(f"checkpoint={str(path)!r} is a folder; needed: the path of a file")
        if not self.path.absolute().parent.is_dir():
            raise ValueError(
                f"checkpoint={str(path)!r}: its folder {self.path.absolute().parent} does not"
                " exist; make it first"
            )


def checked_checkpoint(checkpoint: Any) -> Checkpoint | None:
    """A `Checkpoint`, also of a plain path."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if isinstance(checkpoint, str | os.PathLike):
        return Checkpoint(checkpoint)
    raise TypeError(
        f"checkpoint={checkpoint!r}; needed: a path, Checkpoint(path, seconds=...), or None"
    )
