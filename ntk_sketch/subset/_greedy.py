"""The most probable subset of a determinantal point process, greedily."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from jaxtyping import Int

from ._residuals import Residuals, Selection, checked_size, rank_error, squared_norms
from ._rows import checked_rows

_LEAST, _MOST = 256, 2048  # items that are looked at between two passes, and
_AHEAD = 64  # for each one that the pass before found


def greedy_map(z: Any, k: int, *, slack: float = 0.0) -> Selection:
    """k diverse items: greedy maximisation of det(Z_S Z_Sᵀ), the MAP of a determinantal point
    process.

    Use this when a small fixed set of items should represent all: examples to label or to show,
    inducing points, a batch without near-duplicates. It is deterministic. For a random set use
    `k_dpp`, for landmarks of a low-rank approximation `randomly_pivoted_cholesky`.

    The next item is the one whose vector is farthest from the span of those chosen,

        argmax_i ‖z_i - P_S z_i‖² = det(Z_{S+i} Z_{S+i}ᵀ) / det(Z_S Z_Sᵀ).

    This is the Cholesky factorisation of Z Zᵀ with the largest pivot; the n x n matrix is never
    formed. Distances only fall as S grows, so that those of an earlier pass are upper bounds. The
    items with the largest bounds are compared with each other until another item may be farther.
    Only then are all distances updated, for all items chosen since, in one matrix product. The
    result is the same as with an update after every item.

    Args:
      z: feature vectors (n, p) of NumPy or JAX, such as `feature_map(x).ntk`; or `FeatureRows`.
      k: number of items, at most min(n, p).
      slack: 0 <= slack < 1. Accept items whose squared distance is at least 1 - slack times the
        largest. Each item may then lose log(1 / (1 - slack)) in the log-determinant, and there are
        fewer passes over the data. Use 0.1 or more for streamed features of unit norm. For a given
        number of passes use `batched_greedy_map`.

    Returns:
      A `Selection`, by decreasing gain if slack is 0.

    Cost: 2 n p k FLOPs in float64, in at most k passes; memory for n + k p numbers. Vectors of
    equal norm need more passes than those of different norms.

    Raises:
      ValueError: k is larger than the number of items, of features, or the numerical rank (which
        the message has); NaN or infinity.
      TypeError: z is not an array of floating point numbers.

    Source: L. Chen, G. Zhang, H. Zhou, Fast greedy MAP inference for determinantal point processes
      (2018), arXiv 1709.05135; bounds of an earlier pass: M. Minoux (1978), lazy greedy.

    Example:
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> z = np.repeat(np.eye(4) * [1.0, 3.0, 2.0, 0.5], 5, axis=0)  # five copies of each
      >>> ns.subset.greedy_map(z, 3).indices.tolist()
      [5, 10, 0]
    """
    rows = checked_rows(z)
    k, slack = checked_size(k, rows.shape), _checked_slack(slack)
    residuals, size = Residuals(rows), _LEAST
    while len(residuals) < k:
        pool = np.argsort(-residuals.squares, kind="stable")[: size + 1]
        limit = float(residuals.squares[pool[size]]) if len(pool) > size else 0.0
        pool = np.sort(pool[:size])
        chosen, left = _best(residuals, pool, (1 - slack) * limit, k - len(residuals))
        if not chosen:
            raise rank_error(k, len(residuals))
        residuals.add_rows(pool[chosen], left[chosen])
        size = min(max(_AHEAD * len(chosen), _LEAST), _MOST)
    return residuals.selection(float(residuals.squares.sum()))


def _best(residuals: Residuals, pool: Int[np.ndarray, " b"], limit: float, most: int):
    """Items of the pool, one after the other, as long as none outside may be better: their places
    in it, and what is left of the pool's rows.

    Chen, Zhang and Zhou's algorithm on the pool: an item more is a row of its Cholesky factor.
    """
    left, rounding = residuals.left(pool), residuals.rounding[pool]
    squares, factor = squared_norms(left), np.empty((most, len(pool)))
    chosen: list[int] = []
    while len(chosen) < most:
        i, m = int(np.argmax(squares)), len(chosen)
        if squares[i] <= rounding[i] or (chosen and squares[i] < limit):
            break
        inner = left @ left[i] - factor[:m, i] @ factor[:m]
        factor[m] = inner / squares[i] ** 0.5
        squares -= factor[m] ** 2
        squares[i] = -1.0
        chosen.append(i)
    return chosen, left


def _checked_slack(slack: Any) -> float:
    real = isinstance(slack, numbers.Real) and not isinstance(slack, bool)
    if not real or not 0 <= float(slack) < 1:
        raise ValueError(f"slack={slack!r}; needed: a share, 0 <= slack < 1")
    return float(slack)
