"""The exact kernel, row by row, kept in a file so that no finished row is ever computed again."""

import hashlib
import importlib.metadata
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.cifar10 import _architectures, _preprocess
from experiments.cifar10.data import DataError

KERNELS = ("nngp", "ntk")
COLUMNS = 4  # pairs at a time: on two cores neither 1 nor 8 is faster for 32x32 images
SOURCES = (_architectures.__file__, _preprocess.__file__, __file__)
PACKAGES = ("jax", "jaxlib", "neural-tangents", "numpy")


class DamagedFile(DataError):
    """A file of exact kernels that cannot be read."""


def fingerprint(settings: dict[str, Any], *arrays: np.ndarray) -> str:
    """A hash of what determines the kernel.

    That is `settings` (of architecture and preprocessing), the images as read, the code that
    makes kernel inputs and network of them, versions and device. Not the preprocessed images: they
    come from a threaded eigendecomposition, whose last bits may differ from run to run.
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    known = {"settings": settings, "versions": versions, "device": jax.devices()[0].device_kind}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for source in SOURCES:
        digest.update(Path(source).read_bytes())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def load(path: Path, n: int) -> tuple[int, dict[str, np.ndarray]]:
    """Number of finished rows and the kernels so far, lower triangles (n, n) in float64.

    Raises:
        DamagedFile: the file is no such file.
    """
    if not path.exists():
        return 0, {name: np.zeros((n, n)) for name in KERNELS}
    try:
        with np.load(path, allow_pickle=False) as file:
            rows, grams = int(file["rows"]), {name: file[name] for name in KERNELS}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DamagedFile(f"{path} cannot be read ({error}). Delete it to start again.") from error
    if any(gram.shape != (n, n) for gram in grams.values()) or not 0 <= rows <= n:
        raise DamagedFile(f"{path} is not for {n} images. Delete it to start again.")
    return rows, grams


def exact_kernels(
    kernel_fn: Callable,
    x: np.ndarray,
    path: Path,
    *,
    progress: Callable[[int], object] = lambda pairs: None,
) -> dict[str, np.ndarray]:
    """Exact NNGP and NTK (n, n) of `x` with itself, continued from the rows in `path`.

    After every row the file is replaced as a whole: an interruption leaves the old one or the new.

    Args:
        kernel_fn: of Neural Tangents.
        x: images (n, h, w, c).
        path: an npz file, which need not exist.
        progress: told after each finished row how many pairs (i, j), j ≤ i, it had.

    Cost: n (n + 1) / 2 kernel values, for a network with pooling each quartic in the image side.
    """
    n = len(x)
    done, grams = load(path, n)
    block = jax.jit(lambda a, b: kernel_fn(a, b, KERNELS))
    for row in range(done, n):
        for start in range(0, row + 1, COLUMNS):
            columns = np.arange(start, start + COLUMNS) % n
            values = block(x[row : row + 1], x[columns])
            for name, gram in grams.items():
                gram[row, columns] = np.asarray(getattr(values, name), np.float64)[0]
        _replace(path, rows=row + 1, **grams)
        progress(row + 1)
    return {name: np.tril(gram) + np.tril(gram, -1).T for name, gram in grams.items()}


def _replace(path: Path, **arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
