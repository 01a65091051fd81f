"""What tells feature maps apart, in a few numbers."""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np

from ._written import written

_BYTES = 8


class Fingerprint(NamedTuple):
    """Digests of the parts of a feature map, in hexadecimal: equal maps have equal ones.

    Attributes:
        model: the layers and their arguments.
        method: the method, the kernels and the shape and dtype of examples.
        arrays: what was drawn: it depends on the key and on the sample.
    """

    model: str
    method: str
    arrays: str

    def __str__(self) -> str:
        return "-".join(self)

    def numbers(self) -> np.ndarray:
        """As (3, 2) integers of 32 bits, which any device holds."""
        digests = [np.frombuffer(bytes.fromhex(digest), np.uint32) for digest in self]
        return np.stack(digests)


def fingerprint(model: Any, method: Any, arrays: Any) -> Fingerprint:
    """Of a model's specification, of settings, and of a pytree of drawn parameters."""
    return Fingerprint(*map(_digest, (model, method, arrays)))


def _digest(value: Any) -> str:
    arrays: list = []
    digest = hashlib.sha256(json.dumps(written(value, arrays, strict=False)).encode())
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[: 2 * _BYTES]
