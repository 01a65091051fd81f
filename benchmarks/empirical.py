"""`python -m benchmarks.empirical`: features of the empirical NTK of a convolutional network with
10⁶ parameters, ten outputs traced, against Neural Tangents: error, memory and time.

Memory is what XLA counts for a compiled program (arguments, intermediate arrays and results): of
the features of a batch, and of one gradient of the mean squared loss of the same batch. The
Jacobian of a batch is images x outputs x parameters numbers.
"""

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments._common import data
from experiments._common._arguments import count, one_of, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import memory
from experiments._common._study import finish
from ntk_sketch import stax
from ntk_sketch._nt import nt
from ntk_sketch.diagnostics import relative_error
from ntk_sketch.empirical import EmpiricalFeatureMap, empirical_feature_map
from ntk_sketch.streaming import stream

OUTPUTS = 10
#: Of `nt.empirical_ntk_fn`, by their names there.
IMPLEMENTATIONS = {"jacobian": 1, "vector-products": 2, "structured": 3}


@dataclass(frozen=True)
class Settings:
    images: int = option(512, count)
    width: int = option(4096, count)
    channels: int = option(64, count, "of the first layer; the last two have four times as many")
    mode: str = option("auto", one_of(("auto", "forward", "reverse")))
    exact: str = option("structured", one_of(IMPLEMENTATIONS), "implementation in Neural Tangents")
    block: int = option(32, count, "images of a block of the exact kernel")
    data_dir: str | None = option(None, str, "CIFAR-10: official files or packed", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def network(channels: int) -> tuple[Callable, Callable]:
    """Four convolutions of 3x3, three of them with stride 2: 1,001,152 parameters of 64 channels
    and images of 32x32x3.
    """
    layers = []
    for factor, stride in ((1, 2), (2, 2), (4, 2), (4, 1)):
        conv = stax.Conv(factor * channels, (3, 3), (stride, stride), "SAME", W_std=2**0.5)
        layers += [conv, stax.Relu()]
    init_fn, apply_fn, _ = stax.serial(*layers, stax.Flatten(), stax.Dense(OUTPUTS))
    return init_fn, apply_fn


def exact_kernel(apply_fn: Callable, params: Any, x: np.ndarray, settings: Settings) -> np.ndarray:
    """Of all pairs of images, block by block; what lies under the diagonal is copied."""
    fn = nt.empirical_ntk_fn(apply_fn, vmap_axes=0, implementation=IMPLEMENTATIONS[settings.exact])
    kernel = jax.jit(fn)
    starts = range(0, len(x), settings.block)
    found = np.zeros((len(x), len(x)))
    pairs = list(itertools.combinations_with_replacement(starts, 2))
    for i, j in tqdm.tqdm(pairs, "exact kernel", disable=None):
        a, b = x[i : i + settings.block], x[j : j + settings.block]
        found[i : i + len(a), j : j + len(b)] = kernel(a, b, params)
    return np.triu(found) + np.triu(found, 1).T


def program_bytes(fn: Callable, *arguments: Any) -> int:
    """As `memory` counts those of a feature map."""
    sizes: Any = jax.jit(fn).lower(*arguments).compile().memory_analysis()
    return sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes


def memories(
    features: EmpiricalFeatureMap, apply_fn: Callable, params: Any, x: np.ndarray
) -> dict[str, int]:
    """Bytes for one batch: of features, of one gradient, of the Jacobian."""
    y = np.zeros((len(x), OUTPUTS), np.float32)
    n_params = sum(leaf.size for leaf in jax.tree.leaves(params))

    def gradient(params, x, y):
        return jax.grad(lambda params: jnp.mean((apply_fn(params, x) - y) ** 2))(params)

    return {
        "images": len(x),
        "features": int(memory(features, jnp.asarray(x))["program"] or 0),
        "gradient": program_bytes(gradient, params, x, y),
        "jacobian": 4 * len(x) * OUTPUTS * n_params,
    }


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    source = data.find(settings.data_dir)
    images, _ = source.read("train", settings.images)
    x = np.asarray(images, np.float32)
    x = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    init_fn, apply_fn = network(settings.channels)
    _, params = init_fn(jax.random.key(0), x.shape)
    mode = None if settings.mode == "auto" else settings.mode
    features = empirical_feature_map(
        apply_fn, params, settings.width, key=jax.random.key(1), x=x, get="ntk", mode=mode
    )
    batch_size = min(features.batch_size(), len(x))
    used = {
        "batch": memories(features, apply_fn, params, x[:batch_size]),
        "all images": memories(features, apply_fn, params, x),
    }
    start = time.perf_counter()
    z = np.concatenate([z for _, _, z in stream(features, x, batch_size=batch_size)])
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    exact = exact_kernel(apply_fn, params, x, settings)
    exact_seconds = time.perf_counter() - start
    close = z.astype(np.float64) @ z.T.astype(np.float64)
    error, norm = relative_error(close, exact), np.linalg.norm(exact)
    bound = float(np.sqrt((norm**2 + np.trace(exact) ** 2) / settings.width) / norm)
    results = {
        "relative_error": error,
        "expected_at_most": bound,
        "error_over_bound": error / bound,
        "memory_bytes": used,
        "features_seconds": seconds,
        "exact_seconds": exact_seconds,
    }
    lines = [
        f"{features.mode} mode, {features.n_features['ntk']:,} features: relative error"
        f" {error:.4f}, {error / bound:.2f} of {bound:.4f}"
    ]
    lines += [
        f"{one['images']:>5} images: {one['features'] / 2**20:.0f} MiB,"
        f" {one['features'] / one['gradient']:.2f} of a gradient's,"
        f" {one['features'] / one['jacobian']:.4f} of the Jacobian's"
        for one in used.values()
    ]
    lines.append(f"{seconds:.0f} s for features, {exact_seconds:.0f} s for the exact kernel")
    return finish(
        "empirical",
        settings,
        "empirical",
        results,
        "\n".join(lines),
        data={"dataset": source.dataset, "format": source.format},
        resolved={
            "mode": features.mode,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "n_features": features.n_features["ntk"],
            "batch_size": batch_size,
        },
    )


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.empirical", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
