"""Exact samples of a k-DPP, from features."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ..numerics._linalg import eigh
from ._random_pivots import random_pivots
from ._residuals import checked_size, rank_error
from ._rows import checked_rows


def k_dpp(z: Any, k: int, *, key: PRNGKey) -> Int[np.ndarray, " k"]:
    """An exact sample of k diverse items with probability ∝ det(Z_S Z_Sᵀ).

    Use this where the choice must be random: unbiased estimates from diverse batches, repeated
    experiments, exploration. For the single most diverse set use `greedy_map`.

    The dual form needs no matrix larger than Z. With ZᵀZ = V diag(λ) Vᵀ (p, p),

    1. k eigenvectors J are drawn with probability ∝ Π_{j∈J} λ_j, by elementary symmetric
       polynomials (in logarithms, so that none overflows);
    2. items are drawn from the projection DPP of the orthonormal columns Y = Z V_J λ_J^{-1/2}
       (n, k): each with probability ∝ the squared distance of its row of Y from the span of those
       before, which is randomly pivoted Cholesky on Y, in blocks with rejection.

    Args:
      z: feature vectors (n, p) of NumPy or JAX, or `FeatureRows`.
      k: number of items, at most the rank of Z.
      key: of `jax.random`. The same key gives the same items.

    Returns:
      Indices of the items in ascending order (k,).

    Cost: 2 n p² + 9 p³ + 2 n p k + 2 n k² FLOPs in float64; p² + n k numbers. Of `FeatureRows`
    some 12 passes, each 2 n p k FLOPs; p² + n + p k numbers. Further samples cost as much each.

    Raises:
      ValueError: k is larger than the number of items, of features, or the numerical rank, where
        all determinants are 0; NaN or infinity.
      TypeError: z is not an array of floating point numbers; `key` is not a key.

    Source: A. Kulesza, B. Taskar, Determinantal point processes for machine learning (2012), arXiv
      1207.6083, algorithms 1, 7 and 8, and section 3.3 for the dual form.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> z = np.repeat(np.eye(3), 4, axis=0)  # three kinds of items, four of each
      >>> found = ns.subset.k_dpp(z, 3, key=jax.random.key(0))
      >>> (found // 4).tolist()  # one of each kind, since two alike have determinant 0
      [0, 1, 2]
    """
    rows, rng = checked_rows(z), generator(checked_key(key))
    k = checked_size(k, rows.shape)
    gram = np.zeros((rows.shape[1],) * 2)
    for _, _, block in rows.blocks():
        gram += block.T @ block
    values, vectors = eigh(gram)
    smallest = len(values) * np.finfo(np.float64).eps * values[-1]
    kept = np.flatnonzero(values > smallest)
    if len(kept) < k:
        raise rank_error(k, len(kept))
    chosen = kept[_eigenvectors(values[kept], k, rng)]
    columns = np.asarray(vectors)[:, chosen] / values[chosen] ** 0.5
    return np.sort(random_pivots(rows.times(columns), k, rng).indices)


def _eigenvectors(
    values: Float[np.ndarray, " r"], k: int, rng: np.random.Generator
) -> Int[np.ndarray, " k"]:
    """k indices J, with probability ∝ Π_{j∈J} λ_j."""
    logs, sums = np.log(values), log_elementary(values, k)
    chosen: list[int] = []
    for j in range(len(values), 0, -1):
        missing = k - len(chosen)
        if not missing:
            break
        share = logs[j - 1] + sums[j - 1, missing - 1] - sums[j, missing]
        if np.log(rng.random()) < share:
            chosen.append(j - 1)
    return np.array(chosen, int)


def log_elementary(values: Float[np.ndarray, " r"], k: int) -> Float[np.ndarray, "j l"]:
    """Logarithms of the elementary symmetric polynomials e_l of the first j values, at [j, l]:
    e_l(λ_1..λ_j) = e_l(λ_1..λ_{j-1}) + λ_j e_{l-1}(λ_1..λ_{j-1})."""
    logs = np.log(values)
    found = np.full((len(values) + 1, k + 1), -np.inf)
    found[:, 0] = 0.0
    for j in range(1, len(values) + 1):
        found[j, 1:] = np.logaddexp(found[j - 1, 1:], logs[j - 1] + found[j - 1, :-1])
    return found
