"""Widths of the patch net that end within a number of seconds, from rates measured on the spot."""

import os
from collections.abc import Callable

import jax
import numpy as np

from experiments._common._measure import interleaved_seconds, large_product

#: Widths, each with about twice the cost of the one before.
LADDER = ((16, 256), (32, 512), (32, 1024), (32, 1536), (48, 2048), (64, 2560))

_FIXED = 30.0  # seconds: reading, compiling, fitting the map
# Shares of a matrix product's rate: of the map, of the Gram matrix, and in float64 of factors.
_MAP, _GRAM, _FACTORS = 0.35, 0.7, 0.5
LEFT_OUT = 5000  # training images whose accuracy chooses a regulariser
_VALUES = 5  # of the regulariser: three, and two that the path goes on by
_COPIES = 4.5  # of the Gram matrix in float64, at the peak


def widths_within(
    seconds: float,
    images: int,
    train: int,
    shape: tuple[int, int, int],
    *,
    grid: int,
    views: int,
    rank: int | None,
) -> tuple[int, int]:
    """The last of `LADDER` whose estimate is within `seconds` and the machine's memory.

    Args:
        images: training and test images together, `train` of them for training.
        shape: of an image.
        views: of each image, that features are averaged over.
        rank: of patches before their products with landmarks.

    Raises:
        ValueError: not even the first is; the message has its estimate.
    """
    rate, rate64 = _rate(), _host_rate()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    positions = shape[0] * shape[1]

    def estimate(widths: tuple[int, int]) -> float:
        first, last = widths
        p = grid * grid * last
        patch = 9 * first
        products = patch * last if rank is None else min(rank * (patch + last), patch * last)
        view = positions * 9 * shape[2] * first + positions // 4 * products + p * last
        features = 2 * view * views * images / (_MAP * rate)
        gram = train * p**2 / (_GRAM * rate)
        factor = p**3 / 3 + LEFT_OUT * p**2
        return _FIXED + features + gram + _VALUES * factor / (_FACTORS * rate64)

    def fits(widths: tuple[int, int]) -> bool:
        return _COPIES * 8 * (grid * grid * widths[1]) ** 2 <= memory

    possible = [widths for widths in LADDER if estimate(widths) <= seconds and fits(widths)]
    if not possible:
        raise ValueError(
            f"a budget of {seconds:.0f} seconds is too small: widths {LADDER[0]} need about"
            f" {estimate(LADDER[0]):.0f} on this machine for {images:,} images. Give more, or fewer"
            " images with --train and --test"
        )
    return possible[-1]


def _rate() -> float:
    """FLOPs a second of a matrix product on the device, in full precision as maps have it."""
    with jax.default_matmul_precision("highest"):
        return _flops_per_second(*large_product())


def _host_rate() -> float:
    """The same of NumPy in float64."""
    matrix = np.ones((2048, 2048))
    return _flops_per_second(lambda: matrix @ matrix, 2 * len(matrix) ** 3)


def _flops_per_second(product: Callable[[], object], flops: int) -> float:
    product()
    return flops / min(interleaved_seconds({"": product}, 3)[""])
