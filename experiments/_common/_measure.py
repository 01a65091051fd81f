"""Error, speed and memory of feature maps."""

import collections
import os
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ntk_sketch as ns
from ntk_sketch.diagnostics import centred_error, relative_error, spectral_error
from ntk_sketch.streaming import stream

from ._phases import Phases
from ._study import mean_and_std

Name = TypeVar("Name", bound=Hashable)


MEASURES = {"relative": relative_error, "centred": centred_error, "spectral": spectral_error}


def errors(
    close: list[dict[str, np.ndarray]],
    exact: dict[str, np.ndarray],
    measures: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = MEASURES,
) -> dict[str, Any]:
    """Every measure for every kernel, over keys."""
    return {
        kernel: {
            name: mean_and_std([error(of_key[kernel], exact[kernel]) for of_key in close])
            for name, error in measures.items()
        }
        for kernel in exact
    }


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


def compute(feature_map: ns.FeatureMap, x: np.ndarray, batch_size: int, n: int) -> None:
    """The NTK features of n examples as a regression has them: those of `x`, again and again."""
    batches = stream(feature_map, x, batch_size=batch_size, order=np.arange(n) % len(x))
    collections.deque(batches, maxlen=0)


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


def large_product() -> tuple[Callable[[], jax.Array], int]:
    """A matrix product that shows what the machine can do, compiled, and its FLOPs."""
    size = 2048 if jax.default_backend() == "cpu" else 16384
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    return lambda: product(a), 2 * size**3


def memory(feature_map: Callable[..., Any], x: jax.Array) -> dict[str, int | bool | None]:
    """Peak memory in bytes while features of the batch `x` are computed; compile before.

    `peak_rss` is the largest resident set of the whole process: interpreter, compiled programs and
    what the allocator keeps of earlier work, into which the arrays of a small map fit unseen.
    `program` is therefore counted by XLA: parameters, batch, intermediate arrays and features that
    are alive at once. `peak_device` is the high-water mark of the device's allocator so far.
    """
    phases = Phases()
    with phases("features"):
        jax.block_until_ready(feature_map(x))
    dynamic, static = eqx.partition(feature_map, eqx.is_array)
    program = jax.jit(lambda arrays, x: eqx.combine(arrays, static)(x)).lower(dynamic, x).compile()
    sizes: Any = program.memory_analysis()
    return {
        "peak_rss": phases.peak_rss["features"],
        "peak_rss_is_per_phase": phases.resets,
        "peak_device": phases.peak_device.get("features"),
        "program": sizes.temp_size_in_bytes
        + sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes,
    }


def load_average() -> float | None:
    """Mean number of running processes in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
