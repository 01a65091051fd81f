"""A file of features, found by the content of their examples.

It is a safetensors file with the tensors `features` and `keys`. Its header has a fixed size and is
written when all else is.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, UInt64

from ._row_formats import row_format

_HEADER = 4096  # bytes; what is left of it is blank
_NAME = "ntk_sketch"
_KIND = "features"
_VERSION = 1
_NAMES = {"float32": "F32", "float64": "F64", "bfloat16": "BF16", "uint8": "U8"}


def keys_of(x: Any) -> UInt64[np.ndarray, " n"]:
    """64 bits of BLAKE2b for each example. Of n different ones two agree with a probability of
    about n² / 4e19, 3e-6 for ten million."""
    rows = np.ascontiguousarray(x)
    rows = rows.reshape(len(rows), -1).view(np.uint8)
    digests = [hashlib.blake2b(row.data, digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), np.uint64)


class Writer:
    """Features on their way to a file.

    Args:
      file: to write to.
      about: what they are, for JSON.
      dtype: in the file.
      rows: of all that is added but the last.
    """

    def __init__(self, file: BinaryIO, p: int, about: dict[str, Any], dtype: str, rows: int):
        self._file, self._about, self._dtype = file, about, dtype
        self._settings = {"p": p, "dtype": dtype, "rows": rows}
        self._format, self._n = row_format(**self._settings), 0
        file.write(b" " * _HEADER)

    def add(self, z: Float[np.ndarray, "m p"]) -> Float[np.ndarray, "m p"]:
        """What will be read."""
        self._n += len(z)
        data = self._format.encoded(z)
        self._file.write(data.tobytes())
        return self._format.decoded(data, np.arange(len(z)))

    def finish(self, keys: UInt64[np.ndarray, " n"]) -> None:
        """Keys, and the header, without which there is nothing."""
        assert len(keys) == self._n
        end = self._file.tell() - _HEADER
        self._file.write(keys.tobytes())
        about = {"kind": _KIND, "version": _VERSION, "n": self._n, **self._settings}
        about["about"] = self._about
        header = {
            "__metadata__": {_NAME: json.dumps(about)},
            "features": {
                "dtype": _NAMES[self._dtype],
                "shape": self._format.shape(self._n),
                "data_offsets": [0, end],
            },
            "keys": {"dtype": "U64", "shape": [self._n], "data_offsets": [end, end + keys.nbytes]},
        }
        text = json.dumps(header).encode().ljust(_HEADER - 8)
        assert len(text) == _HEADER - 8
        self._file.seek(0)
        self._file.write(struct.pack("<Q", len(text)) + text)


class Stored:
    """Features in a file, mapped into memory.

    Attributes:
      about: what they are.

    Raises:
      ValueError: a file of something else, of another version, or of another size than its own.
    """

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            try:
                size = struct.unpack("<Q", file.read(8))[0]
                assert size == _HEADER - 8
                header = json.loads(file.read(size))
                found = json.loads(header["__metadata__"][_NAME])
                assert found["kind"] == _KIND
            except (struct.error, AssertionError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} is no cache of features: it is another file, or damaged. Give another"
                    " path, or remove the file"
                ) from error
        if found["version"] != _VERSION:
            raise ValueError(
                f"cache {path} has version {found['version']}; this ntk_sketch reads version"
                f" {_VERSION}: remove the file, or give another path"
            )
        end, total = header["keys"]["data_offsets"]
        if os.path.getsize(path) != _HEADER + total:
            raise ValueError(
                f"cache {path} has {os.path.getsize(path)} bytes of {_HEADER + total}: it was cut"
                " off or altered. Remove the file"
            )
        self.about, n = found["about"], found["n"]
        self._format = row_format(found["p"], found["dtype"], found["rows"])
        where = {"mode": "r", "offset": _HEADER, "shape": self._format.shape(n)}
        self._data = np.memmap(path, self._format.dtype, **where)
        keys = np.fromfile(path, np.uint64, n, offset=_HEADER + end)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def features(self, x: Any, start: int) -> Float[np.ndarray, "m p"]:
        """Of these examples.

        Args:
          start: number of the first one, for the error.

        Raises:
          ValueError: some are not there.
        """
        keys = keys_of(x)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        missing = np.flatnonzero(self._keys[place] != keys)
        if len(missing):
            raise ValueError(
                f"example {start + missing[0]} (in the order used) is not among the"
                f" {len(self._keys)} whose features are in cache {self.path}: it was made of other"
                " examples. Give another path, or remove the file"
            )
        return self._format.decoded(self._data, self._order[place])


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """In words; of a map without a fingerprint nothing is known."""
    return [
        f"{name}: {there.get(name)} there, {value} here"
        for name, value in here.items()
        if there.get(name) != value and None not in (there.get(name), value)
    ]
