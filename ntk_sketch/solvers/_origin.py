"""Which feature map statistics come from: states of different maps must not be added."""

from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import UInt32

#: What each of the digests in a state is of. Zeros stand for a map that has no fingerprint.
PARTS = (
    "in the model (its layers or their arguments)",
    "in the method, the kernels or the shape of examples",
    "in what was drawn (the key or the sample)",
    "in the kernel that `get` names",
)

Origin = UInt32[Any, "4 2"]


def unknown() -> np.ndarray:
    return np.zeros((len(PARTS), 2), np.uint32)


def origin_of(feature_map: Any, get: str) -> np.ndarray:
    """Digests of a feature map with a `fingerprint`, and of the kernel that is asked of it."""
    fingerprint = getattr(feature_map, "fingerprint", None)
    if fingerprint is None:
        return unknown()
    kernel = np.frombuffer(get.encode().ljust(8)[:8], np.uint32)
    return np.concatenate([fingerprint.numbers(), kernel[None]])


def fingerprint_of(origin: Any) -> str | None:
    """The text of the feature map's fingerprint; `None` if it is unknown."""
    digests = np.asarray(origin)[:-1]
    return "-".join(digest.tobytes().hex() for digest in digests) if digests.any() else None


def check_same(ours: Any, theirs: Any, what: str) -> None:
    """Refuses two known origins that differ; under `jit` nothing is known.

    Raises:
        ValueError: with the parts that differ.
    """
    if isinstance(ours, Tracer) or isinstance(theirs, Tracer):
        return
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if not ours.any() or not theirs.any():
        return
    parts = [part for part, a, b in zip(PARTS, ours, theirs, strict=True) if (a != b).any()]
    if parts:
        raise ValueError(
            f"{what}: their feature maps differ {' and '.join(parts)}. Features of different maps"
            " have nothing to do with each other: make one map, and accumulate all examples with it"
        )
