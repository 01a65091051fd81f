"""Greedy subsets by random batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import checked_integer, checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ._residuals import (
    RELATIVE_ROUNDING,
    Selection,
    Span,
    checked_size,
    rank_error,
    squared_norms,
)
from ._rows import checked_rows


def batched_greedy_map(
    z: Any, k: int, *, key: PRNGKey, batch: int = 10, samples: int = 50
) -> Selection:
    """k diverse items, added in batches: the best of several random batches by det(Z_S Z_Sᵀ).

    Use this when k passes over the items are too many. It reads k / batch times `samples` batches
    of items, whatever n is. Its determinant is below that of `greedy_map`; more samples bring it
    closer.

    Args:
      z: as in `greedy_map`.
      k: number of items, at most min(n, p).
      key: of `jax.random`.
      batch: number of items that are added together. 1: stochastic greedy.
      samples: number of batches that are compared, by exact determinants of their residuals.

    Returns:
      A `Selection` without `residual`.

    Cost: 4 samples k p (k + batch) FLOPs; samples batch p numbers.

    Raises:
      As `greedy_map`. Batches in the span of the items before have no determinant; if all are, k
      is above the rank or there are too few samples.

    Source: I. Han, P. Kambadur, K. Park, J. Shin, Faster greedy MAP inference for determinantal
      point processes (2017), arXiv 1703.03389, algorithm 2, whose first-order gains are exact here.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> z = np.random.default_rng(0).normal(size=(2000, 32))
      >>> found = ns.subset.batched_greedy_map(z, 20, key=jax.random.key(0))
      >>> best = ns.subset.greedy_map(z, 20)
      >>> bool(np.log(found.gains).sum() < np.log(best.gains).sum())
      True
    """
    rows, rng = checked_rows(z), generator(checked_key(key))
    k = checked_size(k, rows.shape)
    batch, samples = checked_integer(batch, "batch"), checked_integer(samples, "samples")
    span, remaining = Span(rows), np.arange(rows.shape[0])
    while len(span) < k:
        size = min(batch, k - len(span))
        drawn = np.stack([rng.choice(remaining, size, replace=False) for _ in range(samples)])
        items, place = np.unique(drawn, return_inverse=True)
        whole = rows.take(items)
        left = span.projected(whole)
        left, norms = (a[place.reshape(drawn.shape)] for a in (left, squared_norms(whole)))
        signs, logs = np.linalg.slogdet(left @ left.transpose(0, 2, 1))
        best = int(np.argmax(np.where(signs > 0, logs, -np.inf)))
        triangle = np.linalg.qr(left[best].T, mode="r")
        if (np.diagonal(triangle) ** 2 <= RELATIVE_ROUNDING * norms[best]).any():
            raise rank_error(k, len(span))
        span.add_rows(drawn[best], left[best])
        remaining = np.setdiff1d(remaining, drawn[best], assume_unique=True)
    return span.selection()
