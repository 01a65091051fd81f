"""Transforms of examples that a map can be averaged over."""

from .._typing import Array


def mirrored(images: Array) -> Array:
    """Mirrors images (n, height, width, channels) left to right.

    Use this with `FeatureMap.averaged` when labels do not change under mirroring.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.maps import mirrored
        >>> mirrored(np.arange(3).reshape(1, 1, 3, 1))[0, 0, :, 0].tolist()
        [2, 1, 0]
    """
    return images[..., ::-1, :]
