"""`python -m experiments.kernel_approximation.study`: kernel error and accuracy of variants.

What lowers the error of a kernel and what raises the accuracy of a regression are not the same. For
every method: NTK error of the first 24 test images of CIFAR-10 under a Myrtle network, accuracy of
2,000 training and 1,000 test images with `diag_reg` by GCV, and the rate at which these 3,000 were
mapped. Methods take turns, key by key.
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import ntk_sketch as ns
from experiments._command import exit_code
from experiments._record import command_line, environment, write_record
from experiments.cifar10._settings import count, one_of
from ntk_sketch.streaming import stream

from ._case import Case, read_case
from ._measure import load_average
from ._methods import METHODS
from ._settings import OUTPUT

SAMPLE = 256
VARIANTS = (
    "Nystroem",
    "Nystroem-quarter-residual",
    "Nystroem-half-residual",
    "Nystroem-three-quarters-residual",
    "Nystroem-half-residual-but-last",
    "Nystroem-half-residual-early",
    "Nystroem-half-residual-last",
    "Nystroem-half-residual-independent",
    "Nystroem-half-residual-Sobol",
    "Nystroem-diagonal",
    "Nystroem-uniform",
    "Nystroem-NTK-landmarks",
    "Nystroem-landmarks-of-both",
    "Nystroem-uncalibrated",
    "Nystroem-NTK-landmarks-uncalibrated",
    "Nystroem-landmarks-of-both-uncalibrated",
    "RandomFeatures",
)
MEASURES = ("relative", "centred", "accuracy")


def run(
    methods: tuple[str, ...], width: int, keys: int, data_dir: str | None, out: Path
) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    case, loads = read_case(data_dir, out), [load_average()]
    found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    with tqdm(total=keys * len(methods), desc="methods", mininterval=10) as bar:
        for key in range(keys):
            for method in methods:
                found[method].append(measured(case, method, width, key))
                bar.update()
    loads.append(load_average())
    rows = [
        {"method": method, "images_per_second": float(np.median([r["rate"] for r in of_keys]))}
        | {
            name: {
                "mean": float(np.mean([r[name] for r in of_keys])),
                "keys": [r[name] for r in of_keys],
            }
            for name in MEASURES
        }
        for method, of_keys in found.items()
    ]
    record = {
        "experiment": "kernel_approximation.study",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {"width": width, "keys": keys, "sample": SAMPLE}
        | {"train": len(case.x), "test": len(case.x_test)},
        "environment": environment() | {"load_average": loads},
        "data": {"dataset": case.source.dataset, "format": case.source.format},
        "results": rows,
    }
    write_record(out / f"study-width{width}-{len(methods)}methods-{keys}keys.json", record)
    print(table(rows))
    return record


def measured(case: Case, method: str, width: int, key: int) -> dict[str, float]:
    """Errors, accuracy and rate of one method and key."""
    feature_map = ns.feature_map(
        case.model, case.x[:SAMPLE], METHODS[method](width=width), key=jax.random.key(key)
    )
    features(feature_map, case.x[: feature_map.batch_size()])  # compiles
    start = time.perf_counter()
    z, z_test = features(feature_map, case.x), features(feature_map, case.x_test)
    rate = (len(z) + len(z_test)) / (time.perf_counter() - start)
    return case.errors(z_test) | case.accuracy(z, z_test) | {"rate": rate}


def features(feature_map: ns.FeatureMap, x: np.ndarray) -> np.ndarray:
    """The NTK features of all examples on the host (n, p)."""
    return np.concatenate([np.asarray(z) for _, _, z in stream(feature_map, x)])


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| method | NTK | NTK centred | accuracy | images/s |", "|---|---|---|---|---|"]
    for row in rows:
        relative, centred, accuracy = (row[name]["mean"] for name in MEASURES)
        lines.append(
            f"| {row['method']} | {relative:.4f} | {centred:.4f} | {accuracy:.3f} |"
            f" {row['images_per_second']:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the study; 0 when it is done, 2 when the data are missing or damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernel_approximation.study",
        description="Kernel error and accuracy of variants of Nyström features.",
    )
    known = f"any of {', '.join(METHODS)}"
    parser.add_argument("--methods", type=one_of(METHODS), nargs="+", default=VARIANTS, help=known)
    parser.add_argument("--width", type=count, default=64, metavar="M")
    parser.add_argument("--keys", type=count, default=2, metavar="N")
    parser.add_argument("--data-dir", metavar="DIR", help="CIFAR-10: official files or packed")
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args(arguments)
    methods = tuple(dict.fromkeys(given.methods))
    return exit_code(run, methods, given.width, given.keys, given.data_dir, given.out)


if __name__ == "__main__":
    sys.exit(main())
