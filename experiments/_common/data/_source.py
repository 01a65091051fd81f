"""What every place that images come from has to offer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR10_SHAPE = (32, 32, 3)
PIXELS = 32 * 32 * 3
PIECE = 10_000  # images in each official file


class DataError(ValueError):
    """Data that is missing, truncated or not what it should be; the message names the file."""


@dataclass(frozen=True)
class Source:
    """A data set that was found but not read.

    Attributes:
        dataset: its name, for records and figures.
        format: how it is stored, for records.
        description: where it is, for the reader.
        n_train, n_test: how many images there can be (files of an unknown length count as full;
            `read` raises if there are fewer).
        shape: height, width, channels.
        classes: a name for each label.
        read: `read(split, count)` with split "train" or "test" gives the first `count` images,
            uint8 (count, height, width, channels), and their labels, int32 (count,). It opens only
            the files that it needs.
    """

    dataset: str
    format: str
    description: str
    n_train: int
    n_test: int
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    read: Callable[[str, int], tuple[np.ndarray, np.ndarray]]


def channels_last(pixels: np.ndarray) -> np.ndarray:
    """Official order, (n, 3072) or (n, 3, 32, 32), to (n, 32, 32, 3)."""
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def checked_labels(labels: np.ndarray, count: int, where: str) -> np.ndarray:
    """Labels as int32, after making sure that there are `count` and that each names a class."""
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise DataError(f"{where}: labels of shape {labels.shape} for {count} images.")
    if count and not (labels.min() >= 0 and labels.max() < len(CIFAR10_CLASSES)):
        raise DataError(f"{where}: labels from {labels.min()} to {labels.max()}; 0 to 9 needed.")
    return labels.astype(np.int32)
