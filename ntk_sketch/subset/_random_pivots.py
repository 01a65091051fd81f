"""Randomly pivoted Cholesky: landmarks of a low-rank approximation."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ..numerics._pivoted_cholesky import accepted
from ._residuals import Residuals, Selection, checked_size, rank_error
from ._rows import Rows, checked_rows

_PASSES = 8  # about so many, if all proposals of a pass were accepted


def randomly_pivoted_cholesky(z: Any, k: int, *, key: PRNGKey) -> Selection:
    """k landmarks of the kernel Z Zᵀ by randomly pivoted Cholesky.

    Each landmark is drawn with probability ∝ its squared distance from the span of those before it.
    Use this for landmarks of a Nyström approximation, inducing points, or columns of a low-rank
    kernel. Unlike leverage scores it needs no regulariser, and unlike `greedy_map` it does not
    prefer outliers. Its error is that of the best approximation of rank r, up to a factor 1 + ε,
    with

        k >= r / ε + r log(1 / (ε η)),   η = (Σ_{i>r} λ_i) / tr Z Zᵀ:
        E tr (Z Zᵀ - Nyström) <= (1 + ε) Σ_{i>r} λ_i.

    Items are proposed in blocks of about k / 8, with one pass over the data for each block, and
    accepted by rejection sampling, so that the distribution is exactly that of the sequential
    algorithm. The n x n matrix is never formed.

    Args:
      z: feature vectors (n, p) of NumPy or JAX, such as `feature_map(x).ntk`; or `FeatureRows`.
      k: number of items, at most min(n, p).
      key: of `jax.random`. The same key gives the same items.

    Returns:
      A `Selection`, whose `residual` is the trace of the residual matrix.

    Cost: 2 n p k FLOPs in float64, 10 to 20 passes; n + k p numbers.

    Raises:
      ValueError: k is larger than the number of items, of features, or the numerical rank; NaN or
        infinity.
      TypeError: z is not an array of floating point numbers; `key` is not a key.

    Source: Y. Chen, E. Epperly, J. Tropp, R. Webber, Randomly pivoted Cholesky (2022), arXiv
      2207.06503, theorem 5.1; blocks with rejection: E. Epperly, J. Tropp, R. Webber (2024), arXiv
      2410.03969.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> z = np.random.default_rng(0).normal(size=(500, 40)) * 0.8 ** np.arange(40)
      >>> found = ns.subset.randomly_pivoted_cholesky(z, 20, key=jax.random.key(0))
      >>> features = z @ found.basis.T  # (500, 20), a Nyström approximation of z @ z.T
      >>> bool(np.isclose(np.sum(z**2) - np.sum(features**2), found.residual))
      True
      >>> bool(found.residual < 0.01 * np.sum(z**2))
      True
    """
    rows, rng = checked_rows(z), generator(checked_key(key))
    return random_pivots(rows, checked_size(k, rows.shape), rng)


def random_pivots(rows: Rows, k: int, rng: np.random.Generator) -> Selection:
    residuals, block = Residuals(rows), max(k // _PASSES, 16)
    while len(residuals) < k:
        total = residuals.squares.sum()
        if not total > 0:
            raise rank_error(k, len(residuals))
        drawn = rng.choice(len(residuals.squares), block, p=residuals.squares / total)
        left = residuals.left(drawn)
        kept = accepted(left @ left.T, rng)[: k - len(residuals)]
        residuals.add_rows(drawn[kept], left[kept])
    return residuals.selection(float(residuals.squares.sum()))
