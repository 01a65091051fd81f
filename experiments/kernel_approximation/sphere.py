"""`python -m experiments.kernel_approximation.sphere`: kernels of ReLU nets on a sphere.

Relative error of the NTK of nets with one and two hidden layers, without bias, at uniform points of
S⁹: of Gegenbauer features and sketches of the whole kernel, and of arc-cosine random features.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import ntk_sketch as ns
from experiments._common._arguments import at_least_two, count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._study import finish, markdown, mean_and_std
from ntk_sketch import stax
from ntk_sketch.diagnostics import relative_error

from ._methods import METHODS
from .networks import exact_kernels

HIDDEN = (1, 2)
COMPARED = ("Gegenbauer-network", "PolySketch-network", "RandomFeatures", "LeverageScore")


@dataclass(frozen=True)
class Settings:
    dimension: int = option(10, at_least_two, "of the space (10)", "D")
    points: int = option(1000, at_least_two)
    widths: tuple[int, ...] = option((256, 1024, 4096), count, name="M")
    seeds: int = option(3, at_least_two, "number of keys")
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    x = np.random.default_rng(0).standard_normal((settings.points, settings.dimension))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    rows = []
    cases = [(h, m, w) for h in HIDDEN for m in COMPARED for w in settings.widths]
    models = {
        hidden: stax.serial(*[stax.Dense(1, W_std=2**0.5), stax.Relu()] * hidden, stax.Dense(1))
        for hidden in HIDDEN
    }
    exact = {hidden: exact_kernels(model, x)["ntk"] for hidden, model in models.items()}
    for hidden, method, width in tqdm(cases, unit="map"):
        own = METHODS[method](width=width)
        keys = [jax.random.key(k) for k in range(settings.seeds)]
        maps = [ns.feature_map(models[hidden], x, own, key=key, get="ntk") for key in keys]
        features = [np.asarray(feature_map(x).ntk, np.float64) for feature_map in maps]
        errors = [relative_error(z @ z.T, exact[hidden]) for z in features]
        row = {"hidden": hidden, "method": method, "width": width}
        rows.append(row | {"n_features": maps[0].n_features["ntk"]} | mean_and_std(errors))
    name = f"sphere-{settings.dimension}d-{settings.points}points-{settings.seeds}keys"
    return finish("kernel_approximation.sphere", settings, name, rows, table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over keys, a column for each width; p features in brackets."""
    widths, lines = sorted({row["width"] for row in rows}), []
    for hidden, method in dict.fromkeys((row["hidden"], row["method"]) for row in rows):
        own = [row for row in rows if (row["hidden"], row["method"]) == (hidden, method)]
        cells = [f"{row['mean']:.2g}±{row['std']:.1g} ({row['n_features']})" for row in own]
        lines.append([hidden, method, *cells])
    return markdown(["hidden layers", "method", *map(str, widths)], lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done."""
    module = "experiments.kernel_approximation.sphere"
    text = "NTK of ReLU nets on a sphere: Gegenbauer features and others."
    settings, _ = settings_from(Settings, module, text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
