"""Choosing the positions of a sample that become landmarks."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jax import numpy as jnp

from .._typing import Array, Inputs
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures
from ..numerics._compiling import fitting_jit
from ..numerics._linalg import (
    eigvalsh,
    in_float64,
    in_place,
    is_finite,
    namespace,
    quadratic_forms,
    stacked,
)
from ..numerics._pivoted_cholesky import randomly_pivoted
from ..numerics._precision import USE_FLOAT64, float64, matmul

Sampling: TypeAlias = Literal["leverage", "pivoted", "diagonal", "uniform"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)

#: Those that look at kernel values of pairs of positions.
OF_KERNELS: tuple[str, ...] = ("leverage", "pivoted")

#: Leverage scores and pivots are computed for this many positions, or 16 per landmark if more.
_POOL = 4096

#: Pivots are drawn in about this number of blocks.
_BLOCKS = 8

Kernel: TypeAlias = Callable[[np.ndarray, np.ndarray], Inputs]

#: Kernel values are computed for this many rows at a time, or as many as landmarks if more.
_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Survey:
    """All positions of a sample before a nonlinearity, on the host.

    Attributes:
        q: exact variances (N,).
        diagonal: of the kernel (N,), `k_σ(x, x)`.
        usable: flat indices of the positions that can be landmarks: those with variance above 0
            (for a whole net, a kernel above 0), one of several equal ones.
        kernel: of all positions (N, N), in the dtype of the features, or `None`.
    """

    q: np.ndarray
    diagonal: np.ndarray
    usable: np.ndarray
    kernel: Inputs | None = None


def surveyed(dual: DualKernels, features: HiddenFeatures, *, whole: bool = False) -> Survey:
    """The survey of a sample before a nonlinearity, with equal positions found by `distinct`.

    Args:
        whole: compute the kernel of all positions, if they are few, in the same program.
    """
    vectors, dtype = features.nngp_vectors(), features.nngp[0].dtype
    whole = whole and features.nngp[0].shape[0] * math.prod(vectors.space) <= _ROWS
    projections = np.random.default_rng(0).normal(size=(vectors.dimension, 3)).astype(dtype)
    *found, kernel = _survey(dual, features, projections, whole)
    directions, q, diagonal = map(np.asarray, found)
    smallest = jnp.finfo(q.dtype).tiny
    zeros = dual.sees_zero & (diagonal > smallest / jnp.finfo(q.dtype).eps)
    usable = np.flatnonzero((q > 0) | zeros)
    usable = usable[distinct(directions[usable], q[usable])]
    return Survey(q, diagonal.astype(np.float64), usable, kernel)


def distinct(directions: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Indices of distinct positions, one of several equal ones.

    Positions are equal if their variances `q` (N,), and random projections (N, k) of their vectors'
    directions, agree to √eps. They are compared by the cells of a grid. Rounding may put an equal
    pair into two neighbouring cells, but hardly in both of two shifted grids.
    """
    smallest = jnp.finfo(q.dtype).tiny
    coordinates = np.concatenate([directions, np.log(np.maximum(q, smallest))[:, None]], axis=1)
    cells = coordinates.astype(np.float64) / float(jnp.finfo(q.dtype).eps) ** 0.5
    kept = np.arange(len(q))
    for shift in (0.0, 0.5):
        rounded = np.floor(cells[kept] + shift).astype(np.int64)
        _, first = np.unique(rounded, axis=0, return_index=True)
        kept = kept[np.sort(first)]
    return kept


@fitting_jit
def _survey(
    dual: DualKernels, features: HiddenFeatures, matrix: Inputs, whole: bool
) -> tuple[Array, Array, Array, Array | None]:
    """For every position: its direction times `matrix` (N, 3), its variance (N,) and the kernel's
    diagonal (N,); with `whole` the kernel of all positions (N, N).
    """
    variances, vectors = features.variances, features.nngp_vectors()
    q = variances.diagonal(variances.same).reshape(-1)
    projected = vectors.project(matrix).reshape(len(q), 3)
    directions = projected / jnp.sqrt(jnp.where(q > 0, q, 1))[:, None]
    kernel = None
    if whole:
        everywhere = np.arange(len(q))
        index = np.unravel_index(everywhere, (features.nngp[0].shape[0], *vectors.space))
        kernel = _kernel_between(dual, features, everywhere, index, everywhere, index)
    return directions, q, dual(q, q, q)[0], kernel


def sample_positions(
    dual: DualKernels,
    features: HiddenFeatures,
    survey: Survey,
    count: int,
    sampling: Sampling,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` of the survey's usable positions, chosen by `sampled`."""

    def kernel_of(pool: np.ndarray, columns: int) -> Kernel:
        return _kernel_of(dual, features, survey, pool, columns)

    eps = float(jnp.finfo(survey.q.dtype).eps)
    return sampled(survey.usable, survey.diagonal, kernel_of, count, sampling, eps, rng)


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


def check_kernel(values: Inputs, dual: DualKernels, q: Any) -> None:
    """Refuses kernel values that are NaN or infinite; `q` are variances for the message."""
    if not is_finite(values):
        raise ValueError(
            f"the kernel of {dual.name} is NaN or infinite in {q.dtype} at some positions of the"
            f" sample, whose variances there go up to {float(np.max(q)):.3g}. Standardise the"
            f" inputs, or {USE_FLOAT64}."
        )


def weighted_sample(items: np.ndarray, weights: np.ndarray, count: int, rng) -> np.ndarray:
    """`count` items without replacement, one after the other with probability ∝ weight.

    By exponential keys (Efraimidis and Spirakis 2006). Items of weight 0 come last.
    """
    with np.errstate(divide="ignore"):
        keys = rng.standard_exponential(len(items)) / np.maximum(weights, 0.0)
    return items[np.argsort(keys, kind="stable")[:count]]


def _kernel_of(dual, features: HiddenFeatures, survey: Survey, pool: np.ndarray, count: int):
    """`k_σ` between positions of `pool`, as a function of row and column indices.

    Unless the survey holds it, it is computed in blocks of one shape, so that equal layers share
    one program. Values are in float64 on the host, or on a GPU in the dtype of the features.
    """
    space = features.nngp_vectors().space
    height = max(_ROWS, count)

    def positions(indices: np.ndarray, size: int):
        flat = pool[np.resize(indices, size)]
        return flat, np.unravel_index(flat, (features.nngp[0].shape[0], *space))

    def strips(rows: np.ndarray, columns: np.ndarray) -> Iterator[Inputs]:
        """All columns of `height` rows at a time."""
        if survey.kernel is not None:
            yield in_place(survey.kernel)[np.ix_(pool[rows], pool[columns])]
            return
        for top in range(0, len(rows), height):
            down, blocks = rows[top : top + height], []
            for left in range(0, len(columns), count):
                across = columns[left : left + count]
                block = _block(dual, features, *positions(down, height), *positions(across, count))
                blocks.append(in_place(block)[: len(down), : len(across)])
            yield namespace(blocks[0]).concatenate(blocks, axis=1)

    def kernel(rows: np.ndarray, columns: np.ndarray) -> Inputs:
        values = stacked(strips(rows, columns), len(rows))
        check_kernel(values, dual, survey.q)
        return values

    return kernel


def _kernel_between(
    dual: DualKernels, features: HiddenFeatures, flat, index, flat_other, index_other
) -> Array:
    """`k_σ` between two sets of positions, with the exact variance where both are the same."""
    variances, vectors = features.variances, features.nngp_vectors()
    same, own = (variances.diagonal(v) for v in (variances.same, variances.independent))
    covariance = matmul(vectors.at(index), vectors.at(index_other).T, "full")
    covariance = jnp.where(flat[:, None] == flat_other[None, :], own[index][:, None], covariance)
    return dual(covariance, same[index][:, None], same[index_other][None, :])[0]


_block = fitting_jit(_kernel_between)


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
