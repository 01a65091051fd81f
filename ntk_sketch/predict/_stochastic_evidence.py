"""The evidence by products with streamed features: no matrix of features by features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .._arguments import checked_key
from .._typing import PRNGKey
from ..solvers._conjugate_gradient import ConjugateGradient
from ..solvers._streamed import Streamed
from ..spectral._options import checked_options
from ..spectral._preconditioned import preconditioned
from ..streaming._feature_stream import FeatureStream
from ._training import Training

TOLERANCE = 1e-3  # of the log-determinant, for each example
_REMEDY = (
    "That is of the log-determinant, half of which counts for each output. Differences of values of"
    " one key are more accurate; a larger diag_reg leaves less to estimate"
)


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

    at the w of conjugate gradients, whose error counts in second order. Both have the same
    preconditioner.
    """
    if key is None:
        raise TypeError("log_determinant='stochastic' draws probes: give key=jax.random.key(0)")
    if min(diag_reg) == 0:
        raise ValueError(
            f"diag_reg={list(diag_reg)}: the stochastic log-determinant needs eigenvalues above 0:"
            " every diag_reg must be > 0"
        )
    checked_key(key)
    y, (n, k) = training.y, training.y.shape
    features = FeatureStream(training.feature_map, get, training.batch_size, training.progress)
    solver = ConjugateGradient()
    examples = Streamed(features, training.one_output, solver).plus(training.x, y)
    solved = examples.decomposition(False, whole=True, path=len(diag_reg))
    scale = 1.0 if absolute else solved.mean_square_norm
    penalties = [value * scale for value in diag_reg]
    nearly = solved.preconditioner
    assert nearly is not None
    weights = []
    for penalty in penalties:
        weights.append(solved.weights(penalty))  # no comprehension: warnings name the caller
    residuals = np.zeros(len(weights))
    for part in examples.passes:
        z, targets = part.rows(), y[part.start : part.stop]
        residuals += [np.sum((targets - z @ w) ** 2) for w in weights]
    options = checked_options("lanczos", 0.0, TOLERANCE * n, None, None, None, True)
    found = []
    for penalty, w, residual in zip(penalties, weights, residuals, strict=True):
        about = solved.product, nearly, solved.size, penalty, key, options
        log_det = preconditioned(*about, streamed=True, remedy=_REMEDY).value
        log_det += (n - solved.size) * math.log(penalty)
        quadratic = residual / penalty + np.sum(w**2)
        found.append(-0.5 * (k * log_det + quadratic + n * k * math.log(2 * math.pi)))
    return np.array(found)
