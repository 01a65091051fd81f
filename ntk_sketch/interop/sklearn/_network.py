"""The model and method that belong to the parameters of an estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ... import stax
from ..._arguments import checked_choice, checked_integer
from ..._typing import Array
from ...methods import (
    Gegenbauer,
    LeverageScore,
    Method,
    Nystroem,
    PolySketch,
    RandomFeatures,
)
from ...stax import Layer

#: `n_components` where it is None.
WIDTH = 1024

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "abs": stax.Abs,
    "erf": stax.Erf,
    "gelu": stax.Gelu,
    "leaky_relu": lambda: stax.LeakyRelu(0.1),
    "relu": stax.Relu,
    "sigmoid": stax.Sigmoid_like,
    "sin": stax.Sin,
}
METHODS: dict[str, Callable[..., Method]] = {
    "gegenbauer": Gegenbauer,
    "leverage_score": LeverageScore,
    "nystroem": Nystroem,
    "poly_sketch": PolySketch,
    "random_features": RandomFeatures,
}


class Images(eqx.Module):
    """Reshapes rows of pixels to images (height, width, channels)."""

    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        return jnp.reshape(x, (x.shape[0], *self.shape))


def network_of(
    depth: Any, activation: Any, W_std: Any, b_std: Any, image_shape: tuple[int, ...] | None
) -> Layer:
    """A net of `depth` hidden layers, fully connected or of 3x3 convolutions for images.

    Each convolution is followed by a mean over 2x2 pixels while images have at least 4 pixels a
    side.
    """
    depth = checked_integer(depth, "depth")
    if isinstance(activation, str):
        activation = ACTIVATIONS[checked_choice(activation, "activation", tuple(ACTIVATIONS))]
    elif not callable(activation) or isinstance(activation, Layer):
        raise TypeError(
            f"activation={activation!r}; needed: one of {tuple(ACTIVATIONS)}, or what makes a layer"
            " of `ntk_sketch.stax`, such as stax.Erf"
        )
    layers: list[Layer] = []
    if image_shape is None:
        for _ in range(depth):
            layers += [stax.Dense(1, W_std, b_std), activation()]
    else:
        side = min(image_shape[:2])
        for _ in range(depth):
            layers += [stax.Conv(1, (3, 3), padding="SAME", W_std=W_std, b_std=b_std), activation()]
            if side >= 4:
                layers.append(stax.AvgPool((2, 2), (2, 2)))
                side //= 2
        layers.append(stax.Flatten())
    return stax.serial(*layers, stax.Dense(1, W_std, b_std))


def method_of(method: Any, n_components: Any, vectors: bool, distinct: int | None) -> Method:
    """The method of this name or object.

    Args:
      n_components: width, or None.
      vectors: whether the net takes vectors and none of its layers has its own method.
      distinct: number of different rows of a small table, or None.
    """
    if isinstance(method, Method):
        return method
    if n_components is not None:
        checked_integer(n_components, "n_components")
    if not isinstance(method, str):
        raise TypeError(
            f"method={method!r}; needed: one of {tuple(METHODS)}, or a method of ntk_sketch, such"
            " as ns.Nystroem((64, 1024))"
        )
    checked_choice(method, "method", tuple(METHODS))
    if method == "nystroem" and vectors:
        return Nystroem(n_components or distinct or WIDTH, scope="network")
    return METHODS[method](n_components or WIDTH)


def image_shape_of(image_shape: Any, n_features: int) -> tuple[int, ...] | None:
    if image_shape is None:
        return None
    shape = tuple(checked_integer(size, "image_shape") for size in image_shape)
    size = 1
    for length in shape:
        size *= length
    if len(shape) != 3 or size != n_features:
        raise ValueError(
            f"image_shape={image_shape!r}, but rows have {n_features} columns; needed: (height,"
            " width, channels) whose product is the number of columns"
        )
    return shape
