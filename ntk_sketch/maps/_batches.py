"""Choosing the number of examples of a batch."""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..identity._structure import is_abstract_array, once_per_structure
from ..numerics._memory import array_bytes, peak_bytes

_LARGEST_BATCH = 4096

#: A batch size to trace a map with: an array whose size it divides grows with the batch.
_LARGE_PRIME = 8191


def usual_budget(transform: Any) -> int:
    """The default memory budget of a batch, in bytes; small on a CPU, to stay in the caches."""
    if jax.default_backend() != "cpu":
        return 2**31
    arrays = jax.tree.leaves(eqx.filter(transform, eqx.is_array))
    return min(max(2**24, 4 * sum(map(array_bytes, arrays))), 2**27)


def batch_within(memory_bytes: int, feature_map: Any, dtype) -> int:
    """The largest power of two of examples whose features take about `memory_bytes` to compute."""
    per_example = _bytes_per_example(feature_map, dtype)
    return 2 ** int(math.log2(np.clip(memory_bytes / per_example, 1, _LARGEST_BATCH)))


@once_per_structure
def _bytes_per_example(feature_map: Any, dtype) -> float:
    """Peak memory per example of a large batch."""
    dynamic, static = eqx.partition(feature_map, is_abstract_array)

    def features(dynamic, x):
        whole = eqx.combine(dynamic, static)
        return whole._program(whole.transform, x)

    def growing(aval):  # not the map's own arrays, such as scaled filters
        return array_bytes(aval) if math.prod(aval.shape) % _LARGE_PRIME == 0 else 0

    examples = jax.ShapeDtypeStruct((_LARGE_PRIME, *feature_map.input_shape), dtype)
    return peak_bytes(features, dynamic, examples, of=growing) / _LARGE_PRIME
