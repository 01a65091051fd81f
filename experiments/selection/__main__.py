"""`python -m experiments.selection`: scores against test errors where landmarks are training rows.

A dense ReLU network, `Nystroem` landmarks from the training examples, ridge regression on ten UCI
data sets. Leave-one-out and GCV as means over all examples and over those that are not landmarks,
and the test error of the regulariser that each chooses.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common import _uci
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._given import GivenFeatures
from experiments._common._study import finish, markdown
from ntk_sketch import stax
from ntk_sketch.streaming import stream

DATA = ("airfoil", "concrete", "energy", "housing", "parkinsons", "protein", "pumadyn32nm")
DATA += ("skillcraft", "stock", "wine")
DIAG_REG = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SMALL = DIAG_REG.index(1e-4)


@dataclass(frozen=True)
class Settings:
    data: tuple[str, ...] = option(DATA, str, "names of data sets", "NAME")
    rows: int = option(600, count, "training examples at most")
    width: int = option(256, count, "landmarks at most")
    data_dir: str | None = option(None, str, "folder of the npz files", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of results", "DIR")


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
                GivenFeatures(left_out),
                z,
                y[train],
                diag_reg=DIAG_REG,
                select=select,
                batch_size=1024,
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


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results = {}
    for number, name in enumerate(settings.data):
        x, y, description = _uci.load(name, settings.data_dir)
        results[description] = measure(x, y, settings.rows, settings.width, seed=number)
    name = f"selection-{len(results)}sets-{settings.rows}rows-width{settings.width}"
    text = table(results)
    return finish("selection", settings, name, results, text, diag_reg=DIAG_REG)


ESTIMATES = ("loo, all", "loo, others", "gcv, all", "gcv, others")


def table(results: dict[str, Any]) -> str:
    """Score over test error at 1e-4, and test error of the choice over the smallest."""
    lines = []
    for name, result in results.items():
        cells = [f"{result[e]['ratio']:.2g}, {result[e]['regret']:.2f}" for e in ESTIMATES]
        lines.append([name, *cells])
    means = []
    for e in ESTIMATES:
        ratios, regrets = ([r[e][what] for r in results.values()] for what in ("ratio", "regret"))
        means.append(f"{np.exp(np.mean(np.log(ratios))):.2g}, {np.mean(regrets):.2f}")
    return markdown(["data", *ESTIMATES], [*lines, ["geometric mean, mean", *means]])


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data are missing or damaged."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, _ = settings_from(Settings, "experiments.selection", text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
