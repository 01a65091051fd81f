"""Networks for images: Myrtle networks, a wide residual one, and a shallow one on patches."""

from collections.abc import Callable
from typing import Any

from ntk_sketch import stax

# Of Shankar et al., Neural kernels without tangents (2020).
# Convolutions in each of the three blocks; with the Dense head they make 5, 7 and 10 layers. Each
# block ends with a 2x2 average pool, the last one with as many as bring the image to one pixel.
BLOCKS = {"myrtle5": (2, 1, 1), "myrtle7": (2, 2, 2), "myrtle10": (3, 3, 3)}

NETWORKS = (*BLOCKS, "wideresnet10")

ACTIVATIONS: dict[str, Callable[..., stax.Layer]] = {
    "abrelu": stax.ABRelu,
    "abs": stax.Abs,
    "cos": stax.Cos,
    "erf": stax.Erf,
    "exp": stax.Exp,
    "expnormalized": stax.ExpNormalized,
    "gabor": stax.Gabor,
    "gaussian": stax.Gaussian,
    "gelu": stax.Gelu,
    "leakyrelu": stax.LeakyRelu,
    "monomial": stax.Monomial,
    "polynomial": lambda *coefficients: stax.Polynomial(coefficients),
    "rbf": stax.Rbf,
    "rectifiedmonomial": stax.RectifiedMonomial,
    "relu": stax.Relu,
    "sigmoid_like": stax.Sigmoid_like,
    "sign": stax.Sign,
    "sin": stax.Sin,
}


def activation(text: str) -> stax.Layer:
    """A nonlinearity by name, with numbers for its arguments after a colon: `leakyrelu:0.1`.

    Raises:
        ValueError: an unknown name, or arguments that the layer does not take.
    """
    name, _, numbers = text.lower().partition(":")
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown name {name!r}; known: {', '.join(ACTIVATIONS)}")
    try:
        arguments = [_number(word) for word in numbers.split(",")] if numbers else []
        return ACTIVATIONS[name](*arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{text}: {error}. Numbers go after a colon, such as leakyrelu:0.1 or monomial:2"
        ) from error


def _number(word: str) -> int | float:
    return int(word) if word.strip().lstrip("+-").isdecimal() else float(word)


def myrtle(
    name: str,
    shape: tuple[int, int, int],
    *,
    nonlinearity: str = "relu",
    W_std: float = 2**0.5,
    b_std: float | None = None,
    classes: int = 10,
) -> stax.Layer:
    """A Myrtle network for images of `shape` (height, width, channels).

    3x3 SAME convolutions, each followed by the nonlinearity, and 2x2 average pools. On images
    smaller than 32x32 the last block has fewer pools (on the 8x8 digits one instead of three).

    Args:
        name: a key of `BLOCKS`.
        shape: height and width are powers of two from 8 on.
        nonlinearity: as `activation` takes it.
        W_std, b_std: of every convolution and of the head. √2 keeps the variance of a ReLU net.
        classes: outputs of the head (the kernel does not depend on it).
    """
    side = shape[0]
    if shape[0] != shape[1] or side < 8 or side & (side - 1):
        raise ValueError(
            f"Myrtle networks take square images whose side is a power of two, at least 8; "
            f"got {shape[0]}x{shape[1]}."
        )
    layers = []
    for block, convolutions in enumerate(BLOCKS[name]):
        for _ in range(convolutions):
            # The channel count is that of the finite network; kernel and features ignore it.
            layers.append(stax.Conv(1, (3, 3), W_std=W_std, b_std=b_std, padding="SAME"))
            layers.append(activation(nonlinearity))
        pools = side.bit_length() - 1 if block == 2 else 1
        layers += [stax.AvgPool((2, 2), strides=(2, 2)) for _ in range(pools)]
        side >>= pools
    return stax.serial(*layers, stax.Flatten(), stax.Dense(classes, W_std=W_std, b_std=b_std))


def wide_resnet10(
    shape: tuple[int, int, int],
    *,
    nonlinearity: str = "relu",
    W_std: float = 2**0.5,
    b_std: float | None = None,
    classes: int = 10,
) -> stax.Layer:
    """WideResNet-10-1 as the examples of Neural Tangents have it: a convolution and three residual
    blocks of two, the second and the third at half the side each, and an average of what is left.

    Args:
        shape: (height, width, channels), sides divisible by four.
        nonlinearity, W_std, b_std, classes: as those of `myrtle`.
    """
    if shape[0] % 4 or shape[1] % 4:
        raise ValueError(
            "WideResNet-10 takes images whose sides are divisible by four; got"
            f" {shape[0]}x{shape[1]}."
        )

    def conv(strides=(1, 1)):
        return stax.Conv(1, (3, 3), strides, "SAME", W_std, b_std)

    layers = [conv()]
    for strides in ((1, 1), (2, 2), (2, 2)):
        main = stax.serial(
            activation(nonlinearity), conv(strides), activation(nonlinearity), conv()
        )
        layers += [stax.FanOut(2), stax.parallel(main, conv(strides)), stax.FanInSum()]
    layers += [stax.AvgPool((shape[0] // 4, shape[1] // 4)), stax.Flatten()]
    return stax.serial(*layers, stax.Dense(classes, W_std=W_std, b_std=b_std))


def network(name: str, shape: tuple[int, int, int], **options: Any) -> stax.Layer:
    """One of `NETWORKS` by its name, with the options of its function."""
    if name == "wideresnet10":
        return wide_resnet10(shape, **options)
    return myrtle(name, shape, **options)


def patch_net(
    shape: tuple[int, int, int],
    *,
    nonlinearity: str = "expnormalized:2.8",
    grid: int = 3,
    W_std: float = 1.0,
    b_std: float | None = None,
    classes: int = 10,
) -> stax.Layer:
    """Two nonlinearities on patches, with a blur to half the side between them and to a grid after.

    With the normalised exponential kernel this is the convolutional kernel network of Mairal, *End-
    to-end kernel learning with supervised convolutional kernel networks* (2016), on its infinitely
    wide side.

    Args:
        shape: of what enters, (height, width, channels): patches as channels.
        nonlinearity: as `activation` takes it.
        grid: positions along each side that a regression sees; at most half the side.
        W_std, b_std: of every layer. Normalised and homogeneous nonlinearities make `W_std` a scale
            of the whole kernel.
        classes: outputs of the head (the kernel does not depend on it).
    """
    half = shape[0] // 2
    if not 0 < grid <= half:
        raise ValueError(
            f"a grid of {grid}x{grid} positions is finer than the {half}x{half} positions of the"
            f" last nonlinearity on {shape[0]}x{shape[1]} images; give at most {half}."
        )
    options = {"W_std": W_std, "b_std": b_std}
    return stax.serial(
        stax.Dense(1, **options),
        activation(nonlinearity),
        stax.ImageResize((-1, half, half, -1), "linear"),
        stax.Conv(1, (3, 3), padding="SAME", **options),
        activation(nonlinearity),
        stax.ImageResize((-1, grid, grid, -1), "linear"),
        stax.Flatten(),
        stax.Dense(classes, **options),
    )
