"""Fingerprints: short digests that identify feature maps."""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np

from ._written import written

_BYTES = 8


class Fingerprint(NamedTuple):
    """Digests of the parts of a feature map, in hexadecimal. Equal maps have equal digests.

    Attributes:
        model: of the layers and their arguments.
        method: of the method, the kernels, and the shape and dtype of examples.
        arrays: of the drawn or fitted parameters, which depend on key and sample.
    """

    model: str
    method: str
    arrays: str

    def __str__(self) -> str:
        return "-".join(self)

    def numbers(self) -> np.ndarray:
        """The digests as (3, 2) integers of 32 bits, which every device supports."""
        digests = [np.frombuffer(bytes.fromhex(digest), np.uint32) for digest in self]
        return np.stack(digests)


def fingerprint(model: Any, method: Any, arrays: Any) -> Fingerprint:
    """The fingerprint of a model's specification, its settings, and a pytree of parameters."""
    return Fingerprint(*map(_digest, (model, method, arrays)))


def _digest(value: Any) -> str:
    arrays: list = []
    digest = hashlib.sha256(json.dumps(written(value, arrays, strict=False)).encode())
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[: 2 * _BYTES]
