"""The official files of https://www.cs.toronto.edu/~kriz/cifar.html, python and binary version."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ._pickle import load_arrays
from ._source import (
    CIFAR10_CLASSES,
    CIFAR10_SHAPE,
    PIECE,
    PIXELS,
    DataError,
    Source,
    channels_last,
    checked_labels,
)

RECORD = 1 + PIXELS  # binary version: a label, then the pixels


def find_python(folder: Path) -> Source | None:
    """The python version (`data_batch_1` ... `data_batch_5`, `test_batch`), if `folder` has any."""
    return _find(folder, "python batches", "", _read_python)


def find_binary(folder: Path) -> Source | None:
    """The binary version (`data_batch_1.bin` ..., `test_batch.bin`), if `folder` has any of it."""
    return _find(folder, "binary version", ".bin", _read_binary)


def _find(folder: Path, kind: str, suffix: str, read_file: Callable) -> Source | None:
    train = [folder / f"data_batch_{k}{suffix}" for k in range(1, 6)]
    test = [folder / f"test_batch{suffix}"]
    if not any(path.is_file() for path in train + test):
        return None

    def read(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels, have = [], [], 0
        for path in train if split == "train" else test:
            if have >= count:
                break
            if not path.is_file():
                break
            x, y = read_file(path)
            pixels.append(x[: count - have])
            labels.append(y[: count - have])
            have += len(pixels[-1])
        if have < count:
            files = ", ".join(path.name for path in (train if split == "train" else test))
            raise DataError(
                f"{folder}: {have:,} {split} images found in {len(pixels)} files, {count:,} needed "
                f"(the full set is {files}, each with {PIECE:,})."
            )
        return channels_last(np.concatenate(pixels)), np.concatenate(labels)

    return Source(
        dataset="CIFAR-10",
        format=f"official {kind}",
        description=f"{folder} (official {kind})",
        n_train=PIECE * consecutive(train),
        n_test=PIECE * consecutive(test),
        shape=CIFAR10_SHAPE,
        classes=CIFAR10_CLASSES,
        read=read,
    )


def consecutive(paths: list[Path]) -> int:
    """How many of `paths` exist before the first that does not."""
    present = [path.is_file() for path in paths]
    return present.index(False) if False in present else len(present)


def _read_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = load_arrays(path)
    if isinstance(batch, dict):  # official keys are bytes; copies written by Python 3 have strings
        batch = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    if not isinstance(batch, dict) or not {"data", "labels"} <= set(batch):
        raise DataError(f"{path}: a CIFAR-10 batch is a dict with the keys 'data' and 'labels'.")
    pixels, labels = batch["data"], batch["labels"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise DataError(f"{path}: 'data' should be a uint8 array (n, {PIXELS}).")
    if pixels.shape[1] != PIXELS:
        raise DataError(f"{path}: images of {pixels.shape[1]} bytes found, {PIXELS} needed.")
    if not isinstance(labels, list | np.ndarray) or not all(_is_integer(y) for y in labels):
        raise DataError(f"{path}: 'labels' should be a list of integers.")
    return pixels, checked_labels(np.asarray(labels), len(pixels), str(path))


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer)


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        raise DataError(
            f"{path}: {size:,} bytes found, a multiple of {RECORD:,} needed (an official file has "
            f"{PIECE * RECORD:,}). The file is truncated: fetch it again."
        )
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    return records[:, 1:], checked_labels(records[:, 0], len(records), str(path))
