"""`python -m experiments.kernel_approximation.dual_kernels`: dual kernels, by series and sampling.

Error of the truncated Hermite series at the norm of the inputs against its degree, and of Monte
Carlo features `σ(Wx)/√m` against their width, for the Gram matrix of σ's dual kernel on Gaussian
directions, relative in the Frobenius norm. The series keeps its tail: its diagonal is exact. `grid`
is the error of the series alone, without its tail, on a grid of cosines in [-1, 1]: relative in the
2-norm, and at most, relative to the kernel at cosine 1.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from tqdm import tqdm

from experiments._common._arguments import at_least_two, count, option, positive, settings_from
from experiments._common._command import exit_code
from experiments._common._study import figure, finish, markdown
from ntk_sketch import stax
from ntk_sketch.activations import DualActivation
from ntk_sketch.diagnostics import relative_error
from ntk_sketch.numerics._precision import float64
from ntk_sketch.series import hermite_coefficients

NONLINEARITIES = {
    "Relu": stax.Relu,
    "Abs": stax.Abs,
    "Sin": stax.Sin,
    "Gaussian": stax.Gaussian,
    "Erf": stax.Erf,
    "Gelu": stax.Gelu,
}
DEGREES, WIDTHS = tuple(range(1, 21)), tuple(2**k for k in range(5, 17))
NORMS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
BLOCK, LARGEST_DEGREE, BAR = 4096, 200, 1e-3
GRID = np.linspace(-1, 1, 2001)


@dataclass(frozen=True)
class Settings:
    points: int = option(1000, at_least_two)
    dimension: int = option(256, at_least_two, name="D")
    norms: tuple[float, ...] = option(NORMS, positive, name="R")
    widths: tuple[int, ...] = option(WIDTHS, count, name="M")
    seeds: int = option(2, at_least_two, "number of keys")
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    points, dimension = settings.points, settings.dimension
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((points, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosines = np.clip(directions @ directions.T, -1, 1)
    np.fill_diagonal(cosines, 1.0)
    rows = []
    cases = [(name, norm) for name in NONLINEARITIES for norm in settings.norms]
    for name, norm in tqdm(cases, desc="dual kernels", unit="kernel"):
        dual = DualActivation(NONLINEARITIES[name]())
        exact = exact_kernel(dual, cosines, norm)
        sampled = monte_carlo_errors(dual, exact, directions * norm, settings)
        row = {"nonlinearity": name, "norm": norm, "monte_carlo": sampled}
        rows.append(row | series_errors(dual, exact, cosines, norm))
    return finish(
        "kernel_approximation.dual_kernels",
        settings,
        f"dual-kernels-{points}points-{dimension}d",
        rows,
        table(rows),
        lambda path: draw(path, rows, settings.widths),
        degrees=list(DEGREES),
    )


def exact_kernel(dual: DualActivation, cosines: np.ndarray, norm: float) -> np.ndarray:
    """NT's kernel in float64, at one norm."""
    with float64():
        q = jnp.full(cosines.shape, norm**2)
        return np.asarray(dual(jnp.asarray(cosines) * q, q, q)[0])


def series_errors(dual: DualActivation, exact, cosines, norm: float) -> dict[str, Any]:
    """Errors at every degree, those on the grid, and the degrees at which these pass the bar."""
    found = hermite_coefficients(dual, norm, LARGEST_DEGREE)
    squares = found.values**2
    on_grid = exact_kernel(dual, GRID, norm)
    series, errors = np.full_like(exact, squares[0]), []
    power = np.ones_like(cosines)
    for degree in DEGREES:
        power = power * cosines
        series += squares[degree] * power
        np.fill_diagonal(series, np.diagonal(exact))  # the tail
        errors.append(relative_error(series, exact))
    grid = on_grid - np.cumsum(squares[:, None] * GRID ** np.arange(len(squares))[:, None], axis=0)
    grid_relative = np.linalg.norm(grid, axis=1) / np.linalg.norm(on_grid)
    grid_largest = np.abs(grid).max(axis=1) / on_grid[-1]
    return {
        "series": errors,
        "grid": [float(grid_relative[degree]) for degree in DEGREES],
        "grid_largest": [float(grid_largest[degree]) for degree in DEGREES],
        "grid_degree": first_below(grid_relative),
        "grid_largest_degree": first_below(grid_largest),
    }


def first_below(errors: np.ndarray) -> int | None:
    """The degree at which they reach the bar, if any up to the largest does."""
    degrees = np.flatnonzero(errors <= BAR)
    return int(degrees[0]) if len(degrees) else None


def monte_carlo_errors(
    dual: DualActivation, exact, x, settings: Settings
) -> dict[str, list[float]]:
    """Mean and standard deviation over keys of the error at every width, columns in blocks."""
    seeds, widths = settings.seeds, settings.widths
    x = jnp.asarray(x, jnp.float32)
    errors = np.zeros((seeds, len(widths)))
    for seed in range(seeds):
        total, done = np.zeros_like(exact), 0
        for i, width in enumerate(widths):
            while done < width:
                m = min(BLOCK, width - done)
                key = jax.random.fold_in(jax.random.key(seed), done)
                total += np.asarray(_block(dual, x, key, m))
                done += m
            errors[seed, i] = relative_error(total / width, exact)
    return {"mean": errors.mean(axis=0).tolist(), "std": errors.std(axis=0, ddof=1).tolist()}


def _gram(dual, x, key, m):
    w = jax.random.normal(key, (x.shape[1], m), x.dtype)
    value, _ = dual.value_and_derivative(jnp.matmul(x, w, precision="highest"))
    return jnp.matmul(value, value.T, precision="highest")


_block = jax.jit(_gram, static_argnums=(0, 3))


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each nonlinearity and norm."""
    heading = ["σ", "norm", "degree 4", "8", "16", "20", "grid, 16", "at most", "reached at"]
    heading += ["at most at", "sampling, least width", "largest"]
    lines, grid = [], DEGREES.index(16)
    for row in rows:
        at = dict(zip(DEGREES, row["series"], strict=True))
        sampled = row["monte_carlo"]["mean"]
        numbers = [at[4], at[8], at[16], at[20], row["grid"][grid], row["grid_largest"][grid]]
        degrees = [
            f">{LARGEST_DEGREE}" if row[measure] is None else row[measure]
            for measure in ("grid_degree", "grid_largest_degree")
        ]
        numbers = [f"{number:.1e}" for number in (*numbers, sampled[0], sampled[-1])]
        lines.append(
            [row["nonlinearity"], f"{row['norm']:g}", *numbers[:-2], *degrees, *numbers[-2:]]
        )
    return markdown(heading, lines)


def draw(path: Path, rows: list[dict[str, Any]], widths) -> None:
    """Error against degree above, against width below, a column for each nonlinearity."""
    names = list(dict.fromkeys(row["nonlinearity"] for row in rows))
    norms = list(dict.fromkeys(row["norm"] for row in rows))
    with figure(path, (3 * len(names), 6), 2, len(names), sharey="row") as (_, axes):
        for row in rows:
            column = names.index(row["nonlinearity"])
            own = {"color": f"C{norms.index(row['norm']) % 10}", "label": f"{row['norm']:g}"}
            sampled = row["monte_carlo"]
            axes[0, column].plot(DEGREES, row["series"], **own)
            axes[1, column].errorbar(widths, sampled["mean"], sampled["std"], **own)
        for column, name in enumerate(names):
            axes[0, column].set(title=name, xlabel="degree", yscale="log")
            axes[1, column].set(xlabel="width of Monte Carlo features", xscale="log", yscale="log")
        for axis in axes.ravel():
            axis.grid(alpha=0.3)
        axes[0, 0].set(ylabel="relative error of the series", ylim=(1e-16, 1))
        axes[1, 0].set_ylabel("relative error of sampling")
        axes[0, 0].legend(title="norm", fontsize="small")


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done."""
    module = "experiments.kernel_approximation.dual_kernels"
    text = "Dual kernels by Hermite series against degree, and by sampling against width."
    settings, _ = settings_from(Settings, module, text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
