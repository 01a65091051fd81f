"""`python -m benchmarks.cold_start`: seconds of README's first example, from import to accuracy.

Each run is a fresh process without a compilation cache. It finds Python's bytecode, which a first
run leaves, that is not counted. With `--against FOLDER`, a checkout of another commit, both are run
in turn, since machines are noisy and ratios are what can be compared.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._study import finish

ROOT = Path(__file__).parent.parent

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


def seconds(checkout: Path, bytecode: Path) -> list[float]:
    """Of the example with the package in `checkout`: elapsed, and of processors."""
    without = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
    environment = {k: v for k, v in os.environ.items() if k not in without}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
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


@dataclass(frozen=True)
class Settings:
    against: Path | None = option(None, Path, "a checkout of another commit", "FOLDER")
    repetitions: int = option(5, count)
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    against = settings.against
    checkouts = {"this": ROOT} | ({} if against is None else {"other": against.resolve()})
    times: dict[str, list] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as bytecode:
        for repetition in range(settings.repetitions + 1):
            for name, checkout in checkouts.items():
                found = seconds(checkout, Path(bytecode))
                if repetition:
                    times[name].append(found)
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
    text = "\n".join(f"{name}: median {found['median']:.2f}" for name, found in results.items())
    elsewhere = replace(settings, against=None)  # records know no folders of this machine
    return finish("cold start", elsewhere, "cold_start", results, text)


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.cold_start", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
