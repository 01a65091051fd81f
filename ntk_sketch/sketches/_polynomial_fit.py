"""The polynomial of smallest expected error when a tensor sketch computes its powers."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..numerics._precision import float64
from ._coreset import greedy_coreset
from ._tensor_sketch import tensor_sketch_variance

#: Inner products at which polynomials are evaluated at a time.
_BLOCK = 2**16


class PolynomialFit(NamedTuple):
    """The result of `fit_polynomial`: `f(t) ≈ Σ_j γ_j (t / (r_a r_b))^j`.

    Attributes:
        coefficients: γ_j, j = 0..degree.
        radii: r_a and r_b, the largest norms of rows of A and of B (1 if all are 0).
        residual: the relative error of the polynomial.
        expected_error: the relative error of the sketched polynomial.
    """

    coefficients: Float[np.ndarray, " l"]
    radii: tuple[float, float]
    residual: float
    expected_error: float


def fit_polynomial(
    f: Callable,
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "n2 d"],
    scale_a: Float[np.ndarray, " n"],
    scale_b: Float[np.ndarray, " n2"],
    m: int,
    exact: list[bool],
    coreset: int,
) -> PolynomialFit:
    r"""Coefficients c of smallest expected error of `Σ_j c_j <S_j a, S_j b>` against `f(<a, b>)`.

    `S_j` are the powers of one `TensorSketch` of width m. Power k continues power j < k with
    independent hashes: given the first j, `<S_k a, S_k b>` has mean `t^{k-j} <S_j a, S_j b>` with
    `t = <a, b>`. The covariance of their errors is therefore `t^{k-j} V_j(a, b)` with the variance
    V_j of `tensor_sketch_variance`. In expectation over keys

        E Σ w (f(t) - Σ_j c_j <S_j a, S_j b>)²
            = Σ w (f(t) - Σ_j c_j t^j)² + cᵀ M c,    M_jk = Σ w t^{|j-k|} V_min(j,k)(a, b),

    with sums over pairs of rows. This is a least-squares problem. `V_j` is 0 for powers that are
    `exact`. The sums are over all rows of B and a coreset of rows of A, which are centres of
    clusters weighted by their sizes. The weights w include the squares of the scales.

    Han, Avron and Shin minimise an upper bound: the Cauchy-Schwarz inequality for cross terms, and
    `V_j <= (2 + 3^j) / m ‖a‖^{2j} ‖b‖^{2j}` (Avron, Nguyen and Woodruff 2014), which makes M
    diagonal.

    Columns are powers of `t / (r_a r_b)`, scaled to norm 1, because high powers of t overflow or
    underflow. The triangular factor is updated block by block, which keeps memory small.

    Args:
        f: a function of real arrays with one axis.
        a: A.
        b: B.
        scale_a: s_a.
        scale_b: s_b.
        m: width.
        exact: whether the power j has no error, for j = 0..degree.
        coreset: the number of rows of A.

    Source: Han, Avron and Shin 2020 (arXiv 1905.11616), their theorem and coreset regression.
    """
    d = a.shape[1]
    radii = [np.linalg.norm(x, axis=1).max() or 1.0 for x in (a, b)]
    chosen = greedy_coreset(a, coreset)
    centres, b = a[chosen.indices] / radii[0], b / radii[1]
    weights_a = chosen.weights * scale_a[chosen.indices] ** 2
    noisy = [j for j, without_error in enumerate(exact) if not without_error]
    triangle = np.zeros((len(exact) + 1,) * 2)
    moments = np.zeros((len(exact),) * 2)  # Σ w V_j t^p
    size = max(_BLOCK // len(centres), 1)
    for start in range(0, len(b), size):
        rows = b[start : start + size]
        t = (centres @ rows.T).ravel()
        w = np.outer(weights_a, scale_b[start : start + size] ** 2).ravel()
        values = _values(f, t * radii[0] * radii[1])
        monomials = np.vander(t, len(exact), increasing=True)
        block = np.sqrt(w)[:, None] * np.column_stack([monomials, values])
        triangle = np.asarray(np.linalg.qr(np.vstack([triangle, block]), mode="r"))
        norms = np.outer((centres**2).sum(1), (rows**2).sum(1)).ravel()
        overlap = (centres**2 @ (rows**2).T).ravel()
        for j in noisy:
            moments[j] += (w * tensor_sketch_variance(d, m, j, t, norms, overlap)) @ monomials
    return _solve(triangle, moments, (float(radii[0]), float(radii[1])))


def _solve(triangle: np.ndarray, moments: np.ndarray, radii: tuple[float, float]) -> PolynomialFit:
    """The fit, from the triangular factor of powers and values and the moments of variances."""
    system, target = triangle[:, :-1], triangle[:, -1]
    j, k = np.indices(moments.shape)
    covariance = moments[np.minimum(j, k), np.abs(j - k)]
    norms = np.sqrt((system**2).sum(0) + np.diagonal(covariance))
    norms[norms == 0] = 1
    values, vectors = np.linalg.eigh(covariance / np.outer(norms, norms))
    noise = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    scaled = np.vstack([system / norms, noise])
    right_side = np.concatenate([target, np.zeros(len(noise))])
    solution = np.linalg.lstsq(scaled, right_side, rcond=None)[0]
    errors = np.abs(scaled @ solution - right_side)
    size = np.linalg.norm(target) or 1.0
    residual, expected = np.linalg.norm(errors[: len(target)]), np.linalg.norm(errors)
    return PolynomialFit(solution / norms, radii, float(residual / size), float(expected / size))


def _values(f: Callable, t: np.ndarray) -> np.ndarray:
    """f at inner products of the coreset, in float64 also for JAX functions."""
    with float64(), np.errstate(all="ignore"):
        values = np.asarray(f(t))
    if values.shape != t.shape:
        raise ValueError(
            f"f must act entry by entry: of an array of shape {t.shape} it made {values.shape}."
        )
    if np.iscomplexobj(values):
        raise TypeError(f"f must be real, its values have dtype {values.dtype}.")
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise ValueError(
            f"f is {values[wrong][0]} at t = {t[wrong][0]:.6g}, an inner product of a row of a with"
            f" one of b; their range is [{t.min():.6g}, {t.max():.6g}] at least. It must be finite"
            " there."
        )
    return values.astype(np.float64)
