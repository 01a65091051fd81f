"""`python -m benchmarks.depth`: seconds from a deep network to predictions, compilation included.

A dense ReLU network, every method, each depth in a fresh process: making the map, ridge regression
on 64 examples, predictions of 8 and their approximate kernel, each of which compiles the map once
more for its number of rows.
XLA's fusion once made this grow fourfold with every layer; it should grow in proportion to depth.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common._arguments import count, one_of, option, settings_from
from experiments._common._command import exit_code
from experiments._common._study import finish
from ntk_sketch import stax

METHODS = {
    "Nystroem": lambda: ns.Nystroem(16),
    "Nystroem, half residual": lambda: ns.Nystroem(16, residual=0.5),
    "RandomFeatures": lambda: ns.RandomFeatures(16),
    "LeverageScore": lambda: ns.LeverageScore(16),
    "PolySketch": lambda: ns.PolySketch(degree=4, width=16),
    "Gegenbauer": lambda: ns.Gegenbauer(degree=4, width=16),
    "Exact": lambda: ns.Exact(),
}
STEPS = ("map", "ridge", "predictions", "kernel")


def measure(method: str, depth: int) -> dict[str, float]:
    """Seconds of each step for one network, in a process that has compiled nothing yet."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8)).astype("f4"), rng.normal(size=(64, 1)).astype("f4")
    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()] * depth
    model = stax.serial(*layers, stax.Dense(1))
    processor, at = time.process_time(), [time.perf_counter()]
    feature_map = ns.feature_map(model, x[:32], METHODS[method](), key=jax.random.key(0))
    at.append(time.perf_counter())
    solution = ns.ridge(feature_map, x, y, batch_size=64)
    at.append(time.perf_counter())
    prediction = solution.predict(x[:8])
    at.append(time.perf_counter())
    kernel = jax.block_until_ready(feature_map.kernel_fn(x[:8], None, "ntk"))
    at.append(time.perf_counter())
    processor = time.process_time() - processor
    assert np.isfinite(prediction).all()
    assert np.isfinite(kernel).all()
    steps = dict(zip(STEPS, np.diff(at).tolist(), strict=True))
    return steps | {"seconds": at[-1] - at[0], "processor seconds": processor}


def in_fresh_process(method: str, depth: int) -> dict[str, float]:
    code = "import json, sys; from benchmarks.depth import measure; "
    code += "print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))"
    command = [sys.executable, "-c", code, method, str(depth)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{method} at depth {depth} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Settings:
    methods: tuple[str, ...] = option(tuple(METHODS), one_of(METHODS), name="NAME")
    depths: tuple[int, ...] = option((4, 8, 16, 32, 50), count)
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results, record = {}, {}
    for method in settings.methods:
        found = {str(depth): in_fresh_process(method, depth) for depth in settings.depths}
        line = "  ".join(
            f"{depth}: {' + '.join(f'{one[step]:.2f}' for step in STEPS)} s"
            for depth, one in found.items()
        )
        results[method] = found  # an interruption leaves what is there
        record = finish("depth", settings, "depth", results, f"{method:24} {line}")
    return record


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.depth", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
