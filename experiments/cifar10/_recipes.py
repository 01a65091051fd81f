"""What `--recipe` names: a network, what is done to images before it, and sizes that fit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments._common._networks import BLOCKS, myrtle, patch_net
from experiments._common._patches import fit_patches
from experiments._common._preprocess import Steps, fit
from ntk_sketch import stax


@dataclass(frozen=True)
class Size:
    """Defaults that depend on the device."""

    train: int
    test: int
    widths: tuple[int, int, int]  # of the early nonlinearities, the last but one, the last
    batch_bytes: int | None = None  # None: what `FeatureMap.batch_size` takes itself
    rank: int | None = None  # of `Nystroem`; None: all directions


@dataclass(frozen=True)
class Recipe:
    """A network and its defaults.

    Attributes:
        nonlinearities: how many widths a schedule has.
        activation, kernel, flip, diag_reg, select: defaults of the settings of these names.
        sizes: defaults on "cpu" and on "gpu".
        model: called as `model(shape, nonlinearity=, grid=, W_std=, b_std=, classes=)`.
        prepared: from training images, test images and steps to both as inputs of the map, and
            what the map itself does before its network, or `None`.
    """

    nonlinearities: int
    activation: str
    kernel: str
    flip: bool
    diag_reg: tuple[float, ...]
    select: str
    sizes: dict[str, Size]
    model: Callable[..., stax.Layer]
    prepared: Callable[[np.ndarray, np.ndarray, Steps], tuple[np.ndarray, np.ndarray, Any]]


def _whitened_images(images: np.ndarray, test_images: np.ndarray, steps: Steps):
    preprocessing = fit(images, steps)
    return preprocessing(images), preprocessing(test_images), None


def _whitened_patches(images: np.ndarray, test_images: np.ndarray, steps: Steps):
    del steps  # of whole images
    scale = np.float32(1 / max(int(images.max(initial=1)), 1))
    x, x_test = (part.astype(np.float32) * scale for part in (images, test_images))
    return x, x_test, fit_patches(x)


# Sizes on the CPU are those that end within minutes on two cores; README.md has the measures.
# The patch net has 9 features p for each of its last width, and a factor of its Gram matrix costs
# p³ / 3 FLOPs in float64.
_MYRTLE = {
    "cpu": Size(15_000, 2_000, (64, 128, 1024)),
    "gpu": Size(50_000, 10_000, (512, 512, 2048), 2**33),
}


def _powers(first: int, stop: int) -> tuple[float, ...]:
    """Of √10."""
    return tuple(10.0 ** (k / 2) for k in range(first, stop))


def _myrtle(name: str) -> Recipe:
    def model(shape, grid, **options) -> stax.Layer:
        del grid  # pooled to one position
        return myrtle(name, shape, **options)

    path = _powers(-12, 1)  # few features: one decomposition serves them all
    return Recipe(
        nonlinearities=sum(BLOCKS[name]),
        activation="relu",
        kernel="ntk",
        flip=False,
        diag_reg=path,
        select="gcv",
        sizes=_MYRTLE,
        model=model,
        prepared=_whitened_images,
    )


RECIPES: dict[str, Recipe] = {
    "patches": Recipe(
        nonlinearities=2,
        activation="expnormalized:2.8",
        kernel="nngp",
        flip=True,
        # Thousands of features: each value costs a factor. Where 1e-4 is best the path goes on, if
        # less stands out of rounding: a value that does not costs all eigenvalues.
        diag_reg=_powers(-8, -6),
        select="accuracy",
        sizes={
            "cpu": Size(50_000, 10_000, (32, 32, 1536), 2**28, rank=96),
            "gpu": Size(50_000, 10_000, (256, 256, 1536), 2**33),
        },
        model=patch_net,
        prepared=_whitened_patches,
    )
} | {name: _myrtle(name) for name in BLOCKS}
