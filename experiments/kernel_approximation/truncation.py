"""`python -m experiments.kernel_approximation.truncation`: the leading directions of features.

Nyström features of CIFAR-10 images under a Myrtle network, projected on the leading eigenvectors of
their own second moment ZᵀZ over the training images: error of the kernel of the first test images,
and accuracy of a ridge regression, against the number of directions that are kept.
"""

import argparse
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._record import command_line, environment, write_record
from experiments.cifar10 import data
from experiments.cifar10._architectures import myrtle
from experiments.cifar10._preprocess import Steps, fit
from experiments.cifar10._regression import given
from experiments.cifar10._settings import DIAG_REG, count
from ntk_sketch.solvers import stream

from ._exact import exact_kernels, fingerprint
from ._measure import centred_error, relative_error
from ._settings import OUTPUT, Settings

KEPT = (32, 64, 128, 256, 512, 1024)
TRAIN, TEST, IMAGES, SAMPLE = 2000, 1000, 24, 256


def run(widths: tuple[int, ...], data_dir: str | None, out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    source, default, steps = data.find(data_dir), Settings(), Steps(zca_reg=0.1)
    images, labels = source.read("train", min(TRAIN, source.n_train))
    test_images, test_labels = source.read("test", min(TEST, source.n_test))
    preprocessing = fit(images, steps)
    x, x_test = preprocessing(images), preprocessing(test_images)
    network: dict[str, Any] = {
        "name": f"myrtle{default.layers}",
        "nonlinearity": default.nonlinearity,
        "W_std": default.W_std,
        "b_std": default.b_std,
    }
    model = myrtle(shape=source.shape, **network)
    width = widths[0] if len(widths) == 1 else widths
    feature_map = ns.feature_map(model, x[:SAMPLE], ns.Nystroem(width), key=jax.random.key(0))
    z, z_test = (
        np.concatenate([np.asarray(part)[: b - a] for a, b, part in stream(feature_map, images)])
        for images in (x, x_test)
    )
    first = test_images[:IMAGES]
    kernel_hash = fingerprint(network | {"preprocessing": asdict(steps)}, images, first)
    exact = exact_kernels(model[2], x_test[:IMAGES], out / f"exact-{kernel_hash}.npz")["ntk"]

    values, vectors = np.linalg.eigh(z.T.astype(np.float64) @ z)
    y = np.eye(len(source.classes))[labels] - 1 / len(source.classes)
    rows = []
    for kept in sorted({min(k, z.shape[1]) for k in (*KEPT, z.shape[1])}):
        leading = vectors[:, -kept:]
        a, b = ((part @ leading).astype(np.float32) for part in (z, z_test))
        solution = ns.ridge(given, a, y.astype(np.float32), diag_reg=DIAG_REG, select="gcv")
        close = b[:IMAGES].astype(np.float64) @ b[:IMAGES].T
        rows.append(
            {
                "kept": kept,
                "energy": float(values[-kept:].sum() / values.sum()),
                "relative": relative_error(close, exact),
                "centred": centred_error(close, exact),
                "accuracy": float(np.mean(np.argmax(solution.predict(b), 1) == test_labels)),
                "diag_reg": float(np.asarray(solution.diag_reg)),
            }
        )
    record = {
        "experiment": "kernel_approximation.truncation",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {"width": width, "sample": SAMPLE, "train": len(x), "test": len(x_test)},
        "environment": environment(),
        "data": {"dataset": source.dataset, "format": source.format},
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
    try:
        run(tuple(options.width), options.data_dir, options.out)
    except data.DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
