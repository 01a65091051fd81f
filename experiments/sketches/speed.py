"""`python -m experiments.sketches.speed`: what sketches cost and how accurate they are for it.

1. An `SRHT` against the dense `GaussianSketch`.
2. All powers by `PolynomialSketch`: time against the highest degree.
3. Errors and times of `PolynomialSketch` against the tree of the papers, with full complex Fourier
   transforms, at the same number of real features.
"""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from experiments._record import command_line, environment, write_record
from experiments.cifar10._settings import count
from experiments.kernel_approximation._measure import (
    interleaved_seconds,
    large_product,
    load_average,
    relative_error,
)
from ntk_sketch.numerics._cost import product_cost
from ntk_sketch.sketches import SRHT, GaussianSketch, PolynomialSketch

from ._figure import figure
from ._fourier_tree import FourierTree

OUTPUT = Path(__file__).parent / "output"


class Settings(NamedTuple):
    """Sizes of all three parts."""

    dimension: int = 2**14
    batch: int = 1024
    width: int = 2**10
    tree_dimensions: tuple[int, ...] = (2048, 512)
    tree_batch: int = 256
    tree_width: int = 512
    degrees: tuple[int, ...] = (2, 4, 6, 8, 12, 16)
    points: int = 65
    keys: int = 60
    repetitions: int = 15


def run(settings: Settings, out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results = {
        "srht": srht(settings),
        "powers": [powers(settings, d) for d in settings.tree_dimensions],
        "fourier": [fourier(settings, d) for d in settings.tree_dimensions],
    }
    record = {
        "experiment": "sketches.speed",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": settings._asdict(),
        "environment": environment() | {"load_average": load_average()},
        "results": results,
    }
    name = f"speed-{jax.default_backend()}-{settings.dimension}d-{settings.width}m"
    write_record(out / f"{name}.json", record)
    figure(out / f"{name}.png", results)
    print(table(results))
    return record


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
    lines = ["| sketch | ms | GFLOP | MB | GFLOP/s | share |", "|---|---|---|---|---|---|"]
    of = results["srht"]
    for name in ("GaussianSketch", "SRHT"):
        row = of[name]
        lines.append(
            f"| {name} | {1e3 * row['median_s']:.1f} | {row['flops'] / 1e9:.2f}"
            f" | {row['bytes'] / 1e6:.0f} | {row['flops_per_s'] / 1e9:.0f}"
            f" | {row['share_of_product']:.2f} |"
        )
    lines += [f"\nGaussianSketch / SRHT: {of['speedup']:.2f}\n"]
    degrees = list(results["powers"][0]["median_s"])
    lines += ["| d | m | " + " | ".join(f"{q}, ms" for q in degrees) + " | slope |"]
    lines += ["|---" * (len(degrees) + 3) + "|"]
    for row in results["powers"]:
        times = " | ".join(f"{1e3 * s:.1f}" for s in row["median_s"].values())
        lines.append(f"| {row['dimension']} | {row['width']} | {times} | {row['slope']:.3f} |")
    shown = [int(q) for q in degrees]
    lines += ["\n| tree | d | m | " + " | ".join(f"l={l}" for l in shown) + " | ms |"]
    lines += ["|---" * (len(shown) + 4) + "|"]
    for row in results["fourier"]:
        for name in ("PolynomialSketch", "Fourier"):
            errors = " | ".join(f"{row[name]['error'][l - 1]:.3f}" for l in shown)
            lines.append(
                f"| {name} | {row['dimension']} | {row['width']} | {errors}"
                f" | {1e3 * row[name]['median_s']:.1f} |"
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sketches.speed",
        description="Speed and error of SRHT and PolynomialSketch.",
    )
    several = ("tree_dimensions", "degrees")
    for name, default in Settings()._asdict().items():
        more: dict[str, Any] = {"nargs": "+"} if name in several else {}
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=count, default=default, metavar="N", **more)
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="DIR")
    given = vars(parser.parse_args(arguments))
    if len(set(given["degrees"])) < 2:
        parser.error("argument --degrees: two different ones needed at least")
    if given["tree_width"] % 2 or given["tree_width"] < max(given["degrees"]):
        parser.error("argument --tree-width: an even number from the largest degree on needed")
    if given["keys"] < 2:
        parser.error("argument --keys: two needed at least")
    out = given.pop("out")
    given |= {name: tuple(given[name]) for name in several}
    given["degrees"] = tuple(sorted(set(given["degrees"])))
    run(Settings(**given), out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
