"""`python -m benchmarks.cached_features`: features in a file, in every dtype of it.

For each data set a regression on features of two hidden ReLU layers, which it reads: bytes, seconds
of a pass that computes them and of one that reads them, and what the rounding of the file changes:
the relative change of the weights, of the predictions on examples that are not fitted, and of their
root mean squared error.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common import _uci
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._study import finish, markdown
from ntk_sketch import stax
from ntk_sketch.streaming import FeatureCache, stream

DTYPES = ("float32", "bfloat16", "uint8")


@dataclass(frozen=True)
class Settings:
    data: tuple[str, ...] = option(("protein_raw", "sml"), help="data sets", name="NAME")
    examples: int = option(12_000, count, "of each set at most, a fifth of them not fitted")
    width: int = option(384, count, name="M")
    diag_regs: tuple[float, ...] = option((1e-6, 1e-4, 1e-2), float, "regularisers", "D")
    data_dir: str | None = option(None, str, "folder of the data sets", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    rows = [row for name in settings.data for row in of_set(name, settings)]
    titles = ["data", "dtype", "MB", "s computed", "s read", "diag_reg", "weights", "predictions"]
    table = markdown(
        [*titles, "RMSE"],
        [
            [
                row["data"],
                row["dtype"],
                f"{row['bytes'] / 1e6:.1f}",
                f"{row['seconds_computed']:.2f}",
                f"{row['seconds_read']:.2f}",
                f"{row['diag_reg']:.0e}",
                f"{row['weights']:.1e}",
                f"{row['predictions']:.1e}",
                f"{row['rmse']:.4f} ({100 * row['rmse_change']:+.2f} %)",
            ]
            for row in rows
        ],
    )
    environment = {"load_average": load_average()}
    return finish(
        "cached features",
        settings,
        "cached-features",
        {"rows": rows},
        table,
        resolved={},
        environment=environment,
    )


def of_set(name: str, settings: Settings) -> list[dict[str, Any]]:
    x, y, found = _uci.load(name, settings.data_dir)
    chosen = np.random.default_rng(0).permutation(len(x))[: settings.examples]
    x, y = x[chosen], y[chosen]
    n = int(0.8 * len(x))
    spread = x[:n].std(axis=0)
    x = ((x - x[:n].mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
    y = (y - y[:n].mean()) / y[:n].std()
    layers = (stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()) * 2
    feature_map = ns.feature_map(
        stax.serial(*layers, stax.Dense(1)),
        x[: min(n, 4000)],
        ns.Nystroem(settings.width),
        key=jax.random.key(0),
        get="ntk",
    )
    list(stream(feature_map, x[:n]))  # compiles
    rows, exact = [], []
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            cache = FeatureCache(Path(folder) / "features", dtype)
            seconds = [timed(feature_map, x[:n], cache) for _ in range(2)]
            size = cache.path.stat().st_size
            options = {"diag_reg": settings.diag_regs, "keep_features": cache}
            path = ns.ridge(feature_map, x[:n], y[:n], **options).path
        found_here = [(np.asarray(s.weights), np.asarray(s.predict(x[n:]))) for s in path]
        exact = exact or found_here
        for solution, (w, mean), (w_exact, mean_exact) in zip(path, found_here, exact, strict=True):
            rmse, best = (float(np.sqrt(np.mean((m - y[n:]) ** 2))) for m in (mean, mean_exact))
            rows.append(
                {
                    "data": found,
                    "dtype": dtype,
                    "n": n,
                    "features": len(w),
                    "bytes": size,
                    "seconds_computed": seconds[0],
                    "seconds_read": seconds[1],
                    "diag_reg": solution.diag_reg,
                    "weights": change(w, w_exact),
                    "predictions": change(mean, mean_exact),
                    "rmse": rmse,
                    "rmse_change": rmse / best - 1,
                }
            )
    return rows


def timed(feature_map: ns.FeatureMap, x: np.ndarray, cache: FeatureCache) -> float:
    """Seconds of one pass."""
    start = time.perf_counter()
    for _ in stream(feature_map, x, cache=cache):
        pass
    return time.perf_counter() - start


def change(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.cached_features", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
