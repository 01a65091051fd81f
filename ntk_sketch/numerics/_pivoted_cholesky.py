"""Randomly pivoted Cholesky decomposition, in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from ._linalg import on_host

#: Residuals below this many eps of the diagonal are rounding.
ROUNDING = 64


def accepted(gram: Float[np.ndarray, "b b"], rng: np.random.Generator) -> list[int]:
    """Which of b proposals become pivots, by rejection sampling.

    Proposals are drawn with probability proportional to the diagonal of a residual matrix. Proposal
    i is accepted with probability r_i / gram_ii, where r_i is its residual after the pivots
    accepted before it. Pivots then have exactly the distribution of the sequential algorithm, for
    any b. A proposal that is drawn twice has no residual the second time.

    Args:
      gram: the residual matrix of the proposals, in the order of their drawing.

    Source: E. Epperly, J. Tropp, R. Webber, Embrace rejection (2024), arXiv 2410.03969,
      algorithm 2.
    """
    kept: list[int] = []
    factor = np.zeros_like(gram)
    for i in range(len(gram)):
        for j in range(len(kept)):
            known = factor[i, :j] @ factor[kept[j], :j]
            factor[i, j] = (gram[i, kept[j]] - known) / factor[kept[j], j]
        left = gram[i, i] - factor[i, : len(kept)] @ factor[i, : len(kept)]
        rounding = ROUNDING * np.finfo(np.float64).eps * gram[i, i]
        if left > rounding and rng.random() * gram[i, i] < left:
            factor[i, len(kept)] = left**0.5
            kept.append(i)
    return kept


def randomly_pivoted(
    kernel: Callable[[Any, Any], Any],
    diagonal: Float[np.ndarray, " n"],
    count: int,
    block: int,
    eps: float,
    rng: np.random.Generator,
) -> Int[np.ndarray, " m"]:
    """At most `count` pivots of a positive semidefinite matrix (n, n).

    Each pivot is drawn with probability proportional to the diagonal of the residual after the
    pivots before it. There are fewer than `count` if the residual becomes 0.

    Args:
      kernel: the matrix's entries at arrays of row and column indices.
      block: number of proposals drawn at a time.
      eps: that of the entries' dtype.

    Cost: (n + block) kernel values for each pivot and O(n count²) FLOPs; memory for n count
      numbers.

    Source: Y. Chen, E. Epperly, J. Tropp, R. Webber, Randomly pivoted Cholesky (2022), arXiv
      2207.06503; in blocks as in `accepted`.
    """
    n = len(diagonal)
    rounding, left = ROUNDING * eps * diagonal, diagonal.copy()
    factor, found = np.zeros((n, 0)), np.zeros(0, int)
    while len(found) < count:
        left[left <= rounding] = 0.0
        if not left.any():
            break
        drawn = rng.choice(n, block, p=left / left.sum())
        gram = on_host(kernel(drawn, drawn)) - factor[drawn] @ factor[drawn].T
        same = drawn[:, None] == drawn  # a repeated proposal has a residual of exactly 0
        gram = np.where(same, left[drawn], (gram + gram.T) / 2)
        kept = accepted(gram, rng)[: count - len(found)]
        pivots = drawn[kept]
        lower = scipy.linalg.cholesky(gram[np.ix_(kept, kept)], lower=True)
        columns = on_host(kernel(np.arange(n), pivots)) - factor @ factor[pivots].T
        columns = scipy.linalg.solve_triangular(lower, columns.T, lower=True).T
        factor = np.concatenate([factor, columns], axis=1)
        left -= np.sum(columns**2, axis=1)
        left[pivots] = 0.0
        found = np.concatenate([found, pivots])
    return found
