"""The name of a stored exact kernel: a hash of what determines it."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments._common import _networks, _preprocess
from ntk_sketch.diagnostics import _exact_kernels

SOURCES = (_networks.__file__, _preprocess.__file__, _exact_kernels.__file__)
PACKAGES = ("jax", "jaxlib", "neural-tangents", "numpy")


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
