"""`python -m benchmarks.prediction`: milliseconds to predict a few examples with a fitted model.

A dense network of two ReLU layers, 20 inputs, width 512: calls of `predict` with 1, 16 and 256
examples after the first, which compiles. Beside them the time of the matrix products alone, at
the rate that one of size 1,024 has on this machine.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

import ntk_sketch as ns
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._study import finish
from ntk_sketch import stax

ROWS = (1, 16, 256)
METHODS = {"Nystroem": ns.Nystroem, "RandomFeatures": ns.RandomFeatures}


def milliseconds(fn, repetitions: int) -> list[float]:
    """Quartiles of the time of a call, after two that are not counted."""
    times = []
    for _ in range(repetitions + 2):
        start = time.perf_counter()
        fn()
        times.append(1e3 * (time.perf_counter() - start))
    return np.percentile(times[2:], [25, 50, 75]).tolist()


def measure(method: str, width: int, repetitions: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 20)).astype("f4"), rng.normal(size=(2000, 1)).astype("f4")
    dense = stax.Dense(1, W_std=2**0.5, b_std=0.1)
    model = stax.serial(dense, stax.Relu(), dense, stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(model, x[:1000], METHODS[method](width), key=jax.random.key(0))
    solution = ns.ridge(feature_map, x, y)
    square = jnp.ones((1024, 1024))
    product = jax.jit(lambda a: a @ a)
    rate = 2 * 1024**3 / milliseconds(lambda: product(square).block_until_ready(), 20)[1]
    found = {}
    for rows in ROWS:
        few = x[:rows]
        found[str(rows)] = {
            "milliseconds (quartiles)": milliseconds(
                lambda few=few: solution.predict(few), repetitions
            ),
            "milliseconds of its matrix products": feature_map.cost(few.shape).flops / rate,
        }
    return found


@dataclass(frozen=True)
class Settings:
    width: int = option(512, count)
    repetitions: int = option(200, count)
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results = {method: measure(method, settings.width, settings.repetitions) for method in METHODS}
    lines = []
    for method, of_rows in results.items():
        for rows, found in of_rows.items():
            low, middle, high = found["milliseconds (quartiles)"]
            lines.append(
                f"{method:16} {rows:>4} examples: {middle:.2f} ms ({low:.2f} to {high:.2f})"
            )
    return finish("prediction", settings, "prediction", results, "\n".join(lines))


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.prediction", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
