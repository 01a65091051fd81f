"""Statistics that outlive the process which makes them."""

from __future__ import annotations

import numbers
import os
from pathlib import Path
from typing import Any

import jax

PROCESS = "{process}"


class Checkpoint:
    """A file that `accumulate` and `ridge` write their statistics to while they make them, and go
    on from.

    Use it where a pass over the examples takes longer than a machine is sure to be there. A run
    that was ended, by Ctrl-C, an error in the data or `kill -9`, is resumed by the same call: it
    reads the file, leaves out the examples that are done, and returns what the run would have
    returned, bit for bit on the same machine. At most the time between two writes is lost.

    The file is replaced as a whole, so there is always a good one. It holds a checksum, the
    fingerprint of the feature map and a digest of every batch that is done. A call with another map
    or batch size, with other examples or in another order is refused, and says in what it differs;
    what differs after the examples that are done is no matter. (A map that is a function has no
    fingerprint: there it is up to you.) Examples that are done are read once more for their
    digests, of arrays at the speed of memory; of an iterable its batches are made again and no
    features. The file of a run that came to its end stays: the same call then returns at once.

    Cost: 8 p² bytes for each write (16 p² of float64 features on an accelerator), on the disk and
    for a moment in memory.

    Args:
      path: of the file, in a folder that is there. `{process}` in it stands for
        `jax.process_index()`: of several processes each has a file of its own.
      seconds: at least so many from one write to the next, apart from the time of writing; 0: after
        every block of 2,048 examples (1,024 on an accelerator).

    Raises:
      ValueError: the path is a folder, or its own folder is not there; negative seconds.

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
