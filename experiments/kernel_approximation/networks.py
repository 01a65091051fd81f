"""`python -m experiments.kernel_approximation.networks`: fully connected nets on UCI data.

NNGP and NTK of ReLU nets with 1 to 4 hidden layers, `W_std` √2 and `b_std` 0.1, on standardised
inputs: the error of features against their number and against their time, for every method.
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ntk_sketch as ns
from experiments._common import _uci
from experiments._common._arguments import (
    at_least_two,
    count,
    one_of,
    option,
    settings_from,
)
from experiments._common._command import exit_code
from experiments._common._measure import (
    MEASURES,
    compute,
    errors,
    grams,
    interleaved_seconds,
    load_average,
)
from experiments._common._phases import Phases
from experiments._common._study import finish, markdown
from experiments._common.data import DataError
from ntk_sketch import stax
from ntk_sketch.numerics._precision import float64

from ._methods import METHODS
from ._networks_figure import networks_figure

W_STD, B_STD = 2**0.5, 0.1
KERNELS = ("nngp", "ntk")
TIMED = 2048  # examples of one timing: a few batches even of a narrow map
COMPARED = (  # of METHODS; others are variants of these
    "Nystroem",
    "RandomFeatures",
    "LeverageScore",
    "PolySketch",
    "PolySketch-network",
    "Gegenbauer",
    "Gegenbauer-network",
    "TensorSRHT-recipe",
)

Case = tuple[int, str, int]  # depth, method, width


@dataclass(frozen=True)
class Settings:
    dataset: str = option("protein", str, "name of the npz file", "NAME")
    depths: tuple[int, ...] = option((1, 2, 3, 4), count, name="L")
    methods: tuple[str, ...] = option(COMPARED, one_of(METHODS), name="NAME")
    widths: tuple[int, ...] = option((64, 256, 1024), count, name="M")
    seeds: int = option(2, count, "number of keys")
    examples: int = option(1000, at_least_two, "whose kernels are compared")
    sample: int = option(2560, count, "for landmarks; 2,560 calibrate widths up to 256")
    repetitions: int = option(3, count)
    data_dir: str | None = option(None, str, "folder with uci_regression/NAME.npz", "DIR")
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record.

    Raises:
        DataError: the data set is missing, damaged or too small.
    """
    phases = Phases()
    x, sample, dataset = inputs(settings)
    cases = list(itertools.product(settings.depths, settings.methods, settings.widths))
    models = {depth: network(depth) for depth in settings.depths}
    with phases("exact kernels"):
        exact = {depth: exact_kernels(model, x) for depth, model in models.items()}
    eigenvalues = {
        depth: {kernel: np.linalg.eigvalsh(gram) for kernel, gram in of_depth.items()}
        for depth, of_depth in exact.items()
    }
    rows: list[dict[str, Any]] = []
    maps: dict[Case, ns.FeatureMap] = {}
    for case in tqdm(cases, desc="errors", unit="map"):
        depth, method, width = case
        row = {"depth": depth, "method": method, "width": width}
        try:
            with phases("fitting the maps"):
                of_key = [
                    ns.feature_map(
                        models[depth],
                        jnp.asarray(sample),
                        METHODS[method](width=width),
                        key=jax.random.key(k),
                    )
                    for k in range(settings.seeds)
                ]
            with phases("features"):
                close = [grams(feature_map, x, len(x)) for feature_map in of_key]
            with phases("errors"):
                row["errors"] = errors(close, exact[depth])
        except (ValueError, NotImplementedError) as error:
            rows.append(row | {"refused": f"{type(error).__name__}: {error}"})
            continue
        maps[case] = of_key[0]
        row["n_features"] = maps[case].n_features
        row["least_spectral"] = {
            kernel: least_spectral_error(values, row["n_features"][kernel])
            for kernel, values in eigenvalues[depth].items()
        }
        rows.append(row)
    loads = {"before timing": load_average()}
    with phases("timing"):
        seconds = timings(maps, x, settings.repetitions)
    loads["after timing"] = load_average()
    for row in rows:
        if (case := (row["depth"], row["method"], row["width"])) in seconds:
            each = np.array(seconds[case]) / TIMED * 1e6
            row["microseconds_per_example"] = float(np.median(each))
            row["microseconds_per_example_all"] = each.round(3).tolist()
    name = f"networks-{dataset.replace(' ', '-')}-{len(x)}examples-{settings.seeds}keys"

    def draw(path: Path) -> list[Path]:
        paths = {
            what: path.with_name(f"{path.stem}-{what}.png") for what in ("relative", "spectral")
        }
        for measure, drawn in paths.items():
            networks_figure(drawn, rows, measure, f"{dataset}, fully connected ReLU nets")
        return list(paths.values())

    return finish(
        "kernel_approximation.networks",
        settings,
        name,
        rows,
        f"{table(rows)}\n{refusals(rows)}\n{phases.table()}",
        draw,
        environment={"load_average": loads},
        network={"W_std": W_STD, "b_std": B_STD, "nonlinearity": "relu"},
        data={"dataset": dataset, "examples": len(x), "sample": len(sample)},
        phases=phases.record(),
    )


def least_spectral_error(eigenvalues: np.ndarray, rank: int, diag_reg: float = 1e-3) -> float:
    """What `spectral_error` is at least for any K̂ of this rank; 0 for full rank.

    Among the leading `rank + 1` eigenvectors of K some combination v has `K̂v = 0`: there `vᵀKv /
    vᵀ(K + λI)v ≥ μ / (μ + λ)`, with μ the next eigenvalue after the first `rank`.
    """
    if rank >= len(eigenvalues):
        return 0.0
    left = np.sort(eigenvalues)[-1 - rank]
    return float(left / (left + diag_reg * np.mean(eigenvalues)))


def inputs(settings: Settings) -> tuple[np.ndarray, np.ndarray, str]:
    """Examples to compare kernels on, others for methods that look at data, and their name.

    Both are drawn without repetition, and standardised by mean and deviation of all rows that are
    not examples. A set that is too small gives half its rows as examples.
    """
    x, _, dataset = _uci.load(settings.dataset, settings.data_dir)
    if len(x) < 4:
        raise DataError(f"{dataset} has {len(x)} rows; needed: 4, two of them to compare.")
    x = x[np.random.default_rng(0).permutation(len(x))]
    n = min(settings.examples, len(x) // 2)
    others = x[n:]
    spread = others.std(axis=0)
    x = (x - others.mean(axis=0)) / np.where(spread > 0, spread, 1)
    x = x.astype(np.float32)
    return x[:n], x[n : n + settings.sample], dataset


def network(depth: int) -> stax.Layer:
    """A net with `depth` hidden layers; their widths do not matter to the kernels."""
    hidden = [stax.Dense(1, W_std=W_STD, b_std=B_STD), stax.Relu()] * depth
    return stax.serial(*hidden, stax.Dense(1, W_std=W_STD, b_std=B_STD))


def exact_kernels(model: stax.Layer, x: np.ndarray) -> dict[str, np.ndarray]:
    """Those of Neural Tangents in float64: near cosine 1 an angle has half the digits."""
    with float64():
        kernels = model[2](jnp.asarray(x, jnp.float64), None, KERNELS)
        return {name: np.asarray(getattr(kernels, name)) for name in KERNELS}


def timings(
    maps: dict[Case, ns.FeatureMap], x: np.ndarray, repetitions: int
) -> dict[Case, list[float]]:
    """Seconds of the NTK features of `TIMED` examples, all maps in turn."""
    sizes = {case: feature_map.batch_size() for case, feature_map in maps.items()}
    calls = {case: lambda case=case: compute(maps[case], x, sizes[case], TIMED) for case in maps}
    with tqdm(total=len(calls) * (repetitions + 1), desc="timings", unit="call") as bar:
        interleaved_seconds(calls, 1, bar.update)  # compiles
        return interleaved_seconds(calls, repetitions, bar.update)


def table(rows: list[dict[str, Any]]) -> str:
    """One line for every depth, method and width that worked: errors as mean ± deviation.

    In brackets the least spectral error that as many features can have.
    """
    names = [
        kernel.upper() + ("" if measure == "relative" else f" {measure}")
        for kernel, measure in itertools.product(KERNELS, MEASURES)
    ]
    lines = []
    for row in rows:
        if "errors" in row:
            cells = [row["depth"], row["method"], row["width"], row["n_features"]["ntk"]]
            for kernel, measure in itertools.product(KERNELS, MEASURES):
                error = row["errors"][kernel][measure]
                spread = "" if error["std"] is None else f"±{error['std']:.1g}"
                least = f" (≥{row['least_spectral'][kernel]:.2g})" if measure == "spectral" else ""
                cells.append(f"{error['mean']:.2g}{spread}{least}")
            lines.append([*cells, f"{row['microseconds_per_example']:.1f}"])
    return markdown(["depth", "method", "width", "p", *names, "µs/example"], lines)


def refusals(rows: list[dict[str, Any]]) -> str:
    """One line for every depth, method and width that a method refused: what it said."""
    return "\n".join(
        f"depth {row['depth']}, {row['method']}, width {row['width']}: {row['refused']}"
        for row in rows
        if "refused" in row
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data are missing or damaged."""
    module = "experiments.kernel_approximation.networks"
    text = "Error of features of fully connected nets against their number and time."
    settings, _ = settings_from(Settings, module, text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
