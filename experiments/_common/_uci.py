"""Regression data sets in npz files, by name: those of the UCI repository."""

import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .data import ENVIRONMENT_VARIABLE, DataError

SUBFOLDER = "uci_regression"


class Table(NamedTuple):
    """A data set with fixed test rows.

    Attributes:
        x, y: (n, d) and (n,), float64, in the order and the units of the file.
        tests: (n, splits), True on the test rows of each split.
        name: of what was loaded.
    """

    x: np.ndarray
    y: np.ndarray
    tests: np.ndarray
    name: str


def load_splits(name: str, splits: int, data_dir: str | None = None) -> Table:
    """As `load`, with the first `splits` columns of the file's `test_mask` (n, splits).

    Files without masks get fixed ones: a tenth of the rows in an order that is drawn with the
    number of the split. `NAME:k` is column k of a file with several targets.

    Raises:
        DataError: as `load`; there are fewer splits; a target that is not there.
    """
    file, colon, column = name.partition(":")
    if colon and not column.isdecimal():
        raise DataError(f"{name}: needed: NAME, or NAME:k with the number k of a column of y")
    folder = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if not folder:
        x, y, name = _diabetes(instead_of=file)
        return Table(x, y, _drawn(len(x), splits), name)
    path = _path(file, folder)
    x, y = _read(path, int(column) if column else None)
    with np.load(path, allow_pickle=False) as arrays:
        masks = arrays["test_mask"] if "test_mask" in arrays else _drawn(len(x), splits)
    if masks.dtype != bool or masks.ndim != 2 or len(masks) != len(x) or masks.shape[1] < splits:
        raise DataError(
            f"{path} holds test_mask {masks.shape} of {masks.dtype}; needed: at least {splits}"
            f" columns of {len(x)} booleans. Ask for fewer splits."
        )
    return Table(x, y, masks[:, :splits], name)


def _drawn(n: int, splits: int) -> np.ndarray:
    orders = [np.random.default_rng(split).permutation(n) for split in range(splits)]
    return np.stack([order < -(-n // 10) for order in orders], axis=1)


def load(name: str, data_dir: str | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """Inputs and targets of a data set: `NAME.npz`, or `uci_regression/NAME.npz`, of a folder.

    The folder is `data_dir`, or else that of the environment variable NTK_SKETCH_DATA. A folder
    that is named but lacks the file is an error; if none is named, the diabetes data that
    scikit-learn brings along stand in, which a line on stderr says.

    Args:
        name: of the data set, such as "protein".
        data_dir: a folder, or None.

    Returns:
        x (n, d) and y (n,), float64, in the order and the units of the file, and a description:
        the name of what was loaded.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    folder = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if not folder:
        return _diabetes(instead_of=name)
    return *_read(_path(name, folder)), name


def _path(name: str, folder: str) -> Path:
    paths = [Path(folder) / SUBFOLDER / f"{name}.npz", Path(folder) / f"{name}.npz"]
    for path in paths:
        if path.is_file():
            return path
    raise DataError(
        f"neither {paths[0]} nor {paths[1]} exists. Needed: an npz file with the arrays x (n, d) "
        f"and y (n,){_known(paths)}."
    )


def _diabetes(instead_of: str) -> tuple[np.ndarray, np.ndarray, str]:
    remedy = f"Give --data-dir or {ENVIRONMENT_VARIABLE} to use {instead_of}."
    try:
        from sklearn.datasets import load_diabetes
    except ImportError as error:
        raise DataError(
            f"No folder with {instead_of} was given, and scikit-learn, whose diabetes data could "
            f"stand in for it, is not installed: pip install scikit-learn. {remedy}"
        ) from error
    print("=" * 88, file=sys.stderr)
    print(
        f"  NO {instead_of}: this run uses scikit-learn's diabetes data INSTEAD.", file=sys.stderr
    )
    print(f"  {remedy}", file=sys.stderr)
    print("=" * 88, file=sys.stderr, flush=True)
    x, y = load_diabetes(return_X_y=True)
    return np.asarray(x), np.asarray(y), "scikit-learn diabetes"


def _known(paths: list[Path]) -> str:
    names = sorted(file.stem for path in paths for file in path.parent.glob("*.npz"))
    return f"; there are {', '.join(names)}" if names else ""


def _read(path: Path, column: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    needed = "Needed: an npz file with finite numbers x (n, d) and y (n,)"
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = (np.asarray(file[array], np.float64) for array in ("x", "y"))
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,  # what NumPy reads from a single array has no `with`
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} cannot be read ({error}). {needed}.") from error
    if column is not None and y.ndim == 2 and column < y.shape[1]:
        y = y[:, column]
    if x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
        raise DataError(f"{path} holds x {x.shape} and y {y.shape}. {needed}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{path} holds numbers that are not finite. {needed}.")
    return x, y
