"""The evidence by products with streamed features: no matrix of features by features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .._arguments import checked_key
from .._typing import PRNGKey
from ..solvers import ridge
from ..spectral import FeatureGram, log_determinant
from ..streaming._passes import Passes
from ._training import Training

TOLERANCE = 1e-3  # of the log-determinant of the smaller side


def stochastic_log_evidence(
    training: Training,
    get: str,
    diag_reg: Sequence[float],
    absolute: bool,
    key: PRNGKey,
) -> Float[np.ndarray, " m"]:
    """log N(y; 0, K + λI) for each λ, the log-determinant by Lanczos quadrature with the same
    probes, and

        yᵀ (K + λI)⁻¹ y = min_w ‖y - Zw‖² / λ + ‖w‖²

    at the w of conjugate gradients, whose error counts in second order.
    """
    if key is None:
        raise TypeError("log_determinant='stochastic' draws probes: give key=jax.random.key(0)")
    if min(diag_reg) == 0:
        raise ValueError(
            f"diag_reg={list(diag_reg)}: the stochastic log-determinant needs eigenvalues above 0:"
            " every diag_reg must be > 0"
        )
    checked_key(key)
    x, y = training.x, training.y
    how: dict[str, Any] = {"batch_size": training.batch_size, "progress": training.progress}
    solution = ridge(
        training.feature_map,
        x,
        y,
        diag_reg=list(diag_reg),
        diag_reg_absolute_scale=absolute,
        get=get,
        solver="cg",
        **how,
    )
    weights = [np.asarray(one.weights, np.float64).reshape(-1, y.shape[1]) for one in solution.path]
    passes = Passes.of(training.feature_map, x, get=get, **how)
    (n, k), p = y.shape, len(weights[0])
    residuals = np.zeros(len(weights))
    for part in passes:
        z, targets = part.rows(), y[part.start : part.stop]
        residuals += [np.sum((targets - z @ w) ** 2) for w in weights]
    side = "features" if p < n else "examples"
    gram = FeatureGram(training.feature_map, x, get=get, side=side, **how)
    found = []
    for one, w, residual in zip(solution.path, weights, residuals, strict=True):
        options = {"shift": one.penalty, "method": "lanczos", "tolerance": TOLERANCE}
        log_det = log_determinant(gram, key=key, **options).value
        log_det += max(n - p, 0) * math.log(one.penalty)
        quadratic = residual / one.penalty + np.sum(w**2)
        found.append(-0.5 * (k * log_det + quadratic + n * k * math.log(2 * math.pi)))
    return np.array(found)
