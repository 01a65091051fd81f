"""`python -m experiments.selection`: scores against test errors where landmarks are training rows.

A dense ReLU network, `Nystroem` landmarks from the training examples, ridge regression on ten UCI
data sets. Leave-one-out and GCV as means over all examples and over those that are not landmarks,
and the test error of the regulariser that each chooses.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import ntk_sketch as ns
from experiments import _uci
from experiments._command import exit_code
from experiments._record import command_line, environment, write_record
from ntk_sketch import stax
from ntk_sketch.streaming import stream

DATA = ("airfoil", "concrete", "energy", "housing", "parkinsons", "protein", "pumadyn32nm")
DATA += ("skillcraft", "stock", "wine")
DIAG_REG = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SMALL = DIAG_REG.index(1e-4)
OUTPUT = Path(__file__).parent / "results"


class Given(NamedTuple):
    """Features that are already there, in the shape that `ridge` takes."""

    nngp: Any
    ntk: Any


class Features(NamedTuple):
    """The map z → z, which may say which training examples are landmarks."""

    landmarks: np.ndarray

    def __call__(self, z):
        return Given(z, z)

    def is_landmark(self, z):
        return self.landmarks


def measure(x, y, rows: int, width: int, seed: int) -> dict[str, Any]:
    """Test errors along the path, and the scores of every estimate."""
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[: min(rows, len(x) * 7 // 10)], order[min(rows, len(x) * 7 // 10) :][:2000]
    spread = x[train].std(axis=0)
    x = ((x - x[train].mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
    y = (y - y[train].mean()) / y[train].std()
    dense = stax.Dense(1, W_std=2**0.5, b_std=0.1)
    model = stax.serial(dense, stax.Relu(), dense, stax.Relu(), stax.Dense(1))
    method = ns.Nystroem(min(width, len(train) * 2 // 5))
    feature_map = ns.feature_map(model, x[train], method, key=jax.random.key(seed))
    z, z_test = (
        np.concatenate([np.asarray(part) for _, _, part in stream(feature_map, part_x)])
        for part_x in (x[train], x[test])
    )
    landmarks = feature_map.is_landmark(x[train])
    result: dict[str, Any] = {"train": len(train), "test": len(test), "p": z.shape[1]}
    result["landmarks"] = int(landmarks.sum())
    for name, left_out in (("all", np.zeros_like(landmarks)), ("others", landmarks)):
        for select in ("loo", "gcv"):
            solution = ns.ridge(
                Features(left_out), z, y[train], diag_reg=DIAG_REG, select=select, batch_size=1024
            )
            errors = [float(np.mean((s.predict(z_test) - y[test]) ** 2)) for s in solution.path]
            assert solution.scores is not None
            result["errors"] = errors
            result[f"{select}, {name}"] = {
                "scores": [s if np.isfinite(s) else None for s in solution.scores.tolist()],
                "ratio": float(solution.scores[SMALL]) / errors[SMALL],
                "regret": errors[int(np.argmin(solution.scores))] / min(errors),
            }
    return result


def run(data, rows: int, width: int, data_dir: str | None, out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results = {}
    for number, name in enumerate(data):
        x, y, description = _uci.load(name, data_dir)
        results[description] = measure(x, y, rows, width, seed=number)
    record = {
        "experiment": "selection",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {"rows": rows, "width": width, "diag_reg": DIAG_REG},
        "environment": environment(),
        "results": results,
    }
    write_record(out / f"selection-{len(results)}sets-{rows}rows-width{width}.json", record)
    print(table(results))
    return record


ESTIMATES = ("loo, all", "loo, others", "gcv, all", "gcv, others")


def table(results: dict[str, Any]) -> str:
    """Score over test error at 1e-4, and test error of the choice over the smallest."""
    lines = [
        f"| data | {' | '.join(ESTIMATES)} |",
        "|---|" + "---|" * len(ESTIMATES),
    ]
    for name, result in results.items():
        cells = [f"{result[e]['ratio']:.2g}, {result[e]['regret']:.2f}" for e in ESTIMATES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    means = []
    for e in ESTIMATES:
        ratios, regrets = ([r[e][what] for r in results.values()] for what in ("ratio", "regret"))
        means.append(f"{np.exp(np.mean(np.log(ratios))):.2g}, {np.mean(regrets):.2f}")
    return "\n".join([*lines, f"| geometric mean, mean | {' | '.join(means)} |"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=DATA, help="names of data sets")
    parser.add_argument("--rows", type=int, default=600, help="training examples at most")
    parser.add_argument("--width", type=int, default=256, help="landmarks at most")
    parser.add_argument("--data-dir", help="folder of the npz files")
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder of the record")
    options = parser.parse_args()
    arguments = options.data, options.rows, options.width, options.data_dir, options.out
    return exit_code(run, *arguments)


if __name__ == "__main__":
    sys.exit(main())
