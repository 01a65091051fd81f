"""Choosing the positions of a sample that become landmarks."""

import functools
import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
from jax import numpy as jnp

from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures
from ..numerics._linalg import eigvalsh, in_float64, namespace, quadratic_forms
from ..numerics._pivoted_cholesky import randomly_pivoted
from ..numerics._precision import float64
from ._survey import Kernel, Survey, kernel_of

Sampling: TypeAlias = Literal["leverage", "pivoted", "diagonal", "uniform"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)

#: Those that look at kernel values of pairs of positions.
OF_KERNELS: tuple[str, ...] = ("leverage", "pivoted")

#: Leverage scores and pivots are computed for this many positions, or 16 per landmark if more.
_POOL = 4096

#: Pivots are drawn in about this number of blocks.
_BLOCKS = 8


def sample_positions(
    dual: DualKernels,
    features: HiddenFeatures,
    survey: Survey,
    count: int,
    sampling: Sampling,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` of the survey's usable positions, chosen by `sampled`."""

    kernel = functools.partial(kernel_of, dual, features, survey)
    eps = float(jnp.finfo(survey.q.dtype).eps)
    return sampled(survey.usable, survey.diagonal, kernel, count, sampling, eps, rng)


def sampled(
    usable: np.ndarray,
    diagonal: np.ndarray,
    kernel_of: Callable[[np.ndarray, int], Kernel],
    count: int,
    sampling: Sampling,
    eps: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` of the usable positions, without replacement.

    Args:
        diagonal: of the kernel at all positions.
        kernel_of: `kernel_of(pool, columns)` returns the kernel of positions `pool` as a function
            of indices into them, computed for this number of columns at a time.
        sampling: probability proportional to 1 ("uniform"), to the diagonal `k(x, x)` ("diagonal":
            Drineas and Mahoney 2005), to ridge leverage scores ("leverage"), or, one after the
            other, to the residual diagonal ("pivoted").
        eps: that of the dtype of the kernel's values.
    """
    if sampling == "uniform":
        return rng.choice(usable, count, replace=False)
    if sampling == "diagonal":
        return weighted_sample(usable, diagonal[usable], count, rng)
    pool = rng.permutation(usable)[: max(_POOL, 16 * count)]
    values = diagonal[pool]
    if not values.any():  # the zero kernel: any landmarks will do
        return pool[:count]
    if sampling == "leverage":
        scores = ridge_leverage_scores(kernel_of(pool, count), values, count, rng)
        return weighted_sample(pool, scores, count, rng)
    block = math.ceil(count / _BLOCKS)
    found = randomly_pivoted(kernel_of(pool, block), values, count, block, eps, rng)
    if len(found) < count:  # all others are in the span of these, up to rounding
        left = np.setdiff1d(np.arange(len(pool)), found)
        found = np.append(found, weighted_sample(left, values[left], count - len(found), rng))
    return pool[found]


def weighted_sample(items: np.ndarray, weights: np.ndarray, count: int, rng) -> np.ndarray:
    """`count` items without replacement, one after the other with probability ∝ weight.

    By exponential keys (Efraimidis and Spirakis 2006). Items of weight 0 come last.
    """
    with np.errstate(divide="ignore"):
        keys = rng.standard_exponential(len(items)) / np.maximum(weights, 0.0)
    return items[np.argsort(keys, kind="stable")[:count]]


def ridge_leverage_scores(
    kernel: Kernel,
    diagonal: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Approximate ridge leverage scores of a kernel matrix `K` (n, n), for `count` landmarks.

    The score of point i is `(K (K + λI)⁻¹)_ii`. The recursion takes a uniform half of the points,
    computes their scores the same way, draws landmarks with weights `S` from these, and estimates
    the scores of all points by

        l_i = (K - K S (SᵀKS + λI)⁻¹ SᵀK)_ii / λ.

    λ is the sum of all eigenvalues after the first `k = count / (4 log count)`, divided by k. If a
    level draws k landmarks or fewer, uniform ones replace them.

    Args:
        kernel: gives the entries of `K` at arrays of row and column indices, in NumPy or on a GPU.
        diagonal: of `K` (n,).
        count: number of landmarks.
        rng: of NumPy.

    Cost: O(n count) kernel values and O(n count²) FLOPs at each of the log₂(n / count) levels.

    Source: Musco and Musco, *Recursive Sampling for the Nyström Method* (NeurIPS 2017, arXiv
    1605.07583), algorithm 3 with the number of landmarks fixed.
    """
    n = len(diagonal)
    order = rng.permutation(n)
    oversampling = max(math.log(count), 1.0)
    rank = math.ceil(count / (4 * oversampling))
    least = max(count, rank + 1)
    sizes = [n]
    while sizes[-1] > least:
        sizes.append(math.ceil(sizes[-1] / 2))
    place = np.argsort(order)  # positions in `order`; each level uses a prefix of it
    chosen, weights = order[: sizes[-1]], np.ones(sizes[-1])
    scores = np.ones(n)
    for size in reversed(sizes[:-1]):
        points = order[:size]
        values = kernel(points, chosen)
        with float64():
            inner = in_float64(values[place[chosen]])
            weighted = weights[:, None] * inner * weights[None, :]
            eigenvalues = eigvalsh(weighted)
            left = max(float(weighted.trace()) - eigenvalues[::-1][:rank].sum(), 0.0)
            ridge = max(left / rank, 1e-6 * diagonal.max())
            inverse = namespace(inner).linalg.inv(inner + np.diag(ridge / weights**2))
        explained = quadratic_forms(values, inverse)
        scores = np.clip((diagonal[points] - explained) / ridge, 0.0, None)
        if size < n:
            scores = np.minimum(oversampling * scores, 1.0)
            picked = np.flatnonzero(rng.random(size) < scores)
            if len(picked) <= rank:  # too few to estimate the eigenvalues after the first k
                picked = rng.choice(size, min(least, size), replace=False)
                scores = np.full(size, min(least, size) / size)
            chosen, weights = points[picked], scores[picked] ** -0.5
    result = np.empty(n)
    result[order] = np.minimum(scores, 1.0)
    return result
