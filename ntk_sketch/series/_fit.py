"""Non-negative power series fitted to values of a kernel."""

from typing import NamedTuple

import numpy as np
import scipy  # whose modules are imported where they are used
from jaxtyping import Float

from .._typing import Inputs
from ._checks import checked_degree, real


class SeriesFit(NamedTuple):
    """The result of `fit_series`: `Σ_l b_l ρ^l ≈ κ(ρ)` with `b_l >= 0`.

    Attributes:
        coefficients: b_l, l = 0..degree.
        residual: `√(Σ_i w_i (Σ_l b_l ρ_i^l - κ_i)² / Σ_i w_i κ_i²)`.
    """

    coefficients: Float[np.ndarray, " l"]
    residual: float


def fit_series(
    cosines: Inputs, values: Inputs, degree: int, weights: Inputs | None = None
) -> SeriesFit:
    r"""Fits a non-negative power series to values of a kernel by weighted least squares:

        min_{b >= 0} Σ_i w_i (Σ_l b_l ρ_i^l - κ_i)².

    Use this in place of a Taylor series if the cosines of the data are known: the fit is best
    there. Coefficients are non-negative, so that `b_l ρ^l` is an inner product of features. For a
    coreset of points (`sketches.greedy_coreset`), `ρ` and `κ` belong to its pairs (m, m), and `w`
    is the outer product of its weights.

    Columns are scaled to norm 1 before `scipy.optimize.nnls`: high powers of small cosines have
    norms far below 1.

    Args:
        cosines: ρ, of any shape, in [-1, 1].
        values: κ(ρ), of the same shape.
        degree: the largest l. Raise it to lower the residual.
        weights: w >= 0, of the same shape; None: 1.

    Raises:
        ValueError: shapes differ; cosines are outside [-1, 1]; values or weights are not finite.
        TypeError: complex numbers; a degree that is not an integer.

    Cost: `O(n degree²)` FLOPs, n values.

    Source: Han, Avron and Shin 2020 (arXiv 1905.11616), coreset-based regression; the sign
    constraint is ours.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import fit_series
        >>> cosines = np.linspace(-1, 1, 50)
        >>> fit = fit_series(cosines, np.exp(cosines), degree=6)
        >>> bool((fit.coefficients >= 0).all()), fit.residual < 1e-3
        (True, True)
    """
    degree = checked_degree(degree)
    rho, kappa = real(cosines, "cosines"), real(values, "values")
    w = np.ones_like(rho) if weights is None else real(weights, "weights")
    if not rho.shape == kappa.shape == w.shape:
        raise ValueError(
            f"cosines, values and weights must have one shape, got {rho.shape}, {kappa.shape} and"
            f" {w.shape}"
        )
    slack = 1e-6  # for cosines in float32
    if rho.size == 0 or not (np.abs(rho) <= 1 + slack).all():
        raise ValueError("cosines must be a non-empty array of numbers from -1 to 1")
    if not (np.isfinite(kappa).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError("values must be finite, and weights finite and 0 or more")
    root = np.sqrt(w.ravel())
    columns = root[:, None] * np.vander(rho.ravel(), degree + 1, increasing=True)
    target = root * kappa.ravel()
    norms = np.linalg.norm(columns, axis=0)
    norms[norms == 0] = 1
    solution, distance = scipy.optimize.nnls(columns / norms, target)
    size = np.linalg.norm(target)
    return SeriesFit(solution / norms, float(distance / size) if size else 0.0)
