"""What a run is asked to do, checked before anything is read."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cifar10._architectures import BLOCKS
from experiments.cifar10._settings import (
    LARGEST,
    count,
    non_negative,
    nonlinearity,
    one_of,
    positive,
    seed,
    up_to,
)

from ._methods import METHODS

OUTPUT = Path(__file__).parent / "output"
LAYERS = tuple(name.removeprefix("myrtle") for name in BLOCKS)


@dataclass(frozen=True)
class Settings:
    """One run; `None` means: decide from the device."""

    layers: str = "5"
    nonlinearity: str = "relu"
    W_std: float = 2**0.5
    b_std: float | None = None
    zca_reg: float = 0.1
    methods: tuple[str, ...] = ("Nystroem", "Nystroem-half-residual", "RandomFeatures")
    widths: tuple[int, ...] = (64, 128, 256)
    seeds: int = 3
    seed: int = 0
    images: int = 24
    train: int = 2_000
    sample: int = 60
    batch_sizes: tuple[int, ...] | None = None
    repetitions: int = 7
    data_dir: str | None = None
    out: Path = OUTPUT

    @property
    def network(self) -> dict[str, Any]:
        """What makes the architecture, but for the shape of its inputs."""
        return {
            "name": f"myrtle{self.layers}",
            "nonlinearity": self.nonlinearity,
            "W_std": self.W_std,
            "b_std": self.b_std,
        }


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line; ends the program with code 2 when they make no sense."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    if given["sample"] > given["train"]:
        parser.error(f"argument --sample: more than the {given['train']:,} training images")
    given["methods"] = tuple(dict.fromkeys(given["methods"]))
    given["widths"] = tuple(sorted(set(given["widths"])))
    if given["batch_sizes"] is not None:
        given["batch_sizes"] = tuple(sorted(set(given["batch_sizes"])))
    return Settings(**given)


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernel_approximation",
        description="Error, speed and memory of feature maps of a Myrtle network against its exact "
        "NNGP and NTK.",
    )
    add = parser.add_argument
    add("--layers", type=one_of(LAYERS), default=default.layers, help=", ".join(LAYERS))
    add("--nonlinearity", type=nonlinearity, default=default.nonlinearity, metavar="NAME[:NUMBERS]")
    add("--W-std", type=positive, default=default.W_std, help="of every layer (default: sqrt 2)")
    add("--b-std", type=non_negative, help="of every layer (default: no bias)")
    add("--zca-reg", type=non_negative, default=default.zca_reg, help="(default: 0.1)")
    methods = f"any of {', '.join(METHODS)} (default: {', '.join(default.methods)})"
    add("--methods", type=one_of(METHODS), nargs="+", default=default.methods, help=methods)
    add("--widths", type=count, nargs="+", default=default.widths, metavar="M")
    add("--seeds", type=count, default=default.seeds, metavar="N", help="number of keys")
    add("--seed", type=seed, default=default.seed, help="seed of the first key")
    images = "first N test images, on which kernels are compared (default: 24)"
    add("--images", type=at_least_two, default=default.images, metavar="N", help=images)
    train = "training images on which the preprocessing is fitted (default: 2,000 or all there are)"
    add("--train", type=up_to(LARGEST["train"]), default=default.train, metavar="N", help=train)
    sample = "training images for methods that look at data (default: 60)"
    add("--sample", type=count, default=default.sample, metavar="N", help=sample)
    sizes = "batch sizes of which the fastest counts"
    add("--batch-sizes", type=count, nargs="+", metavar="N", help=sizes)
    repetitions = "interleaved timings, of which the median counts (default: 7)"
    add("--repetitions", type=count, default=default.repetitions, metavar="N", help=repetitions)
    add("--data-dir", metavar="DIR", help="CIFAR-10: official files or packed pieces")
    add("--out", type=Path, default=OUTPUT, metavar="DIR", help="for results and exact kernels")
    return parser


def at_least_two(text: str) -> int:
    """An argparse type: a number of test images whose kernel can be centred."""
    value = up_to(LARGEST["test"])(text)
    if value < 2:
        raise argparse.ArgumentTypeError("at least 2 needed: one image has no centred kernel")
    return value
