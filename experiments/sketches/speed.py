"""`python -m experiments.sketches.speed`: what sketches cost and how accurate they are for it.

1. An `SRHT` against the dense `GaussianSketch`.
2. All powers by `PolynomialSketch`: time against the highest degree.
3. Errors and times of `PolynomialSketch` against the tree of the papers, with full complex Fourier
   transforms, at the same number of real features.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from experiments._common._arguments import at_least_two, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import interleaved_seconds, large_product, load_average
from experiments._common._study import finish, markdown
from ntk_sketch.diagnostics import relative_error
from ntk_sketch.numerics._cost import product_cost
from ntk_sketch.sketches import SRHT, GaussianSketch, PolynomialSketch

from ._figure import draw
from ._fourier_tree import FourierTree


@dataclass(frozen=True)
class Settings:
    """Sizes of all three parts."""

    dimension: int = 2**14
    batch: int = 1024
    width: int = 2**10
    tree_dimensions: tuple[int, ...] = (2048, 512)
    tree_batch: int = 256
    tree_width: int = 512
    degrees: tuple[int, ...] = (2, 4, 6, 8, 12, 16)
    points: int = 65
    keys: int = option(60, at_least_two)
    repetitions: int = 15
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results = {
        "srht": srht(settings),
        "powers": [powers(settings, d) for d in settings.tree_dimensions],
        "fourier": [fourier(settings, d) for d in settings.tree_dimensions],
    }
    return finish(
        "sketches.speed",
        settings,
        f"speed-{jax.default_backend()}-{settings.dimension}d-{settings.width}m",
        results,
        table(results),
        lambda path: draw(path, results),
        environment={"load_average": load_average()},
    )


def srht(settings: Settings) -> dict[str, Any]:
    """Seconds, FLOPs and bytes of the matrix products, and rate, of both sketches."""
    d, m = settings.dimension, settings.width
    x = jax.random.normal(jax.random.key(0), (settings.batch, d))
    sketches = {
        "GaussianSketch": GaussianSketch(d, m, key=jax.random.key(1)),
        "SRHT": SRHT(d, m, key=jax.random.key(1)),
    }
    product, product_flops = large_product()
    calls: dict[str, Callable] = {"product": product}
    calls |= {name: compiled(sketch, x) for name, sketch in sketches.items()}
    seconds = interleaved_seconds(calls, settings.repetitions)
    rate = product_flops / np.median(seconds["product"])
    found: dict[str, Any] = {"product": {"seconds": seconds["product"], "flops_per_s": rate}}
    for name, sketch in sketches.items():
        cost, median = product_cost(sketch, x), float(np.median(seconds[name]))
        found[name] = {
            "seconds": seconds[name],
            "median_s": median,
            "flops": cost.flops,
            "bytes": cost.bytes,
            "flops_per_s": cost.flops / median,
            "share_of_product": cost.flops / median / rate,
        }
    found["speedup"] = found["GaussianSketch"]["median_s"] / found["SRHT"]["median_s"]
    return found


def powers(settings: Settings, d: int) -> dict[str, Any]:
    """Median seconds of all powers up to each degree, and the slope of their logarithms."""
    x = jax.random.normal(jax.random.key(0), (settings.tree_batch, d))
    calls = {
        degree: compiled(
            PolynomialSketch(d, settings.tree_width, degree, key=jax.random.key(1)).powers, x
        )
        for degree in settings.degrees
    }
    seconds = interleaved_seconds(calls, settings.repetitions)
    medians = {degree: float(np.median(s)) for degree, s in seconds.items()}
    slope = np.polyfit(np.log(list(medians)), np.log(list(medians.values())), 1)[0]
    return {
        "dimension": d,
        "width": settings.tree_width,
        "median_s": {str(degree): s for degree, s in medians.items()},
        "slope": float(slope),
    }


def fourier(settings: Settings, d: int) -> dict[str, Any]:
    """Errors of `<x, x'>^l` for every l, as mean over keys, and median seconds, of both trees."""
    m, degree = settings.tree_width, max(settings.degrees)
    x = spread_points(settings.points, d)
    exact = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    batch = jax.random.normal(jax.random.key(0), (settings.tree_batch, d))
    kinds: dict[str, Callable] = {"PolynomialSketch": PolynomialSketch, "Fourier": FourierTree}
    found: dict[str, Any] = {"dimension": d, "width": m}
    calls = {}
    for name, kind in kinds.items():
        squares = np.zeros((settings.keys, degree))
        for i, key in enumerate(jax.random.split(jax.random.key(2), settings.keys)):
            z = np.asarray(kind(d, m, degree, key=key).powers(x), np.float64)
            for l in range(1, degree + 1):
                squares[i, l - 1] = relative_error(z[:, l] @ z[:, l].T, exact**l) ** 2
        error = np.sqrt(squares.mean(0))
        spread = squares.std(0, ddof=1) / settings.keys**0.5 / (2 * np.maximum(error, 1e-30))
        found[name] = {"error": error.tolist(), "standard_error": spread.tolist()}
        calls[name] = compiled(kind(d, m, degree, key=jax.random.key(1)).powers, batch)
    for name, seconds in interleaved_seconds(calls, settings.repetitions).items():
        found[name]["median_s"] = float(np.median(seconds))
    return found


def spread_points(n: int, d: int) -> jax.Array:
    """Unit vectors (n, d) on half a great circle, whose cosines fill [-1, 1]."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((d, 2)))[0]
    angles = np.linspace(0, np.pi, n)
    return jax.numpy.asarray(np.stack([np.cos(angles), np.sin(angles)], 1) @ basis.T, np.float32)


def compiled(fn: Callable, x: jax.Array) -> Callable[[], object]:
    """A call of `fn` as inside a jitted function, compiled."""
    jitted = eqx.filter_jit(fn)
    jax.block_until_ready(jitted(x))
    return lambda: jitted(x)


def table(results: dict[str, Any]) -> str:
    """Markdown of all three parts."""
    of, rows = results["srht"], []
    for name in ("GaussianSketch", "SRHT"):
        row = of[name]
        numbers = f"{row['flops'] / 1e9:.2f}", f"{row['bytes'] / 1e6:.0f}"
        rates = f"{row['flops_per_s'] / 1e9:.0f}", f"{row['share_of_product']:.2f}"
        rows.append([name, f"{1e3 * row['median_s']:.1f}", *numbers, *rates])
    parts = [markdown(["sketch", "ms", "GFLOP", "MB", "GFLOP/s", "share"], rows)]
    parts.append(f"GaussianSketch / SRHT: {of['speedup']:.2f}")
    degrees, rows = list(results["powers"][0]["median_s"]), []
    for row in results["powers"]:
        times = [f"{1e3 * s:.1f}" for s in row["median_s"].values()]
        rows.append([row["dimension"], row["width"], *times, f"{row['slope']:.3f}"])
    parts.append(markdown(["d", "m", *[f"{q}, ms" for q in degrees], "slope"], rows))
    rows = []
    for row in results["fourier"]:
        for name in ("PolynomialSketch", "Fourier"):
            errors = [f"{row[name]['error'][int(q) - 1]:.3f}" for q in degrees]
            time = f"{1e3 * row[name]['median_s']:.1f}"
            rows.append([name, row["dimension"], row["width"], *errors, time])
    parts.append(markdown(["tree", "d", "m", *[f"l={q}" for q in degrees], "ms"], rows))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done."""
    text = "Speed and error of SRHT and PolynomialSketch."
    settings, parser = settings_from(Settings, "experiments.sketches.speed", text, arguments)
    if len(settings.degrees) < 2:
        parser.error("argument --degrees: two different ones needed at least")
    if settings.tree_width % 2 or settings.tree_width < max(settings.degrees):
        parser.error("argument --tree-width: an even number from the largest degree on needed")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
