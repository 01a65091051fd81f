"""`python -m experiments.kernel_approximation.exact_time`: time of exact kernel and features.

Times Neural Tangents' exact kernel of a Myrtle network on blocks of pairs of CIFAR-10 images, and
the features of the same network on batches of images, in turn; extrapolates both to all images.
A kernel regression needs the kernel of all pairs of training images and of all pairs of a test and
a training image, or the features of all images.
"""

import argparse
import collections
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ntk_sketch as ns
from experiments._command import exit_code
from experiments._record import command_line, environment, write_record
from experiments.cifar10 import data
from experiments.cifar10._architectures import BLOCKS, myrtle
from experiments.cifar10._preprocess import Steps, fit
from experiments.cifar10._run import BATCH_BYTES, SAMPLE, SIZES
from experiments.cifar10._settings import LARGEST, count, one_of
from ntk_sketch.streaming import stream

from ._measure import interleaved_seconds
from ._settings import OUTPUT

BLOCK = {"cpu": (1, 4), "gpu": (8, 8)}  # images by images of one call of the exact kernel
BLOCKS_TIMED = {"cpu": 4, "gpu": 16}
IMAGES = {"cpu": 256, "gpu": 16_384}  # of which features are timed
TRAIN = 2_000  # images that the preprocessing is fitted to


def run(
    architecture: str, width: tuple[int, ...] | None, repetitions: int, data_dir: str | None, out
) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    backend = "cpu" if jax.default_backend() == "cpu" else "gpu"
    source = data.find(data_dir)
    images, _ = source.read("train", min(TRAIN, source.n_train))
    x = fit(images, Steps())(images)
    model = myrtle(architecture, source.shape)
    early, late, last = SIZES[backend].widths
    widths = width or (early,) * (sum(BLOCKS[architecture]) - 2) + (late, last)
    method = ns.Nystroem(widths[0] if len(widths) == 1 else widths)
    feature_map = ns.feature_map(
        model, jnp.asarray(x[:SAMPLE]), method, key=jax.random.key(0), get="ntk"
    )
    batch_size = min(feature_map.batch_size(BATCH_BYTES[backend]), IMAGES[backend])
    order = np.arange(IMAGES[backend]) % len(x)
    rows, columns = BLOCK[backend]
    block = jax.jit(lambda a, b: model[2](a, b, "ntk"))

    def exact():
        for k in range(BLOCKS_TIMED[backend]):
            first = (k * columns) % (len(x) - columns + 1)
            block(x[:rows], x[first : first + columns]).block_until_ready()

    def features():
        batches = stream(feature_map, x, batch_size=batch_size, order=order)
        collections.deque(batches, maxlen=0)

    calls = {"exact": exact, "features": features}
    interleaved_seconds(calls, 1)
    seconds = {
        name: float(np.median(of_call))
        for name, of_call in interleaved_seconds(calls, repetitions).items()
    }
    per_pair = seconds["exact"] / (BLOCKS_TIMED[backend] * rows * columns)
    per_image = seconds["features"] / len(order)
    train, test = LARGEST["train"], LARGEST["test"]
    pairs = train * (train + 1) // 2 + train * test
    whole = {"exact": per_pair * pairs, "features": per_image * (train + test)}
    record = {
        "experiment": "kernel_approximation.exact_time",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {
            "architecture": architecture,
            "width": widths,
            "repetitions": repetitions,
            "block": BLOCK[backend],
            "batch_size": batch_size,
        },
        "environment": environment(),
        "data": {"dataset": source.dataset, "format": source.format},
        "results": {
            "exact_seconds_per_pair": per_pair,
            "features_seconds_per_image": per_image,
            "pairs": pairs,
            "images": train + test,
            "extrapolated_seconds": whole,
            "ratio": whole["exact"] / whole["features"],
        },
    }
    name = f"exact-time-{architecture}-Nystroem{'-'.join(map(str, widths))}"
    write_record(out / f"{name}.json", record)
    print(
        f"exact kernel: {per_pair:.3g} s a pair, {whole['exact']:.3g} s for {pairs:,} pairs\n"
        f"features: {per_image:.3g} s an image, {whole['features']:.3g} s for {train + test:,}\n"
        f"ratio: {record['results']['ratio']:.4g}\nrecord: {out / name}.json"
    )
    return record


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernel_approximation.exact_time",
        description="Time of the exact kernel of all of CIFAR-10 against that of features.",
    )
    parser.add_argument("--architecture", type=one_of(BLOCKS), default="myrtle5", metavar="NAME")
    parser.add_argument("--width", type=count, nargs="+", metavar="M")
    parser.add_argument("--repetitions", type=count, default=5, metavar="N")
    parser.add_argument("--data-dir", metavar="DIR", help="CIFAR-10: official files or packed")
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args(arguments)
    width = None if given.width is None else tuple(given.width)
    if width is not None and len(width) not in (1, sum(BLOCKS[given.architecture])):
        parser.error(f"argument --width: one number, or {sum(BLOCKS[given.architecture])}")
    return exit_code(run, given.architecture, width, given.repetitions, given.data_dir, given.out)


if __name__ == "__main__":
    sys.exit(main())
