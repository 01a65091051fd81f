"""Error, speed and memory of feature maps."""

import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import ntk_sketch as ns
from experiments._phases import Phases

Name = TypeVar("Name", bound=Hashable)


def relative_error(close: np.ndarray, exact: np.ndarray) -> float:
    """`‖K̂ - K‖_F / ‖K‖_F`."""
    return float(np.linalg.norm(close - exact) / np.linalg.norm(exact))


def centred_error(close: np.ndarray, exact: np.ndarray) -> float:
    """The relative error of `HKH`, `H = I - 11ᵀ / n`: without the mean, which dominates."""
    return relative_error(_centre(close), _centre(exact))


def _centre(kernel: np.ndarray) -> np.ndarray:
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()


def grams(feature_map: ns.FeatureMap, x: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """Approximate kernels (n, n) of `x` with itself, multiplied in float64."""
    parts = []
    for start in range(0, len(x), batch_size):
        # One shape for all batches, so that there is one compilation; surplus rows are cut off.
        rows = np.arange(start, start + batch_size) % len(x)
        kept = min(batch_size, len(x) - start)
        z = feature_map(jnp.asarray(x[rows]))
        parts.append({name: np.asarray(getattr(z, name))[:kept] for name in feature_map.get})
    features = {
        name: np.concatenate([part[name] for part in parts]).astype(np.float64)
        for name in feature_map.get
    }
    return {name: z @ z.T for name, z in features.items()}


def feature_counts(feature_map: ns.FeatureMap) -> dict[str, int]:
    """Length of a feature vector, for every kernel of the map."""
    z = jax.eval_shape(feature_map, jax.ShapeDtypeStruct((1, *feature_map.input_shape), np.float32))
    return {name: getattr(z, name).shape[1] for name in feature_map.get}


def interleaved_seconds(
    calls: Mapping[Name, Callable[[], object]],
    repetitions: int,
    progress: Callable[[int], object] = lambda calls: None,
) -> dict[Name, list[float]]:
    """Seconds of every call, all calls in turn in every repetition.

    What disturbs the machine for a while then meets all of them, not one.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
            progress(1)
    return seconds


def memory(feature_map: ns.FeatureMap, x: jax.Array) -> dict[str, int | bool | None]:
    """Peak memory in bytes while features of the batch `x` are computed; compile before.

    `peak_rss` is the largest resident set of the whole process, `idle_rss` the one just before;
    `peak_device` the high-water mark of the device's allocator so far. Memory that the C library
    keeps from earlier work, of which compilation leaves hundreds of MiB, is given back first where
    it can be (glibc): else the features would fit into it unseen.
    """
    phases = Phases()
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    with phases("idle"):
        pass
    with phases("features"):
        for _ in range(2):
            jax.block_until_ready(feature_map(x))
    return {
        "peak_rss": phases.peak_rss["features"],
        "idle_rss": phases.peak_rss["idle"],
        "peak_device": phases.peak_device.get("features"),
        "is_per_phase": phases.resets,
    }


def load_average() -> float | None:
    """Mean number of running processes in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
