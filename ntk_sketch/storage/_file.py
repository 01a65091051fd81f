"""The file format: arrays as safetensors, and everything else as JSON in the header.

A safetensors file has the length of a header, the header (JSON with dtype, shape and place of each
array, and a dictionary of texts), and the numbers. That dictionary has one entry here, named
`ntk_sketch`. Its text is JSON too, and begins with the entries that every version must find:

    {"sha256": "...", "version": 1, "bytes": 4096, ...

The checksum is that of the whole file with 64 zeros in its own place.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from jax import numpy as jnp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

#: Increased by one with every change that older versions of this package cannot read.
VERSION = 1

_NAME = "ntk_sketch"
_NO_CHECKSUM = "0" * 64
_BEGINNING = re.compile(
    rb'.{8}\{"__metadata__":\{"ntk_sketch":"\{'
    rb'\\"sha256\\":\\"([0-9a-f]{64})\\",\\"version\\":(\d+),\\"bytes\\":(\d+),',
    re.DOTALL,
)
_BEGINNING_BYTES = 256  # enough for `_BEGINNING` to match
_CHUNK = 1 << 24

#: Dtypes that every version of safetensors has. Other dtypes are stored as bytes.
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES += ("float16", "float32", "float64")


def write(path: Any, about: dict[str, Any], arrays: Sequence[Any]) -> None:
    """Writes a new file at `path`, with `about` as JSON and with arrays.

    Raises:
        TypeError: an array does not hold numbers or booleans.
        OSError: the disk is full.
    """
    host = [np.asarray(array, order="C") for array in map(_checked, arrays)]
    others = {i: str(a.dtype) for i, a in enumerate(host) if str(a.dtype) not in _DTYPES}
    tensors = {
        str(i): a[..., None].view(np.uint8) if i in others else a for i, a in enumerate(host)
    }
    first = {"sha256": _NO_CHECKSUM, "version": VERSION, "bytes": sum(a.nbytes for a in host)}
    text = json.dumps(first | about | {"dtypes": others}, separators=(",", ":"))
    try:
        save_file(tensors, path, metadata={_NAME: text})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
    with open(path, "rb+") as file:
        found = _BEGINNING.match(file.read(_BEGINNING_BYTES))
        assert found
        digest = _digest(file, found.start(1))
        file.seek(found.start(1))
        file.write(digest.encode())


def _checked(array: Any) -> Any:
    if jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_:
        return array
    raise TypeError(f"arrays of dtype {array.dtype} cannot be saved; needed: numbers or booleans.")


def read(path: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads `about` and the arrays that `write` wrote, after a check of the whole file.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is of another kind, of a newer version, or damaged.
    """
    with _opened(path) as file:
        _check(file, path)
    with safe_open(path, framework="np") as tensors:
        about = json.loads(tensors.metadata()[_NAME])
        # copies, since a memory-mapped file may change
        arrays = [np.array(tensors.get_tensor(str(i))) for i in range(len(tensors.keys()))]
    for i, dtype in about["dtypes"].items():
        arrays[int(i)] = arrays[int(i)].view(jnp.dtype(dtype))[..., 0]
    return about, arrays


def _opened(path: Any) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no file {os.path.abspath(path)}. Give the path that was given to save()."
        ) from error
    except IsADirectoryError as error:
        raise IsADirectoryError(
            f"{os.path.abspath(path)} is a folder. Give the path of the file that was saved there."
        ) from error


def _check(file: BinaryIO, path: Any) -> None:
    """Checks that the file is of this or an earlier version and has its checksum."""
    size = os.fstat(file.fileno()).st_size
    beginning = file.read(_BEGINNING_BYTES)
    found = _BEGINNING.match(beginning)
    again = "Copy it again from where it came from, or save it anew."
    if not found:
        raise ValueError(
            f"{path} ({size} bytes) does not begin as a file that ntk_sketch saved: it is another"
            f" file, or damaged. Give a file that save() of a feature map, solution or GramState"
            f" wrote. {again}"
        )
    version, numbers = int(found[2]), int(found[3])
    if version > VERSION:
        raise ValueError(
            f"{path} has version {version} of the file format; this ntk_sketch reads up to"
            f" {VERSION}. Install a newer ntk_sketch (pip install --upgrade ntk-sketch)."
        )
    needed = 8 + struct.unpack("<Q", beginning[:8])[0] + numbers
    if size < needed:
        raise ValueError(f"{path} is truncated: it has {size} bytes of {needed}. {again}")
    if _digest(file, found.start(1)) != found[1].decode():
        raise ValueError(
            f"{path} was altered since it was saved: its content does not have its checksum."
            f" {again}"
        )


def _digest(file: BinaryIO, place: int) -> str:
    """SHA-256 of a file with zeros in place of its checksum."""
    file.seek(0)
    digest = hashlib.sha256(file.read(place))
    digest.update(_NO_CHECKSUM.encode())
    file.seek(place + len(_NO_CHECKSUM))
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
