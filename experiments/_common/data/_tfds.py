"""CIFAR-10 from TensorFlow Datasets, without waiting for a network that is not there.

`tfds.load` retries for minutes when it cannot connect, so it runs in a process of its own, one
attempt. From the moment TensorFlow Datasets is imported it has ten seconds to show a sign of life:
a data set that is already on the disk, or bytes that arrive in its folder. After that a download
has all the time it needs, as long as it moves. A data set that was prepared as ArrayRecord is read
without TensorFlow.
"""

import importlib.util
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ._source import CIFAR10_CLASSES, CIFAR10_SHAPE, DataError, Source

CHILD = Path(__file__).with_name("_tfds_child.py")
SIGN_OF_LIFE = 64 * 1024  # bytes; less may be locks and folders made before connecting


@dataclass(frozen=True)
class Deadlines:
    """Seconds without progress after which a stage is given up."""

    importing: float = 180.0
    connecting: float = 10.0
    downloading: float = 120.0
    reading: float = 180.0


class Unavailable(Exception):
    """TensorFlow Datasets cannot give CIFAR-10; the message says why."""


def open_tfds(
    say: Callable[[str], None],
    command: tuple[str, ...] | None = None,
    deadlines: Deadlines = Deadlines(),
) -> Source:
    """CIFAR-10 from TensorFlow Datasets, downloaded if need be.

    Args:
        say: where lines about the progress go.
        command: replaces the child process (tests).
        deadlines: patience with each stage.

    Raises:
        Unavailable: not installed, no network, or a failed download.
    """
    if command is None:
        if importlib.util.find_spec("tensorflow_datasets") is None:
            raise Unavailable("TensorFlow Datasets is not installed")
        command = (sys.executable, "-P", str(CHILD))
    with tempfile.TemporaryDirectory(prefix="cifar10-") as folder:
        target = Path(folder) / "cifar10.npz"
        with _running([*command, str(target)], Path(folder) / "stderr") as child:
            _follow(child, Path(folder) / "stderr", say, deadlines)
        with np.load(target, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}

    def read(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if count > len(x):
            raise DataError(f"TensorFlow Datasets: {len(x):,} {split} images, {count:,} needed.")
        return x[:count], y[:count]

    return Source(
        dataset="CIFAR-10",
        format="TensorFlow Datasets",
        description="TensorFlow Datasets",
        n_train=len(arrays["x_train"]),
        n_test=len(arrays["x_test"]),
        shape=CIFAR10_SHAPE,
        classes=CIFAR10_CLASSES,
        read=read,
    )


@contextmanager
def _running(command: list[str], errors: Path) -> Iterator[subprocess.Popen]:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | quiet,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _follow(
    child: subprocess.Popen, errors: Path, say: Callable[[str], None], deadlines: Deadlines
) -> None:
    """Returns when the child is done; raises `Unavailable` when it fails or stops moving."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
    stage, folder, size_before, size_seen = "importing", None, 0, 0
    moved = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            line = ""
        if line is None:
            raise Unavailable(f"TensorFlow Datasets failed while {stage}: {_last_line(errors)}")
        word, _, rest = line.strip().partition("\t")
        if word == "imported":
            stage, folder, moved = "connecting", Path(rest), time.monotonic()
            size_before = size_seen = _size(folder)
        elif word == "prepared":
            stage, moved = "reading", time.monotonic()
        elif word == "done":
            return
        if folder is not None and stage in ("connecting", "downloading"):
            size = _size(folder)
            if stage == "connecting" and size - size_before > SIGN_OF_LIFE:
                stage, moved = "downloading", time.monotonic()
                say("TensorFlow Datasets is downloading CIFAR-10 (163 MiB) and preparing it ...")
            if stage == "downloading" and size != size_seen:
                moved = time.monotonic()
            size_seen = size
        waited = time.monotonic() - moved
        if waited > getattr(deadlines, stage):
            reason = "no network" if stage == "connecting" else f"it stopped while {stage}"
            raise Unavailable(f"TensorFlow Datasets: {reason} (nothing for {waited:.0f} s)")


def _pass_on(stream, lines: queue.SimpleQueue) -> None:
    try:
        for line in stream:
            lines.put(line)
    except ValueError:  # closed by the reader, who has given up
        return
    lines.put(None)


def _size(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:  # temporary files come and go during a download
                continue
    return total


def _last_line(errors: Path) -> str:
    lines = errors.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it ended without a word"
