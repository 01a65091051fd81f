"""`python -m experiments.kernel_approximation.scaling`: time and memory against images and pixels.

Nyström features of random images under a Myrtle network: log-log slopes of the time of the map
against the number of images (500 to 4,000, 32x32) and against pixels (16x16 to 64x64), and the peak
memory of the process for every number of images. All sizes take turns in every repetition.
"""

import argparse
import collections
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._phases import Phases
from experiments._record import command_line, environment, write_record
from experiments.cifar10._architectures import myrtle
from experiments.cifar10._settings import count
from ntk_sketch.streaming import stream

from ._measure import interleaved_seconds, load_average
from ._settings import OUTPUT

IMAGES = (500, 1000, 2000, 4000)
SIDES = (16, 32, 64)
SIDE, BATCH, SAMPLE = 32, 20, 60


def run(width: int, repetitions: int, images: tuple[int, ...], out: Path) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    rng = np.random.default_rng(0)
    maps, examples = {}, {}
    for side in SIDES:
        x = rng.standard_normal((SAMPLE, side, side, 3)).astype(np.float32)
        model = myrtle("myrtle5", (side, side, 3))
        maps[side] = ns.feature_map(model, x, ns.Nystroem(width), key=jax.random.key(0))
        examples[side] = x[:BATCH]
        compute(maps[side], examples[side], BATCH)

    phases = Phases()
    for n in images:
        with phases(f"{n} images"):
            compute(maps[SIDE], examples[SIDE], n)
    by_images = interleaved_seconds(
        {n: lambda n=n: compute(maps[SIDE], examples[SIDE], n) for n in images}, repetitions
    )
    by_side = interleaved_seconds(
        {side: lambda side=side: compute(maps[side], examples[side], 10 * BATCH) for side in SIDES},
        repetitions,
    )
    record = {
        "experiment": "kernel_approximation.scaling",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {"width": width, "repetitions": repetitions, "batch": BATCH},
        "environment": environment() | {"load_average": load_average()},
        "results": {
            "seconds_by_images": {str(n): float(np.median(s)) for n, s in by_images.items()},
            "slope_by_images": _slope(by_images),
            "seconds_by_side": {str(side): float(np.median(s)) for side, s in by_side.items()},
            "slope_by_pixels": _slope({side**2: s for side, s in by_side.items()}),
            "peak_rss_bytes": {str(n): phases.peak_rss[f"{n} images"] for n in images},
        },
    }
    write_record(out / f"scaling-Nystroem{width}.json", record)
    results = record["results"]
    print(f"slope of log time against log images: {results['slope_by_images']:.3f}")
    print(f"slope of log time against log pixels: {results['slope_by_pixels']:.3f}")
    for n in images:
        print(f"{n:5} images: peak {results['peak_rss_bytes'][str(n)] / 2**20:.0f} MiB")
    return record


def compute(feature_map: ns.FeatureMap, x: np.ndarray, n: int) -> None:
    """The features of `n` images: those of `x`, again and again."""
    batches = stream(feature_map, x, batch_size=BATCH, order=np.arange(n) % len(x))
    collections.deque(batches, maxlen=0)


def _slope(seconds: dict[int, list[float]]) -> float:
    sizes, times = zip(*((size, np.median(s)) for size, s in seconds.items()), strict=True)
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernel_approximation.scaling",
        description="Time and memory of Nyström features against images and pixels.",
    )
    parser.add_argument("--width", type=count, default=64, metavar="M")
    parser.add_argument("--repetitions", type=count, default=3, metavar="N")
    parser.add_argument("--images", type=count, nargs="+", default=IMAGES, metavar="N")
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args(arguments)
    if len(set(given.images)) < 2 or any(n % BATCH for n in given.images):
        parser.error(f"argument --images: two different multiples of {BATCH} needed at least")
    run(given.width, given.repetitions, tuple(sorted(set(given.images))), given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
