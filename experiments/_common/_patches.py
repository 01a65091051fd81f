"""Whitened patches in the place of pixels: a part of the feature map, fitted on training images."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

#: Images, and patches of them, that whitening is fitted on at most.
_IMAGES, _PATCHES = 600, 200_000


class WhitenedPatches(eqx.Module):
    """Every pixel becomes its patch, less the patch's own mean and the mean of all, whitened.

    All of it is linear, and one convolution. Patches reach over the border as if the image were
    mirrored there. Coates, Ng and Lee, *An analysis of single-layer networks in unsupervised
    feature learning* (2011).

    Attributes:
        filters: (size, size, channels, d), d = size² channels, size odd.
        bias: (d,).
    """

    filters: Array
    bias: Array

    def __call__(self, images: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        padded = _mirrored_border(images, len(self.filters))
        axes = ("NHWC", "HWIO", "NHWC")
        convolved = jax.lax.conv_general_dilated(
            padded, self.filters, (1, 1), "VALID", dimension_numbers=axes, precision="highest"
        )
        return convolved + self.bias


def fit_patches(
    images: Float[np.ndarray, "n h w c"], *, size: int = 3, reg: float = 0.016, seed: int = 0
) -> WhitenedPatches:
    """ZCA of patches, `V (S + r v)^(-1/2) Vᵀ` with `V S Vᵀ` their covariance and `v` the variance
    of pixels.

    Args:
        images: training images.
        size: side of a patch; odd, and at most that of the images.
        reg: r. Larger, it keeps more of the difference between smooth and rough patches.
        seed: which patches.
    """
    if size % 2 == 0 or not 0 < size <= min(images.shape[1:3]):
        raise ValueError(
            f"patches have an odd side, at most that of the images {images.shape[1:3]}; got {size}."
        )
    rng = np.random.default_rng(seed)
    few = jnp.asarray(images[:_IMAGES])
    patches = np.asarray(_centred(few, size)).reshape(-1, size * size * images.shape[-1])
    patches = patches[rng.permutation(len(patches))[:_PATCHES]].astype(np.float64)
    mean, covariance = patches.mean(0), np.cov(patches.T)
    values, vectors = np.linalg.eigh(covariance)
    scales = (np.maximum(values, 0.0) + reg * float(np.var(few)) + np.finfo(float).tiny) ** -0.5
    whitening = (vectors * scales) @ vectors.T
    filters = (whitening - whitening.mean(0)).reshape(size, size, images.shape[-1], -1)
    return WhitenedPatches(
        jnp.asarray(filters, few.dtype), jnp.asarray(-mean @ whitening, few.dtype)
    )


@functools.partial(jax.jit, static_argnums=1)
def _centred(images: Array, size: int) -> Array:
    """The patch around every pixel (n, h, w, size² c), less its mean."""
    height, width = images.shape[1:3]
    padded = _mirrored_border(images, size)
    patches = jnp.concatenate(
        [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)], -1
    )
    return patches - patches.mean(-1, keepdims=True)


def _mirrored_border(images: Array, size: int) -> Array:
    around = size // 2
    return jnp.pad(images, ((0, 0), (around, around), (around, around), (0, 0)), mode="reflect")
