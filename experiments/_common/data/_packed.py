"""CIFAR-10 packed without loss: colour differences, median edge predictor, LZMA; and a plain npz.

Each `cifar10_train_K.xz` (K = 1 ... 5) and `cifar10_test.xz` holds 10,000 images in the official
order, `cifar10_labels.npz` all labels. `cifar10_small.npz` holds the first 2,000 and 1,000 images.
"""

import lzma
import zipfile
from pathlib import Path

import numpy as np

from ._official import consecutive
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

SMALL = "cifar10_small.npz"
LABELS = "cifar10_labels.npz"


def find_packed(folder: Path) -> Source | None:
    """The packed pieces in `folder`, if it has any; small subsets come from `cifar10_small.npz`."""
    pieces = {
        "train": [folder / f"cifar10_train_{k}.xz" for k in range(1, 6)],
        "test": [folder / "cifar10_test.xz"],
    }
    small = open_npz(folder / SMALL) if (folder / SMALL).is_file() else None
    if not any(path.is_file() for paths in pieces.values() for path in paths):
        return small
    label_file = folder / LABELS
    if not label_file.is_file():
        raise DataError(f"{label_file} is missing: the packed pieces beside it hold no labels.")
    labels = _arrays(label_file, ("y_train", "y_test"))
    available = {
        split: min(len(labels[f"y_{split}"]), PIECE * consecutive(paths))
        for split, paths in pieces.items()
    }

    def read(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        if small is not None and count <= getattr(small, f"n_{split}"):
            return small.read(split, count)
        pixels, have = [], 0
        for path in pieces[split]:
            if have >= count:
                break
            if not path.is_file():
                raise DataError(f"{path} is missing; {count:,} {split} images need it.")
            pixels.append(unpack(path, count - have))
            have += len(pixels[-1])
        if have < count:
            raise DataError(
                f"{folder}: {have:,} {split} images found in {len(pixels)} pieces, "
                f"{count:,} needed."
            )
        y = labels[f"y_{split}"][:count]
        return channels_last(np.concatenate(pixels)), checked_labels(y, count, str(label_file))

    return Source(
        dataset="CIFAR-10",
        format="packed pieces",
        description=f"{folder} (packed pieces)",
        n_train=available["train"],
        n_test=available["test"],
        shape=CIFAR10_SHAPE,
        classes=CIFAR10_CLASSES,
        read=read,
    )


def open_npz(path: Path) -> Source:
    """A plain npz with x_train, y_train, x_test, y_test (images uint8, (n, 3, 32, 32))."""
    arrays = _arrays(path, ("x_train", "y_train", "x_test", "y_test"))
    for name in ("x_train", "x_test"):
        x = arrays[name]
        if x.dtype != np.uint8 or x.shape[1:] != (3, 32, 32):
            raise DataError(f"{path}: {name} is {x.dtype} {x.shape}; uint8 (n, 3, 32, 32) needed.")

    def read(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = arrays[f"x_{split}"][:count], arrays[f"y_{split}"][:count]
        if len(x) < count:
            raise DataError(f"{path}: {len(x):,} {split} images found, {count:,} needed.")
        return channels_last(x), checked_labels(y, count, str(path))

    return Source(
        dataset="CIFAR-10",
        format="npz",
        description=str(path),
        n_train=len(arrays["x_train"]),
        n_test=len(arrays["x_test"]),
        shape=CIFAR10_SHAPE,
        classes=CIFAR10_CLASSES,
        read=read,
    )


def unpack(path: Path, count: int = PIECE) -> np.ndarray:
    """The first `count` images of a packed piece: uint8 (n, 3, 32, 32), channels red, green, blue.

    The stream holds, for the planes (green, red - green + 128, blue - green + 128), the residual
    modulo 256 of the median edge predictor: with left a, above b, above left c, it is a + b - c
    clipped to the interval between a and b (M. Weinberger, G. Seroussi, G. Sapiro, The LOCO-I
    lossless image compression algorithm, 2000, eq. 1). Residuals are folded to unsigned numbers
    (0, -1, 1, -2, ... to 0, 1, 2, 3, ...), odd rows run from right to left.
    """
    content = path.read_bytes()
    try:
        stream = np.frombuffer(lzma.decompress(content), np.uint8)
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(
            f"{path}: {len(content):,} bytes that do not decompress ({error}); a piece has about "
            "16,400,000. The file is truncated or damaged: fetch it again."
        ) from error
    if stream.size == 0 or stream.size % PIXELS:
        raise DataError(f"{path}: {stream.size:,} bytes unpacked, a multiple of {PIXELS} needed.")
    planes = stream.reshape(3, -1, 32, 32)[:, :count].astype(np.int16)
    planes[:, :, 1::2] = planes[:, :, 1::2, ::-1].copy()
    residuals = np.where(planes & 1, -((planes + 1) >> 1), planes >> 1)
    residuals = np.ascontiguousarray(residuals.transpose(2, 3, 0, 1))  # row, column, plane, image
    pixels = np.empty_like(residuals)
    for row in range(32):
        for column in range(32):
            predicted = _predict(pixels, row, column)
            pixels[row, column] = (predicted + residuals[row, column]) & 255
    green = pixels[:, :, 0]
    red, blue = ((pixels[:, :, k] - 128 + green) & 255 for k in (1, 2))
    return np.stack([red, green, blue]).astype(np.uint8).transpose(3, 0, 1, 2)


def _predict(pixels: np.ndarray, row: int, column: int) -> np.ndarray | int:
    if row and column:
        left, above = pixels[row, column - 1], pixels[row - 1, column]
        plane = left + above - pixels[row - 1, column - 1]
        return np.clip(plane, np.minimum(left, above), np.maximum(left, above))
    if column:
        return pixels[row, column - 1]
    return pixels[row - 1, column] if row else 128


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise DataError(f"{path}: it holds {file.files}; {missing} needed too.")
            return {name: file[name] for name in names}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes that are no npz file ({error}). The file is "
            "truncated or damaged: fetch it again."
        ) from error
