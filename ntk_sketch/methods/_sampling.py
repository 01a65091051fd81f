"""Which positions of a sample become landmarks."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._features import Features
from .._precision import matmul
from .._typing import Array, Inputs, PRNGKey
from ..activations import DualActivation

Sampling: TypeAlias = Literal["leverage", "diagonal", "uniform"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)

#: Leverage scores are computed among at most this many positions, or 16 for each landmark.
_POOL = 4096


def generator(key: PRNGKey) -> np.random.Generator:
    """NumPy's generator of random numbers for what is drawn on the host."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.random.default_rng(np.asarray(jax.random.key_data(key) if typed else key))


def usable_positions(features: Features) -> np.ndarray:
    """Flat indices of the positions of the sample that can be landmarks: variance above 0,
    duplicates once.

    Two positions are the same if their variances and the directions of their vectors, seen in
    random projections, agree to √eps. Rounding may part a pair that a cell's border runs through,
    but hardly twice: cells are laid out twice.
    """
    directions, q = map(np.asarray, _fingerprints(features))
    usable = np.flatnonzero(q > 0)
    coordinates = np.concatenate([directions[usable], np.log(q[usable])[:, None]], axis=1)
    cells = coordinates.astype(np.float64) / float(jnp.finfo(q.dtype).eps) ** 0.5
    kept = np.arange(len(usable))
    for shift in (0.0, 0.5):
        rounded = np.floor(cells[kept] + shift).astype(np.int64)
        _, first = np.unique(rounded, axis=0, return_index=True)
        kept = kept[np.sort(first)]
    return usable[kept]


@eqx.filter_jit
def _fingerprints(features: Features) -> tuple[Array, Array]:
    """Random projections (N, 3) of the direction of every position's vector, and the variances
    (N,).
    """
    variances, vectors = features.variances, features.nngp_vectors()
    q = variances.diagonal(variances.same).reshape(-1)
    matrix = jax.random.normal(jax.random.key(0), (vectors.dimension, 3), q.dtype)
    projected = vectors.project(matrix).reshape(len(q), 3)
    return projected / jnp.sqrt(jnp.where(q > 0, q, 1))[:, None], q


def sample_positions(
    dual: DualActivation,
    features: Features,
    candidates: np.ndarray,
    count: int,
    sampling: Sampling,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` of the flat indices `candidates`, without replacement.

    Args:
        sampling: probability proportional to 1 ("uniform"), to the diagonal `k_σ(x, x)`
            ("diagonal": Drineas and Mahoney 2005), or to ridge leverage scores ("leverage").
    """
    if sampling == "uniform":
        return rng.choice(candidates, count, replace=False)
    if sampling == "diagonal":
        diagonal = np.asarray(_diagonal(dual, features), np.float64)[candidates]
        return weighted_sample(candidates, diagonal, count, rng)
    pool = rng.permutation(candidates)[: max(_POOL, 16 * count)]
    kernel, diagonal = _kernel_of(dual, features, pool, count)
    if not diagonal.any():  # the zero kernel, of which any landmarks do
        return pool[:count]
    scores = ridge_leverage_scores(kernel, diagonal, count, rng)
    return weighted_sample(pool, scores, count, rng)


def check_kernel(values: np.ndarray, dual: DualActivation, q: Array) -> None:
    """Refuses kernel values that are NaN or infinite, at positions of variances `q`."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"the kernel of {dual.name} is NaN or infinite in {q.dtype} at some positions of the"
            f" sample, whose variances there go up to {float(np.max(q)):.3g}. Standardise the"
            " inputs, or give float64 examples (jax.config.update('jax_enable_x64', True))."
        )


def weighted_sample(items: np.ndarray, weights: np.ndarray, count: int, rng) -> np.ndarray:
    """`count` items without replacement, one after the other with probability ∝ weight.

    By exponential keys (Efraimidis and Spirakis 2006). Items of weight 0 come last.
    """
    with np.errstate(divide="ignore"):
        keys = rng.standard_exponential(len(items)) / np.maximum(weights, 0.0)
    return items[np.argsort(keys, kind="stable")[:count]]


@eqx.filter_jit
def _diagonal(dual: DualActivation, features: Features) -> Array:
    variances = features.variances
    q = variances.diagonal(variances.same).reshape(-1)
    return dual(q, q, q)[0]


def _kernel_of(dual: DualActivation, features: Features, pool: np.ndarray, count: int):
    """`k_σ` of all positions `pool` with some of them, as a function of their indices into it; and
    its diagonal.
    """
    space = features.nngp_vectors().space
    index = np.unravel_index(pool, (features.nngp[0].shape[0], *space))
    z, q, own = _vectors_at(features, index)

    def columns(chosen: np.ndarray) -> np.ndarray:
        # Filled up to a multiple of `count`, so that few shapes are compiled.
        filled = np.resize(chosen, math.ceil(len(chosen) / count) * count)
        values = np.asarray(_columns(dual, z, q, own, filled), np.float64)[:, : len(chosen)]
        check_kernel(values, dual, q)
        return values

    return columns, np.asarray(_diagonal(dual, features), np.float64)[pool]


@eqx.filter_jit
def _vectors_at(features: Features, index: tuple[Inputs, ...]):
    """Vectors (m, d), variances (m,), and covariances of two independent passes (m,)."""
    variances = features.variances
    q, own = (variances.diagonal(v)[index] for v in (variances.same, variances.independent))
    return features.nngp_vectors().at(index), q, own


@eqx.filter_jit
def _columns(dual: DualActivation, z: Array, q: Array, own: Array, chosen: Inputs) -> Array:
    same = jnp.arange(len(q))[:, None] == chosen[None, :]
    covariance = jnp.where(same, own[:, None], matmul(z, z[chosen].T, "full"))
    return dual(covariance, q[:, None], q[None, chosen])[0]


def ridge_leverage_scores(
    columns: Callable[[np.ndarray], np.ndarray],
    diagonal: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Approximate ridge leverage scores of a kernel matrix `K` (n, n), for `count` landmarks.

    The score of point i is `(K (K + λI)⁻¹)_ii`. They are found by the recursion of Musco and Musco,
    *Recursive Sampling for the Nyström Method* (NeurIPS 2017, arXiv 1605.07583), algorithm 3 with
    the number of landmarks fixed: the scores of a uniform half of the points, found the same way,
    choose landmarks with weights `S`, and those estimate the scores of all,

        l_i = (K - K S (SᵀKS + λI)⁻¹ SᵀK)_ii / λ.

    λ is the sum of the eigenvalues that rank `k = count / (4 log count)` leaves, over k.

    Args:
        columns: gives the columns of `K` at an array of indices.
        diagonal: of `K` (n,).
        count: number of landmarks.
        rng: of NumPy.

    Cost: O(n count) kernel values and O(n count²) FLOPs at each of the log₂(n / count) levels.
    """
    n = len(diagonal)
    order = rng.permutation(n)
    oversampling = max(math.log(count), 1.0)
    rank = math.ceil(count / (4 * oversampling))
    sizes = [n]
    while sizes[-1] > count:
        sizes.append(math.ceil(sizes[-1] / 2))
    chosen, weights = order[: sizes[-1]], np.ones(sizes[-1])
    scores = np.ones(n)
    for size in reversed(sizes[:-1]):
        points = order[:size]
        values = columns(chosen)
        inner, values = values[chosen], values[points]
        weighted = weights[:, None] * inner * weights
        eigenvalues = np.linalg.eigvalsh(weighted)
        left = max(np.trace(weighted) - eigenvalues[::-1][:rank].sum(), 0.0)
        ridge = max(left / rank, 1e-6 * diagonal.max())
        inverse = np.linalg.inv(inner + np.diag(ridge / weights**2))
        explained = np.sum((values @ inverse) * values, axis=1)
        scores = np.clip((diagonal[points] - explained) / ridge, 0.0, None)
        if size < n:
            scores = np.minimum(oversampling * scores, 1.0)
            picked = np.flatnonzero(rng.random(size) < scores)
            if len(picked) == 0:
                picked = rng.choice(size, min(count, size), replace=False)
                scores = np.full(size, min(count, size) / size)
            chosen, weights = points[picked], scores[picked] ** -0.5
    result = np.empty(n)
    result[order] = np.minimum(scores, 1.0)
    return result
