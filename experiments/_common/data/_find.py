"""The order in which places are asked for CIFAR-10."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ._digits import open_digits
from ._official import find_binary, find_python
from ._packed import find_packed, open_npz
from ._source import DataError, Source
from ._tfds import Unavailable, open_tfds

ENVIRONMENT_VARIABLE = "NTK_SKETCH_DATA"
INSIDE = (".", "cifar10", "cifar-10-batches-py", "cifar-10-batches-bin")
FORMATS = (find_packed, find_python, find_binary)
ACCEPTED = (
    "the official python batches (data_batch_1 ... 5, test_batch), the official binary version "
    "(data_batch_1.bin ...), or the packed pieces (cifar10_train_1.xz ... with cifar10_labels.npz) "
    "or cifar10_small.npz"
)


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def find(
    data_dir: str | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = _print_error,
    tfds: Callable[[Callable[[str], None]], Source] = open_tfds,
) -> Source:
    """The first of: `data_dir`, the folder in NTK_SKETCH_DATA, TensorFlow Datasets, the digits.

    A folder that is named but holds no CIFAR-10 is an error, not a reason to look elsewhere.

    Args:
        data_dir: a folder (or npz file) that the user gave, or None.
        environment: where NTK_SKETCH_DATA is looked up.
        say: where lines for the reader go.
        tfds: replaces `open_tfds` (tests).

    Raises:
        DataError: the folder that was named has no usable data.
    """
    if data_dir is not None:
        return open_path(Path(data_dir), "--data-dir")
    if environment.get(ENVIRONMENT_VARIABLE):
        return open_path(Path(environment[ENVIRONMENT_VARIABLE]), ENVIRONMENT_VARIABLE)
    try:
        return tfds(say)
    except Unavailable as reason:
        source = open_digits()
        say("=" * 88)
        say(f"  NO CIFAR-10: {reason}.")
        say(f"  This run uses {source.description} INSTEAD, and its accuracy says nothing about")
        say(f"  CIFAR-10. Give --data-dir or {ENVIRONMENT_VARIABLE} to use images that you have.")
        say("=" * 88)
        return source


def open_path(path: Path, named_by: str = "") -> Source:
    """CIFAR-10 in a folder, its usual subfolders, or an npz file.

    Raises:
        DataError: nothing there, or part of a data set is missing.
    """
    where = f"{path} ({named_by})" if named_by else str(path)
    if path.is_file() and path.suffix == ".npz":
        return open_npz(path)
    if not path.is_dir():
        raise DataError(f"{where} is no folder. CIFAR-10 is read from {ACCEPTED}.")
    for folder in (path / name for name in INSIDE):
        for look in FORMATS:
            if folder.is_dir() and (source := look(folder)) is not None:
                _require_both_parts(source)
                return source
    names = sorted(entry.name for entry in path.iterdir())
    found = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
    packed = " Unpack the archive first." if any(n.endswith(".tar.gz") for n in names) else ""
    raise DataError(f"{where}: no CIFAR-10 there, but {found}. Needed: {ACCEPTED}.{packed}")


def _require_both_parts(source: Source) -> None:
    for split, count in (("training", source.n_train), ("test", source.n_test)):
        if count == 0:
            raise DataError(
                f"{source.description}: the first {split} file is missing. Needed: {ACCEPTED}."
            )
