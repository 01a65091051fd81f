"""Finite networks that features of infinitely wide ones are compared with, in Flax."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp
from jaxtyping import Array, Float

from experiments._common._networks import BLOCKS

Images = Float[Array, "n h w c"]


def _drawn(seed: int) -> dict[str, Any]:
    """Options of layers: normal weights of variance 2 over the inputs, by NumPy, since programs of
    random numbers take longer to compile than small networks to train."""
    rng = np.random.default_rng(seed)

    def kernel_init(key, shape, dtype, out_sharding=None):
        return jnp.asarray(rng.normal(0, (2 / math.prod(shape[:-1])) ** 0.5, shape), dtype)

    return {"kernel_init": kernel_init, "rngs": nnx.Rngs(seed)}


class Conv(nnx.Module):
    """3x3 convolution, batch normalisation, nonlinearity."""

    def __init__(
        self,
        channels: int,
        out: int,
        nonlinearity: Callable,
        drawn: dict[str, Any],
        stride: int = 1,
    ):
        options = {"padding": "SAME", "use_bias": False, "strides": (stride, stride)}
        self.conv = nnx.Conv(channels, out, (3, 3), **options, **drawn)
        self.norm = nnx.BatchNorm(out, momentum=0.9, rngs=drawn["rngs"])
        self.nonlinearity = nonlinearity

    def __call__(self, x: Images) -> Images:
        return self.nonlinearity(self.norm(self.conv(x)))


class Myrtle(nnx.Module):
    """The finite network of `experiments._common._networks.myrtle`, as many channels everywhere,
    with batch normalisation."""

    def __init__(self, name: str, shape: tuple[int, int, int], width: int, classes: int, seed: int):
        drawn = _drawn(seed)
        convs, channels = [], shape[-1]
        for block in BLOCKS[name]:
            convs.append([])
            for _ in range(block):
                convs[-1].append(Conv(channels, width, nnx.relu, drawn))
                channels = width
        self.convs = nnx.List([nnx.List(block) for block in convs])
        self.head = nnx.Linear(width, classes, **drawn)

    def __call__(self, x: Images) -> Float[Array, "n k"]:
        for number, block in enumerate(self.convs):
            for conv in block:
                x = conv(x)
            x = x.mean((1, 2)) if number == 2 else nnx.avg_pool(x, (2, 2), (2, 2))
        return self.head(x)


class PatchNet(nnx.Module):
    """The finite network of `experiments._common._networks.patch_net`: filters of norm 1 on patches
    of norm 1, `‖patch‖ exp(2.8 (cosine - 1))`, and features of the grid normalised for the head."""

    EXPONENT = 2.8

    def __init__(self, shape: tuple[int, int, int], width: int, classes: int, seed: int, grid=3):
        self.grid, self.half, drawn = grid, shape[0] // 2, _drawn(seed)
        draw, early = drawn["kernel_init"], max(8, width // 8)
        self.first = nnx.Param(draw(None, (1, 1, shape[-1], early), jnp.float32))
        self.second = nnx.Param(draw(None, (3, 3, early, width), jnp.float32))
        self.norm = nnx.BatchNorm(grid * grid * width, momentum=0.9, rngs=drawn["rngs"])
        self.head = nnx.Linear(grid * grid * width, classes, **drawn)

    def __call__(self, x: Images) -> Float[Array, "n k"]:
        x = _resized(self._layer(x, self.first[...]), self.half)
        x = _resized(self._layer(x, self.second[...]), self.grid)
        return self.head(self.norm(x.reshape(len(x), -1)))

    def _layer(self, x: Images, filters: Float[Array, "a b c d"]) -> Images:
        layout = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        conv = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), **layout)
        squares = jnp.sum(x**2, -1, keepdims=True)
        norms = jnp.sqrt(conv(squares, jnp.ones((*filters.shape[:2], 1, 1), x.dtype)) + 1e-6)
        unit = filters / jnp.sqrt(jnp.sum(filters**2, (0, 1, 2), keepdims=True))
        return norms * jnp.exp(self.EXPONENT * (conv(x, unit) / norms - 1))


def _resized(x: Images, side: int) -> Images:
    return jax.image.resize(x, (len(x), side, side, x.shape[-1]), "linear")


class ResNet(nnx.Module):
    """A small residual network: strided entry to half the side, three stages of twice the channels
    and half the side, each with a residual block; the largest value of each channel, and a head.

    It is the ResNet-9 of DAWNBench at the size that minutes on a CPU allow.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, classes: int, seed: int):
        drawn, side = _drawn(seed), -(-shape[0] // 2)
        conv = partial(Conv, nonlinearity=nnx.gelu, drawn=drawn)
        self.entry = conv(shape[-1], width, stride=2)
        self.stages = nnx.List()
        channels = width
        for number in range(3):
            first = nnx.List() if number == 0 else nnx.List([conv(channels, 2 * channels)])
            channels *= 1 if number == 0 else 2
            self.stages.append(nnx.List([first, conv(channels, channels)]))
            if side == 1:
                break
            side //= 2
        self.head = nnx.Linear(channels, classes, **drawn)

    def __call__(self, x: Images) -> Float[Array, "n k"]:
        x = self.entry(x)
        for number, (first, residual) in enumerate(self.stages):
            if number:
                x = nnx.max_pool(x, (2, 2), (2, 2))
            for conv in first:
                x = conv(x)
            x = x + residual(x)
        return self.head(x.max((1, 2)))


@dataclass(frozen=True)
class Net:
    """A network and how it is trained.

    Attributes:
        recipe: whose preprocessing it has.
        made: called as `made(shape, width, classes, seed)`, shape that of preprocessed images.
        widths: from so many seconds on, so many channels, on two cores.
        rate: the largest learning rate, for batches of 256.
    """

    recipe: str
    made: Callable[..., Any]
    widths: dict[float, int]
    rate: float

    def width(self, seconds: float) -> int:
        return self.widths[max(from_on for from_on in self.widths if from_on <= seconds)]


NETS = {
    "myrtle5": Net("myrtle5", partial(Myrtle, "myrtle5"), {0: 8, 60: 16, 300: 32}, 0.1),
    "patches": Net("patches", PatchNet, {0: 64, 60: 128, 300: 256, 600: 512}, 0.1),
    "resnet": Net("patches", ResNet, {0: 8, 30: 12, 60: 16, 180: 24, 300: 32, 600: 48}, 0.1),
}


def parameters(model: nnx.Module) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
