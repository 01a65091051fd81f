"""Taylor series in the cosine of the dual kernels of homogeneous nonlinearities."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..activations._dual import DualActivation
from ._checks import checked_degree
from ._hermite import elementwise_function
from ._host import on_host
from ._quadrature import gaussian_moments

_TEST_POINTS = np.geomspace(1e-3, 1e3, 61)


class HomogeneousDual(NamedTuple):
    """`k_σ(ρ r r', r², r'²) = (r r')^p Σ_l a_l ρ^l`, and `k_σ' = (r r')^{p-1} Σ_l b_l ρ^l`.

    Attributes:
        power: p, the degree of homogeneity of σ.
        values: `a_l >= 0`, l = 0..degree.
        derivative: `b_l >= 0`, l = 0..degree; all 0 for p = 0.
        tail: `κ(1) - Σ_l a_l`, the largest error of the truncated series over ρ in [-1, 1].
    """

    power: int
    values: Float[np.ndarray, " l"]
    derivative: Float[np.ndarray, " l"]
    tail: float


def homogeneous_dual(sigma: DualActivation | Callable, degree: int) -> HomogeneousDual:
    r"""The series of a nonlinearity with `σ(s x) = s^p σ(x)`, s > 0, by quadrature.

    Homogeneity makes `c_l(r) = r^p c_l(1)`, so that Mehler's formula reads `(r r')^p Σ_l c_l(1)²
    ρ^l`. For p > 0, σ is continuous: `b_l = c'_l(1)² = (l + 1) a_{l+1}`, the derivative of the
    series. For p = 0, σ is constant on either side of 0 and σ' vanishes (a jump does not count).

    Args:
        sigma: the nonlinearity.
        degree: the largest l.

    Raises:
        ValueError: σ is not homogeneous of a degree 0, 1, 2, ...

    Source: Han et al. 2022 (arXiv 2209.04121), homogeneous dual activations.
    """
    degree = checked_degree(degree)
    function, name = elementwise_function(sigma)
    power = _homogeneity(function, name)
    moments, _ = gaussian_moments(function, np.ones(1), degree + 1, 1e-12, name)
    values, above = moments[0, :-2] ** 2, moments[0, 1:-1] ** 2
    derivative = np.arange(1, degree + 2) * above if power else np.zeros(degree + 1)
    return HomogeneousDual(power, values, derivative, max(moments[0, -1] - values.sum(), 0.0))


def ab_relu_dual(degree: int, a: float, b: float) -> HomogeneousDual:
    """`a min(x, 0) + b max(x, 0)` in closed form: `κ = (b-a)²/2 κ_1 + a b ρ`, and for the
    derivative `(b-a)²/2 κ_0 + a b`, with the arc-cosine kernels κ_1, κ_0.
    """
    degree = checked_degree(degree)
    values, derivative = (
        (b - a) ** 2 / 2 * arc_cosine_coefficients(order, degree) for order in (1, 0)
    )
    tail = (b - a) ** 2 / 2 * (1 - arc_cosine_coefficients(1, degree).sum())
    values[1:2] += a * b
    derivative[0] += a * b
    if degree == 0:
        tail += a * b
    return HomogeneousDual(1, values, derivative, max(float(tail), 0.0))


def arc_cosine_coefficients(order: int, degree: int) -> Float[np.ndarray, " l"]:
    r"""Taylor coefficients of the arc-cosine kernels of order 0 and 1, scaled to κ(1) = 1.

        κ_0(ρ) = (π - arccos ρ) / π = 1/2 + (1/π) Σ_k (2k)! / (4^k k!² (2k+1)) ρ^{2k+1},
        κ_1(ρ) = (√(1-ρ²) + ρ (π - arccos ρ)) / π = 1/π + ∫_0^ρ κ_0.

    Those of Relu are `κ_1 / 2` at unit variances, and of its derivative `κ_0 / 2`.

    Source: Cho and Saul 2009, eqs. (3), (5) and (6).
    """
    degree = checked_degree(degree)
    if order not in (0, 1):
        raise ValueError(
            f"order must be 0 or 1, got {order!r}: use homogeneous_dual for higher powers"
        )
    zero = np.zeros(degree + 1)
    zero[0] = 0.5
    central = 1 / np.pi  # (2k)! / (4^k k!²), which falls like k^{-1/2}
    for l in range(1, degree + 1, 2):
        zero[l] = central / l
        central *= l / (l + 1)
    if order == 0:
        return zero
    return np.r_[1 / np.pi, zero[:-1] / np.arange(1, degree + 1)]


def _homogeneity(function: Callable, name: str) -> int:
    """p, from `σ(2x) = 2^p σ(x)` at many points of both sides."""
    x = np.r_[_TEST_POINTS, -_TEST_POINTS]
    once, twice = on_host(function, x, name), on_host(function, 2 * x, name)
    for power in range(12):
        if np.allclose(twice, 2.0**power * once, rtol=1e-12, atol=0) and np.any(once):
            return power
    raise ValueError(
        f"{name} is not homogeneous: σ(2x) is not 2^p σ(x) for any p from 0 to 11. Use"
        " hermite_coefficients at every norm."
    )
