"""What a run is asked to do, checked before anything is read."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from experiments._common._arguments import (
    LARGEST,
    count,
    duration,
    listed,
    non_negative,
    nonlinearity,
    one_of,
    positive,
    seed,
    up_to,
)
from experiments._common._networks import ACTIVATIONS
from experiments._common._preprocess import Steps

from ._methods import METHODS
from ._recipes import RECIPES

SELECT = ("accuracy", "gcv", "loo", "validation")
KERNELS = ("ntk", "nngp")
OUTPUT = Path(__file__).parent / "output"


@dataclass(frozen=True)
class Settings:
    """One run; `None` means: decide from the data and the device."""

    recipe: str = "patches"
    activation: str | None = None
    grid: int = 3
    W_std: float = 2**0.5
    b_std: float | None = None
    kernel: str | None = None
    method: str = "Nystroem"
    width: tuple[int, ...] | None = None
    rank: int | None = None
    budget: float | None = None
    train: int | None = None
    test: int | None = None
    flip: bool | None = None
    preprocessing: Steps = field(default_factory=Steps)
    diag_reg: tuple[float, ...] | None = None
    select: str | None = None
    batch_size: int | None = None
    seed: int = 0
    data_dir: str | None = None
    digits: bool = False
    out: Path = OUTPUT


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line; ends the program with code 2 when they make no sense."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    zca, zca_reg = given.pop("zca"), given.pop("zca_reg")
    steps = Steps(given.pop("standardise"), given.pop("layer_norm"), zca_reg if zca else None)
    if given["width"] is not None:
        widths, nonlinearities = tuple(given["width"]), RECIPES[given["recipe"]].nonlinearities
        if len(widths) not in (1, nonlinearities):
            parser.error(
                f"argument --width: {len(widths)} numbers for {nonlinearities} nonlinearities of"
                f" {given['recipe']}; give one, or one for each"
            )
        given["width"] = widths
    if given["budget"] is not None and (given["width"] or given["recipe"] != "patches"):
        parser.error(
            "argument --budget: chooses the widths of --recipe patches; give it without --width and"
            " with no other recipe"
        )
    if given["rank"] is not None and given["method"] != "Nystroem":
        parser.error(f"argument --rank: of Nystroem alone, not of --method {given['method']}")
    if given["diag_reg"] is not None:
        given["diag_reg"] = tuple(sorted(set(given["diag_reg"])))
    if given["digits"] and given["data_dir"] is not None:
        parser.error("argument --digits: --data-dir names other images; give one of the two")
    if given["train"] == 1 and given["select"] == "validation":
        parser.error("argument --select: validation needs at least two training images")
    return Settings(preprocessing=steps, **given)


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.cifar10",
        description="Convolutional kernel regression on CIFAR-10 with features of infinitely wide "
        "networks.",
    )

    def choice(group, flag: str, known, fallback: str | None) -> None:
        text = f"{listed(known)} (default: {fallback or 'that of the recipe'})"
        group.add_argument(flag, type=one_of(known), default=fallback, metavar="NAME", help=text)

    model = parser.add_argument_group("kernel")
    choice(model, "--recipe", RECIPES, default.recipe)
    model.add_argument(
        "--activation",
        type=nonlinearity,
        metavar="NAME[:NUMBERS]",
        help=f"{listed(ACTIVATIONS)}; arguments after a colon, as in leakyrelu:0.1 "
        "(default: that of the recipe)",
    )
    model.add_argument(
        "--grid",
        type=count,
        default=default.grid,
        metavar="G",
        help="patches: positions along a side that the regression sees (default: 3)",
    )
    model.add_argument(
        "--W-std", type=positive, default=default.W_std, help="of every layer (default: sqrt 2)"
    )
    model.add_argument("--b-std", type=non_negative, help="of every layer (default: no bias)")
    choice(model, "--kernel", KERNELS, default.kernel)
    choice(model, "--method", METHODS, default.method)
    model.add_argument(
        "--width",
        type=count,
        nargs="+",
        metavar="M",
        help="features per nonlinearity: one number, or one for each nonlinearity",
    )
    model.add_argument(
        "--rank",
        type=count,
        metavar="R",
        help="Nystroem: principal directions that patches are projected on before landmarks"
        " (default: that of the recipe)",
    )
    model.add_argument(
        "--budget",
        type=duration,
        metavar="TIME",
        help="patches: the widths that end within 300, 5m or 1h, by this machine's rates",
    )

    data = parser.add_argument_group("data")
    data.add_argument("--data-dir", metavar="DIR", help="CIFAR-10: official files or packed pieces")
    data.add_argument(
        "--digits", action="store_true", help="scikit-learn's 8x8 digits, not CIFAR-10: a quick try"
    )
    for split, images in (("train", "training"), ("test", "test")):
        data.add_argument(
            f"--{split}", type=up_to(LARGEST[split]), metavar="N", help=f"first N {images} images"
        )
    data.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average features over an image and its mirror image (default: that of the recipe)",
    )
    for step in ("standardise", "layer-norm", "zca"):
        data.add_argument(
            f"--{step}",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="of whole images, in the recipes of Myrtle networks",
        )
    data.add_argument(
        "--zca-reg", type=non_negative, default=0.1, help="relative to the mean (default: 0.1)"
    )

    ridge = parser.add_argument_group("regression")
    ridge.add_argument(
        "--diag-reg",
        type=non_negative,
        nargs="+",
        metavar="R",
        help="candidates, relative to the mean squared norm of the features; several go on by their"
        " own ratio if the best is the first or the last (default: those of the recipe)",
    )
    ridge.add_argument(
        "--select",
        type=one_of(SELECT),
        metavar="NAME",
        help=f"how diag_reg is chosen, on training data: {listed(SELECT)}; accuracy: of 5,000"
        " images that are left out, one at a time (default: that of the recipe)",
    )
    ridge.add_argument("--batch-size", type=count, help="default: from a memory budget")
    ridge.add_argument("--seed", type=seed, default=default.seed)
    ridge.add_argument("--out", type=Path, default=OUTPUT, metavar="DIR", help="for the results")
    return parser
