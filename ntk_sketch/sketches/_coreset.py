"""Coresets: a few weighted points that represent many."""

from typing import NamedTuple

import numpy as np
import scipy  # whose modules are imported where they are used
from jaxtyping import Float, Int

from .._arguments import checked_integer
from .._typing import Inputs


class Coreset(NamedTuple):
    """The result of `greedy_coreset`: m of n points, the centres of clusters.

    Attributes:
        indices: of the centres (m,).
        weights: the number of points nearest to each centre (m,), with sum n.
        radius: the largest distance of a point to its centre.
    """

    indices: Int[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    radius: float


def greedy_coreset(points: Float[Inputs, "n d"], size: int) -> Coreset:
    """Chooses at most `size` centres, each the point farthest from those before it.

    Use this to fit a kernel's coefficients on a few representative points. The first centre is the
    first point. The largest distance of a point to its centre is at most twice the smallest that
    any `size` centres allow (Gonzalez 1985). Duplicates are not chosen twice.

    Args:
        points: (n, d), for example unit vectors, whose cosines are the kernel's arguments.
        size: m. Raise it for a smaller `radius`.

    Raises:
        ValueError: there are no points, points are not finite, or the size is below 1.
        TypeError: complex points; a size that is not an integer.

    Cost: `2 n m d` FLOPs, memory n numbers.

    Source: Han, Avron and Shin 2020 (arXiv 1905.11616), greedy k-centre coreset.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.sketches import greedy_coreset
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> chosen = greedy_coreset(x, 10)
        >>> len(chosen.indices), round(float(chosen.weights.sum()))
        (10, 100)
    """
    if np.iscomplexobj(points):
        raise TypeError(f"points must be real, got {np.asarray(points).dtype}")
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or len(points) == 0 or not np.isfinite(points).all():
        raise ValueError(f"points must be a finite matrix with rows, got shape {points.shape}")
    size = checked_integer(size, "size")
    centres, distance = [], np.full(len(points), np.inf)
    nearest = np.zeros(len(points), int)
    farthest = 0
    while len(centres) < size and distance[farthest] > 0:
        new = scipy.spatial.distance.cdist(points[farthest : farthest + 1], points)[0]
        nearest = np.where(new < distance, len(centres), nearest)
        distance = np.minimum(distance, new)
        centres.append(farthest)
        farthest = int(np.argmax(distance))
    weights = np.bincount(nearest, minlength=len(centres)).astype(np.float64)
    return Coreset(np.array(centres), weights, float(distance[farthest]))
