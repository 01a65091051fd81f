"""`python -m benchmarks.depth`: seconds from a deep network to predictions, compilation included.

A dense ReLU network, every method, each depth in a fresh process: making the map, ridge regression
on 64 examples, predictions of 8 and their approximate kernel, each of which compiles the map once
more for its number of rows.
XLA's fusion once made this grow fourfold with every layer; it should grow in proportion to depth.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._command import exit_code
from experiments._record import command_line, environment, write_record
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
DEPTHS = (4, 8, 16, 32, 50)
OUTPUT = Path(__file__).parent / "results"


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
    command = [sys.executable, "-m", "benchmarks.depth", "--one", method, str(depth)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{method} at depth {depth} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(methods: list[str], depths: list[int], out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    record: dict[str, Any] = {
        "benchmark": "depth",
        "command": command_line(),
        "environment": environment(),
        "results": {},
    }
    for method in methods:
        found = {str(depth): in_fresh_process(method, depth) for depth in depths}
        line = "  ".join(
            f"{depth}: {' + '.join(f'{one[step]:.2f}' for step in STEPS)} s"
            for depth, one in found.items()
        )
        print(f"{method:24} {line}", flush=True)
        record["results"][method] = found
        record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_record(out / "depth.json", record)  # an interruption leaves what is there
    return record


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS))
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder of the record")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "DEPTH"), help="in this process")
    settings = parser.parse_args(arguments)
    if settings.one:
        print(json.dumps(measure(settings.one[0], int(settings.one[1]))))
        return 0
    return exit_code(run, settings.methods, settings.depths, settings.out)


if __name__ == "__main__":
    sys.exit(main())
