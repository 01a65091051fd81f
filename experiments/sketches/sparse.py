"""`python -m experiments.sketches.sparse`: sketches of sparse inputs, and scikit-learn's.

1. `CountSketch` and `TensorSketch` of a sparse matrix, as SciPy's CSR and as `BCOO`, against the
   same matrix as a dense array: ratio of median times.
2. `TensorSketch` against `PolynomialCountSketch` of scikit-learn at equal degree and width: median
   times of dense inputs, and relative errors of the polynomial kernel over seeds.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse
from jax import numpy as jnp
from jax.experimental.sparse import BCOO
from sklearn.kernel_approximation import PolynomialCountSketch

from experiments._common._arguments import at_least_two, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import interleaved_seconds, load_average
from experiments._common._study import figure, finish, markdown
from ntk_sketch.diagnostics import relative_error
from ntk_sketch.sketches import CountSketch, TensorSketch

CALLS = 5  # of one kind in a turn: else the turn before, of 80 MB, decides what caches hold


@dataclass(frozen=True)
class Settings:
    """Sizes of both parts."""

    rows: int = 1000
    dimension: int = 20_000
    percent: int = 1  # of entries that are not 0
    degree: int = 3
    widths: tuple[int, ...] = (256, 512, 1024)
    dense_rows: int = 2000
    dense_dimensions: tuple[int, ...] = (50, 784, 4000)
    dense_degrees: tuple[int, ...] = (2, 4)
    points: int = 100
    seeds: int = option(20, at_least_two)
    repetitions: int = 15
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results = {
        "sparse": [row for m in settings.widths for row in sparse(settings, m)],
        "sklearn": [
            against_sklearn(settings, d, m, degree)
            for d in settings.dense_dimensions
            for m in settings.widths
            for degree in settings.dense_degrees
        ],
    }
    return finish(
        "sketches.sparse",
        settings,
        f"sparse-{jax.default_backend()}-{settings.dimension}d",
        results,
        table(results),
        lambda path: draw(path, results),
        environment={"load_average": load_average()},
    )


def sparse(settings: Settings, m: int) -> list[dict[str, Any]]:
    """Median seconds of both sketches of one matrix in three forms, and ratios to the dense one."""
    n, d = settings.rows, settings.dimension
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), np.float32) * (rng.random((n, d)) < settings.percent / 100)
    csr = scipy.sparse.csr_array(x)
    dense, bcoo = jnp.asarray(x), BCOO.from_scipy_sparse(csr)
    key = jax.random.key(0)
    sketches = {
        "CountSketch": CountSketch(d, m, key=key),
        "TensorSketch": TensorSketch(d, m, settings.degree, key=key),
    }
    compiled = {name: jax.jit(lambda x, s=sketch: s(x)) for name, sketch in sketches.items()}
    calls: dict[tuple[str, str], Callable] = {}
    for name, sketch in sketches.items():
        # Dense inputs under jit, where no time goes into a look for NaN; CSR as a user has it.
        calls[name, "dense"] = lambda name=name: compiled[name](dense)
        calls[name, "csr"] = lambda sketch=sketch: sketch(csr)
        calls[name, "bcoo"] = lambda name=name: compiled[name](bcoo)
    for call in calls.values():
        jax.block_until_ready(call())
    seconds = interleaved_seconds(
        {name: lambda call=call: several(call) for name, call in calls.items()},
        settings.repetitions,
    )
    rows = []
    for name in sketches:
        forms = ("dense", "csr", "bcoo")
        medians = {form: float(np.median(seconds[name, form])) / CALLS for form in forms}
        rows.append(
            {
                "sketch": name,
                "degree": settings.degree if name == "TensorSketch" else 1,
                "width": m,
                "median_s": medians,
                "csr_speedup": medians["dense"] / medians["csr"],
                "bcoo_speedup": medians["dense"] / medians["bcoo"],
            }
        )
    return rows


def several(call: Callable) -> None:
    for _ in range(CALLS):
        jax.block_until_ready(call())


def against_sklearn(settings: Settings, d: int, m: int, degree: int) -> dict[str, Any]:
    """Median seconds, and errors of `<x, y>^degree` over seeds, of both implementations."""
    rng = np.random.default_rng(0)
    x = np.abs(rng.standard_normal((max(settings.dense_rows, settings.points), d)))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    points = x[: settings.points]
    exact = (points.astype(np.float64) @ points.T.astype(np.float64)) ** degree

    def ours(seed):
        return TensorSketch(d, m, degree, key=jax.random.key(seed))

    def theirs(seed):
        sketch = PolynomialCountSketch(degree=degree, n_components=m, random_state=seed)
        return sketch.fit(points).transform

    found: dict[str, Any] = {"dimension": d, "width": m, "degree": degree}
    calls = {}
    for name, make in {"TensorSketch": ours, "PolynomialCountSketch": theirs}.items():
        errors = []
        for seed in range(settings.seeds):
            z = np.asarray(make(seed)(points), np.float64)
            errors.append(relative_error(z @ z.T, exact))
        found[name] = {
            "error": float(np.mean(errors)),
            "standard_error": float(np.std(errors, ddof=1) / len(errors) ** 0.5),
            "errors": errors,
        }
        sketch = make(0)
        # NumPy to NumPy for both.
        calls[name] = lambda sketch=sketch: np.asarray(sketch(x[: settings.dense_rows]))
        calls[name]()
    for name, seconds in interleaved_seconds(calls, max(settings.repetitions // 3, 1)).items():
        found[name]["median_s"] = float(np.median(seconds))
    first, second = found["TensorSketch"], found["PolynomialCountSketch"]
    found["speedup"] = second["median_s"] / first["median_s"]
    noise = np.hypot(first["standard_error"], second["standard_error"])
    found["error_difference_in_standard_errors"] = float(
        (first["error"] - second["error"]) / max(noise, 1e-30)
    )
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown of both parts."""
    heading = ["sketch", "degree", "m", "dense, ms", "CSR, ms", "BCOO, ms"]
    heading += ["dense / CSR", "dense / BCOO"]
    rows = []
    for row in results["sparse"]:
        times = [f"{1e3 * s:.2f}" for s in row["median_s"].values()]
        ratios = [f"{row['csr_speedup']:.1f}", f"{row['bcoo_speedup']:.1f}"]
        rows.append([row["sketch"], row["degree"], row["width"], *times, *ratios])
    first = markdown(heading, rows)
    heading = ["d", "m", "degree", "ours, ms", "scikit-learn, ms", "ratio", "error, ours"]
    heading += ["scikit-learn", "difference / its standard error"]
    rows = []
    for row in results["sklearn"]:
        both = row["TensorSketch"], row["PolynomialCountSketch"]
        times = [f"{1e3 * s['median_s']:.1f}" for s in both]
        errors = [f"{s['error']:.4f}±{s['standard_error']:.4f}" for s in both]
        sizes = [row["dimension"], row["width"], row["degree"]]
        difference = f"{row['error_difference_in_standard_errors']:+.1f}"
        rows.append([*sizes, *times, f"{row['speedup']:.1f}", *errors, difference])
    return f"{first}\n\n{markdown(heading, rows)}"


def draw(path: Path, results: dict[str, Any]) -> None:
    """Left: times of the three forms against the width; right: errors of both implementations."""
    with figure(path, (9, 5), 1, 2) as (plot, axes):
        times, errors = axes[0]
        for sketch, style in {"CountSketch": "o-", "TensorSketch": "s--"}.items():
            rows = [row for row in results["sparse"] if row["sketch"] == sketch]
            for colour, form in enumerate(("dense", "csr", "bcoo")):
                milliseconds = [1e3 * row["median_s"][form] for row in rows]
                label, widths = f"{sketch}, {form}", [row["width"] for row in rows]
                times.loglog(widths, milliseconds, style, color=f"C{colour}", label=label)
        widths = sorted({row["width"] for row in results["sparse"]})
        times.set_xticks(widths, [str(m) for m in widths])
        times.minorticks_off()
        times.set(xlabel="width", ylabel="ms", title="Sparse matrix in three forms")
        compared = ("PolynomialCountSketch", "TensorSketch")
        theirs, ours = ([row[name]["error"] for row in results["sklearn"]] for name in compared)
        bars = [[row[name]["standard_error"] for row in results["sklearn"]] for name in compared]
        errors.errorbar(theirs, ours, xerr=bars[0], yerr=bars[1], fmt="o", markersize=4)
        ends = [min(theirs), max(theirs)]
        errors.plot(ends, ends, color="grey", linewidth=1)
        errors.set(xlabel=f"error of {compared[0]}", ylabel=f"error of {compared[1]}")
        errors.set_title("Polynomial kernel, mean of seeds")
        for axis in (times, errors):
            axis.grid(alpha=0.3, which="both")
        plot.legend(*times.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done."""
    text = "CountSketch and TensorSketch of sparse inputs, and against scikit-learn."
    settings, parser = settings_from(Settings, "experiments.sketches.sparse", text, arguments)
    if settings.percent > 100:
        parser.error("argument --percent: at most 100")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
