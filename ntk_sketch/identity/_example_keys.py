"""Keys that recognise examples by their values, in any order."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, UInt32

from .._typing import Array, Inputs
from ..numerics._precision import on_device

_CHUNK = 1 << 20  # numbers hashed at a time


def landmark_keys(transform: Any, x: Inputs) -> UInt32[Array, "m 2"] | None:
    """Keys of the examples of the sample `x` that are landmarks of the last nonlinearity.

    Only those matter to a regression: landmarks of earlier layers have leverages like other
    examples (`experiments/selection`). `None` for a transform without landmarks.
    """
    parts = jax.tree.leaves(transform, is_leaf=lambda part: hasattr(part, "examples"))
    chosen = [part.examples for part in parts if hasattr(part, "examples")]
    if not chosen or chosen[-1] is None:
        return None
    return on_device(example_keys(np.asarray(x)[np.asarray(chosen[-1])]))


def is_among(x: Inputs, keys: UInt32[Array, "m 2"]) -> Bool[np.ndarray, " n"]:
    """Which examples of `x` have one of the keys."""
    known = np.sort(np.ascontiguousarray(keys).view(np.uint64)[:, 0])
    among = np.empty(len(x), bool)
    rows = _rows(x)
    for start in range(0, len(x), rows):
        found = example_keys(x[start : start + rows]).view(np.uint64)[:, 0]
        place = np.minimum(np.searchsorted(known, found), len(known) - 1)
        among[start : start + rows] = known[place] == found
    return among


def example_keys(x: Inputs) -> UInt32[np.ndarray, "n 2"]:
    """A hash of 64 bits for each example, equal for examples that are equal in float32.

    It is a multilinear hash: the sum modulo 2⁶⁴ of the 32-bit words of an example, each times a
    random number. Different examples have equal hashes with probability at most 2⁻³² over the
    random numbers (D. Lemire, O. Kaser, *Strongly universal string hashing is fast*, 2014).
    """
    size = int(np.prod(x.shape[1:]))
    factors = np.random.default_rng(0).integers(0, 2**64, size, np.uint64)
    keys = np.empty(len(x), np.uint64)
    rows = _rows(x)
    for start in range(0, len(x), rows):
        # adding 0 turns -0 into 0
        part = np.asarray(x[start : start + rows]).astype(np.float32).reshape(-1, size) + 0.0
        keys[start : start + rows] = part.view(np.uint32).astype(np.uint64) @ factors
    return keys.view(np.uint32).reshape(-1, 2)


def _rows(x: Inputs) -> int:
    """The number of examples hashed at a time."""
    return max(1, _CHUNK // max(int(np.prod(x.shape[1:])), 1))
