"""Unpickling NumPy arrays without running anything that a file asks for.

A pickle is a program: loading one calls whatever functions it names. The official CIFAR-10 batches
are pickles of a dict with one uint8 array, for which the names below are enough; every other name
is refused before it is looked up (the remedy of the `pickle` documentation, "Restricting Globals").
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ._source import DataError


class ForbiddenPickle(DataError):
    """A pickle that names something else than a NumPy array."""


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in old protocols; only the one encoding that it uses."""
    if encoding != "latin1":
        raise ForbiddenPickle(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


# What NumPy itself names when it pickles an array, by the old protocols and by protocol 5.
_RECONSTRUCT = np.empty(1).__reduce__()[0]
_FROM_BUFFER = np.empty(1).__reduce_ex__(5)[0]
ALLOWED = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # NumPy 1, the official files
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # NumPy 2
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return ALLOWED[module_name, global_name]
        except KeyError:
            raise ForbiddenPickle(f"it asks for {module_name}.{global_name}") from None


def load_arrays(path: Path) -> Any:
    """Loads a pickle made of plain containers, numbers, strings and NumPy arrays.

    Raises:
        DataError: the file is truncated, not a pickle, or names anything else.
    """
    content = path.read_bytes()
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except ForbiddenPickle as error:
        raise ForbiddenPickle(
            f"{path}: refused, {error}; a CIFAR-10 batch holds only NumPy arrays, lists and "
            "strings. Get the file from https://www.cs.toronto.edu/~kriz/cifar.html."
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way (the pickle documentation)
        raise DataError(
            f"{path}: {len(content):,} bytes that do not unpickle ({type(error).__name__}: "
            f"{error}); an official batch has about 31,035,000. The file is truncated or damaged: "
            "fetch it again."
        ) from error
