"""`python -m benchmarks.exact_time`: time of exact kernel and features.

Times Neural Tangents' exact kernel of a Myrtle network on blocks of pairs of CIFAR-10 images, and
the features of the same network on batches of images, in turn; extrapolates both to all images.
A kernel regression needs the kernel of all pairs of training images and of all pairs of a test and
a training image, or the features of all images.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ntk_sketch as ns
from experiments._common import data
from experiments._common._arguments import LARGEST, count, one_of, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import compute, interleaved_seconds
from experiments._common._networks import BLOCKS, myrtle
from experiments._common._preprocess import Steps, fit
from experiments._common._study import finish
from experiments.cifar10 import RECIPES, SAMPLE

BLOCK = {"cpu": (1, 4), "gpu": (8, 8)}  # images by images of one call of the exact kernel
BLOCKS_TIMED = {"cpu": 4, "gpu": 16}
IMAGES = {"cpu": 256, "gpu": 16_384}  # of which features are timed
TRAIN = 2_000  # images that the preprocessing is fitted to


@dataclass(frozen=True)
class Settings:
    architecture: str = option("myrtle5", one_of(BLOCKS), name="NAME")
    width: tuple[int, ...] = option((), count, "one, or one for each layer", "M", as_given=True)
    repetitions: int = option(5, count)
    blocks: int | None = option(None, count, "of pairs of images in a repetition")
    images: int | None = option(None, count, "of which features are timed in a repetition")
    data_dir: str | None = option(None, str, "CIFAR-10: official files or packed", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    backend = "cpu" if jax.default_backend() == "cpu" else "gpu"
    source, architecture = data.find(settings.data_dir), settings.architecture
    pixels, _ = source.read("train", min(TRAIN, source.n_train))
    x = fit(pixels, Steps())(pixels)
    model = myrtle(architecture, source.shape)
    size = RECIPES[architecture].sizes[backend]
    early, late, last = size.widths
    widths = settings.width or (early,) * (sum(BLOCKS[architecture]) - 2) + (late, last)
    method = ns.Nystroem(widths[0] if len(widths) == 1 else widths)
    feature_map = ns.feature_map(
        model, jnp.asarray(x[:SAMPLE]), method, key=jax.random.key(0), get="ntk"
    )
    images = settings.images or IMAGES[backend]
    blocks = settings.blocks or BLOCKS_TIMED[backend]
    batch_size = min(feature_map.batch_size(size.batch_bytes), images)
    rows, columns = BLOCK[backend]
    block = jax.jit(lambda a, b: model[2](a, b, "ntk"))

    def exact():
        for k in range(blocks):
            first = (k * columns) % (len(x) - columns + 1)
            block(x[:rows], x[first : first + columns]).block_until_ready()

    def features():
        compute(feature_map, x, batch_size, images)

    calls = {"exact": exact, "features": features}
    interleaved_seconds(calls, 1)
    seconds = {
        name: float(np.median(of_call))
        for name, of_call in interleaved_seconds(calls, settings.repetitions).items()
    }
    per_pair = seconds["exact"] / (blocks * rows * columns)
    per_image = seconds["features"] / images
    train, test = LARGEST["train"], LARGEST["test"]
    pairs = train * (train + 1) // 2 + train * test
    whole = {"exact": per_pair * pairs, "features": per_image * (train + test)}
    results = {
        "exact_seconds_per_pair": per_pair,
        "features_seconds_per_image": per_image,
        "pairs": pairs,
        "images": train + test,
        "extrapolated_seconds": whole,
        "ratio": whole["exact"] / whole["features"],
    }
    return finish(
        "exact time",
        settings,
        f"exact-time-{architecture}-Nystroem{'-'.join(map(str, widths))}",
        results,
        f"exact kernel: {per_pair:.3g} s a pair, {whole['exact']:.3g} s for {pairs:,} pairs\n"
        f"features: {per_image:.3g} s an image, {whole['features']:.3g} s for {train + test:,}\n"
        f"ratio: {results['ratio']:.4g}",
        data={"dataset": source.dataset, "format": source.format},
        resolved={"width": widths, "block": BLOCK[backend], "batch_size": batch_size},
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data make no sense."""
    settings, parser = settings_from(Settings, "benchmarks.exact_time", __doc__, arguments)
    depth = sum(BLOCKS[settings.architecture])
    if len(settings.width) not in (0, 1, depth):
        parser.error(f"argument --width: one number, or {depth}")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
