"""Exact kernel matrices, computed in parts that can be interrupted and resumed."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from .._arguments import checked_choice
from ..streaming._progress import Progress, reporting

#: NT computes about this many covariances of pairs of positions at a time.
_ENTRIES = 2**23


class DamagedFile(ValueError):
    """A file of exact kernels from which `exact_kernels` cannot resume."""


def exact_kernels(
    kernel_fn: Callable,
    x,
    get: str | Sequence[str] = ("nngp", "ntk"),
    *,
    path: str | os.PathLike | None = None,
    progress: Progress = None,
) -> dict[str, np.ndarray]:
    """Exact kernel matrices of `x`, to compare features with.

    Use this for convolutional nets, whose kernels of many examples take too much time and memory in
    one call: it computes a few pairs at a time, row by row, and can be interrupted. With Dropout
    the kernels are those of two independent passes, also on the diagonal.

    Args:
        kernel_fn: of Neural Tangents, the third part of a model.
        x: inputs (n, *input_shape), on the host.
        get: "nngp", "ntk" or both.
        path: an npz file that is replaced after every finished row. An interrupted computation with
            the same arguments resumes from it. The file does not record kernel and inputs: choose a
            name that does. `None`: keep nothing.
        progress: as in `ntk_sketch.ridge`; it counts pairs.

    Returns:
        Symmetric arrays (n, n) in float64, by name.

    Raises:
        DamagedFile: the file at `path` cannot be read, or has other sizes or kernels.
        ValueError: an unknown name in `get`.

    Cost: n (n + 1) / 2 kernel values, for a net with pooling each quartic in the image side.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.diagnostics import exact_kernels
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> exact_kernels(model[2], np.eye(3, dtype=np.float32))["ntk"].shape
        (3, 3)
    """
    get = (get,) if isinstance(get, str) else tuple(get)
    for name in get:
        checked_choice(name, "get", ("nngp", "ntk"))
    n, positions = len(x), int(np.prod(x.shape[1:-1]))
    # At least two columns: NT treats batches of different sizes as different inputs.
    width = int(np.clip(_ENTRIES // positions**2, 2, max(n, 2)))
    done, grams = _stored(path, n, get)
    block = jax.jit(lambda a, b: kernel_fn(a, b, get))
    left = (n * (n + 1) - done * (done + 1)) // 2
    with reporting(progress, left, "exact kernel", unit=" pairs") as report:
        for row in range(done, n):
            for start in range(0, row + 1, width):
                columns = np.arange(start, start + width) % n
                values = block(x[row : row + 1], x[columns])
                for name, gram in grams.items():
                    gram[row, columns] = np.asarray(getattr(values, name), np.float64)[0]
            if path is not None:
                _replace(Path(path), rows=row + 1, **grams)
            report(row + 1)
    return {name: np.tril(gram) + np.tril(gram, -1).T for name, gram in grams.items()}


def _stored(path, n: int, get: tuple[str, ...]) -> tuple[int, dict[str, np.ndarray]]:
    """The number of finished rows, and the lower triangles (n, n) of the kernels so far."""
    if path is None or not Path(path).exists():
        return 0, {name: np.zeros((n, n)) for name in get}
    try:
        with np.load(path, allow_pickle=False) as file:
            rows, grams = int(file["rows"]), {name: file[name] for name in get}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DamagedFile(f"{path} cannot be read ({error}). Delete it to start again.") from error
    if any(gram.shape != (n, n) for gram in grams.values()) or not 0 <= rows <= n:
        raise DamagedFile(f"{path} is not for {n} examples. Delete it to start again.")
    return rows, grams


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
