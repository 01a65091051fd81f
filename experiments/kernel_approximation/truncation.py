"""`python -m experiments.kernel_approximation.truncation`: the leading directions of features.

Nyström features of CIFAR-10 images under a Myrtle network, projected on the leading eigenvectors of
their own second moment ZᵀZ over the training images: error of the kernel of the first test images,
and accuracy of a ridge regression, against the number of directions that are kept.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._command import exit_code
from experiments._record import command_line, environment, write_record
from experiments.cifar10._settings import count
from ntk_sketch.streaming import stream

from ._case import read_case
from ._settings import OUTPUT

KEPT = (32, 64, 128, 256, 512, 1024)
SAMPLE = 256


def run(widths: tuple[int, ...], data_dir: str | None, out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    case = read_case(data_dir, out)
    width = widths[0] if len(widths) == 1 else widths
    feature_map = ns.feature_map(
        case.model, case.x[:SAMPLE], ns.Nystroem(width), key=jax.random.key(0)
    )
    z, z_test = (
        np.concatenate([np.asarray(part) for _, _, part in stream(feature_map, images)])
        for images in (case.x, case.x_test)
    )
    values, vectors = np.linalg.eigh(z.T.astype(np.float64) @ z)
    rows = []
    for kept in sorted({min(k, z.shape[1]) for k in (*KEPT, z.shape[1])}):
        leading = vectors[:, -kept:]
        a, b = ((part @ leading).astype(np.float32) for part in (z, z_test))
        energy = float(values[-kept:].sum() / values.sum())
        rows.append({"kept": kept, "energy": energy} | case.errors(b) | case.accuracy(a, b))
    record = {
        "experiment": "kernel_approximation.truncation",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {"width": width, "sample": SAMPLE, "train": len(z), "test": len(z_test)},
        "environment": environment(),
        "data": {"dataset": case.source.dataset, "format": case.source.format},
        "results": rows,
    }
    write_record(out / f"truncation-Nystroem{'-'.join(map(str, widths))}.json", record)
    print(table(rows))
    return record


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| directions | NTK | NTK centred | accuracy |", "|---|---|---|---|"]
    lines += [
        f"| {row['kept']} | {row['relative']:.4f} | {row['centred']:.4f} | {row['accuracy']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data are missing or damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernel_approximation.truncation",
        description="Kernel error and accuracy of the leading directions of Nyström features.",
    )
    parser.add_argument("--width", type=count, nargs="+", default=(64, 64, 128, 1024), metavar="M")
    parser.add_argument("--data-dir", metavar="DIR", help="CIFAR-10: official files or packed")
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="DIR")
    options = parser.parse_args(arguments)
    return exit_code(run, tuple(options.width), options.data_dir, options.out)


if __name__ == "__main__":
    sys.exit(main())
