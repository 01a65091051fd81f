"""`python -m benchmarks.cold_start`: seconds of README's first example, from import to accuracy.

Each run is a fresh process without a compilation cache. With `--against FOLDER`, a checkout of
another commit, both are run in turn, since machines are noisy and ratios are what can be compared.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from experiments._command import exit_code
from experiments._record import command_line, environment, write_record

ROOT = Path(__file__).parent.parent
OUTPUT = Path(__file__).parent / "results"

_TIMED = """
import json, time
start = time.perf_counter()
{code}
print(json.dumps([time.perf_counter() - start, time.process_time()]))
"""


def example() -> str:
    """README's first block of code that imports ntk_sketch as a user would."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(block for block in blocks if "load_digits" in block)


def seconds(checkout: Path) -> list[float]:
    """Of the example with the package in `checkout`: elapsed, and of processors."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", _TIMED.format(code=example())]
    done = subprocess.run(
        command,
        env=environment | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"README's example failed in {checkout}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(against: Path | None, repetitions: int, out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    checkouts = {"this": ROOT} | ({} if against is None else {"other": against.resolve()})
    times: dict[str, list] = {name: [] for name in checkouts}
    for _ in range(repetitions):
        for name, checkout in checkouts.items():
            times[name].append(seconds(checkout))
    results: dict[str, Any] = {
        name: {
            "seconds": [elapsed for elapsed, _ in found],
            "processor seconds": [processor for _, processor in found],
            "median": float(np.median([elapsed for elapsed, _ in found])),
        }
        for name, found in times.items()
    }
    if against is not None:
        ratios = [a[0] / b[0] for a, b in zip(times["this"], times["other"], strict=True)]
        results["ratio"] = {"median": float(np.median(ratios)), "all": ratios}
    record = {
        "benchmark": "cold start",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line().replace(str(against), "FOLDER"),
        "environment": environment(),
        "results": results,
    }
    for name, found in results.items():
        print(f"{name}: median {found['median']:.2f}")
    write_record(out / "cold_start.json", record)
    return record


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder of the record")
    settings = parser.parse_args(arguments)
    return exit_code(run, settings.against, settings.repetitions, settings.out)


if __name__ == "__main__":
    sys.exit(main())
