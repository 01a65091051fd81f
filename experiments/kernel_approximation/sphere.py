"""`python -m experiments.kernel_approximation.sphere`: kernels of ReLU nets on a sphere.

Relative error of the NTK of nets with one and two hidden layers, without bias, at uniform points of
S⁹: of Gegenbauer features and sketches of the whole kernel, and of arc-cosine random features.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ntk_sketch as ns
from experiments._record import command_line, environment, write_record
from experiments.cifar10._settings import count
from ntk_sketch import stax

from ._measure import feature_counts, relative_error
from ._methods import METHODS
from ._settings import OUTPUT, at_least_two
from .networks import exact_kernels

HIDDEN = (1, 2)
COMPARED = ("Gegenbauer-network", "PolySketch-network", "RandomFeatures", "LeverageScore")


def run(
    dimension: int, points: int, widths: tuple[int, ...], seeds: int, out: Path
) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    x = np.random.default_rng(0).standard_normal((points, dimension))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    rows = []
    cases = [(h, m, w) for h in HIDDEN for m in COMPARED for w in widths]
    models = {
        hidden: stax.serial(*[stax.Dense(1, W_std=2**0.5), stax.Relu()] * hidden, stax.Dense(1))
        for hidden in HIDDEN
    }
    exact = {hidden: exact_kernels(model, x)["ntk"] for hidden, model in models.items()}
    for hidden, method, width in tqdm(cases, unit="map"):
        maps = [
            ns.feature_map(
                models[hidden], x, METHODS[method](width=width), key=jax.random.key(k), get="ntk"
            )
            for k in range(seeds)
        ]
        features = [np.asarray(feature_map(jnp.asarray(x)).ntk, np.float64) for feature_map in maps]
        errors = [relative_error(z @ z.T, exact[hidden]) for z in features]
        rows.append(
            {
                "hidden": hidden,
                "method": method,
                "width": width,
                "n_features": feature_counts(maps[0])["ntk"],
                "mean": float(np.mean(errors)),
                "std": float(np.std(errors, ddof=1)),
                "keys": errors,
            }
        )
    record = {
        "experiment": "kernel_approximation.sphere",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {"dimension": dimension, "points": points, "widths": widths, "seeds": seeds},
        "environment": environment(),
        "results": rows,
    }
    name = f"sphere-{dimension}d-{points}points-{seeds}keys"
    write_record(out / f"{name}.json", record)
    print(f"{table(rows)}\n\nrecord: {out / name}.json")
    return record


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over keys, a column for each width; p features in brackets."""
    widths = sorted({row["width"] for row in rows})
    lines = [
        f"| hidden layers | method | {' | '.join(map(str, widths))} |",
        "|" + "---|" * (2 + len(widths)),
    ]
    for hidden, method in dict.fromkeys((row["hidden"], row["method"]) for row in rows):
        own = [row for row in rows if (row["hidden"], row["method"]) == (hidden, method)]
        cells = [f"{row['mean']:.2g}±{row['std']:.1g} ({row['n_features']})" for row in own]
        lines.append(f"| {hidden} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernel_approximation.sphere",
        description="NTK of ReLU nets on a sphere: Gegenbauer features and others.",
    )
    add = parser.add_argument
    add("--dimension", type=at_least_two, default=10, metavar="D", help="of the space (10)")
    add("--points", type=at_least_two, default=1000, metavar="N")
    add("--widths", type=count, nargs="+", default=(256, 1024, 4096), metavar="M")
    add("--seeds", type=at_least_two, default=3, metavar="N", help="number of keys")
    add("--out", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args(arguments)
    widths = tuple(sorted(set(given.widths)))
    run(given.dimension, given.points, widths, given.seeds, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
