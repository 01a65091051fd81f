"""`python -m benchmarks.scaling`: time and memory of features against images and pixels.

Nyström features of random images under a Myrtle network: log-log slopes of the time of the map
against the number of images (500 to 4,000, 32x32) and against pixels (16x16 to 64x64), and the peak
memory of the process for every number of images. All sizes take turns in every repetition.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import compute, interleaved_seconds, load_average
from experiments._common._networks import myrtle
from experiments._common._phases import Phases
from experiments._common._study import finish

SIDES = (16, 32, 64)
SIDE, BATCH, SAMPLE = 32, 20, 60


@dataclass(frozen=True)
class Settings:
    width: int = option(64, count, name="M")
    repetitions: int = option(3, count)
    images: tuple[int, ...] = option((500, 1000, 2000, 4000), count, "multiples of 20")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    images, repetitions = settings.images, settings.repetitions
    rng = np.random.default_rng(0)
    maps, examples = {}, {}
    for side in SIDES:
        x = rng.standard_normal((SAMPLE, side, side, 3)).astype(np.float32)
        model = myrtle("myrtle5", (side, side, 3))
        maps[side] = ns.feature_map(model, x, ns.Nystroem(settings.width), key=jax.random.key(0))
        examples[side] = x[:BATCH]
        compute(maps[side], examples[side], BATCH, BATCH)

    phases = Phases()
    for n in images:
        with phases(f"{n} images"):
            compute(maps[SIDE], examples[SIDE], BATCH, n)
    by_images = interleaved_seconds(
        {n: lambda n=n: compute(maps[SIDE], examples[SIDE], BATCH, n) for n in images}, repetitions
    )
    by_side = interleaved_seconds(
        {s: lambda s=s: compute(maps[s], examples[s], BATCH, 10 * BATCH) for s in SIDES},
        repetitions,
    )
    results = {
        "seconds_by_images": {str(n): float(np.median(s)) for n, s in by_images.items()},
        "slope_by_images": _slope(by_images),
        "seconds_by_side": {str(side): float(np.median(s)) for side, s in by_side.items()},
        "slope_by_pixels": _slope({side**2: s for side, s in by_side.items()}),
        "peak_rss_bytes": {str(n): phases.peak_rss[f"{n} images"] for n in images},
    }
    lines = [f"slope of log time against log images: {results['slope_by_images']:.3f}"]
    lines += [f"slope of log time against log pixels: {results['slope_by_pixels']:.3f}"]
    for n in images:
        lines.append(f"{n:5} images: peak {results['peak_rss_bytes'][str(n)] / 2**20:.0f} MiB")
    name = f"scaling-Nystroem{settings.width}"
    load = {"load_average": load_average()}
    return finish("scaling", settings, name, results, "\n".join(lines), environment=load)


def _slope(seconds: dict[int, list[float]]) -> float:
    sizes, times = zip(*((size, np.median(s)) for size, s in seconds.items()), strict=True)
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def main(arguments: list[str] | None = None) -> int:
    settings, parser = settings_from(Settings, "benchmarks.scaling", __doc__, arguments)
    if len(settings.images) < 2 or any(n % BATCH for n in settings.images):
        parser.error(f"argument --images: two different multiples of {BATCH} needed at least")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
