r"""Hermite coefficients in closed form, for NT's nonlinearities that have one: oracles.

`c_l(r) = E[σ(r g) h_l(g)]` for l = 0..degree, an array (*r, degree + 1); parameters as in NT. They
are read off the generating function: `e^{tg - t²/2} = Σ_l h_l(g) t^l / √l!`, so that

    F(t) = E[σ(r (g + t))] = Σ_l c_l(r) t^l / √l!.

Cost: O(degree) a norm. All raise as `hermite_coefficients` does on degrees and norms.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from ntk_sketch.series._checks import Norms, checked_degree, checked_radius, real

Coefficients: TypeAlias = Float[np.ndarray, "*r l"]
_ROOT_2_PI = np.sqrt(2 * np.pi)


def exp_coefficients(radius: Norms, degree: int, a: float = 1.0, b: float = 1.0) -> Coefficients:
    """`a e^{bx}`: `F = a e^{b²r²/2 + brt}`.

    Raises:
        ValueError: coefficients above the range of float64, from a norm of about 37 / b on.
    """
    r, degree = checked_radius(radius), checked_degree(degree)
    with np.errstate(over="ignore", invalid="ignore"):
        values = a * _powers(b * r, degree, np.exp((b * r) ** 2 / 2))
    if not np.isfinite(values).all():
        raise ValueError(
            f"coefficients of Exp({a}, {b}) overflow float64 at norm {r.max():.6g}: they are of the"
            " order of exp(b² r² / 2). Use smaller norms."
        )
    return values


def sin_coefficients(
    radius: Norms, degree: int, a: float = 1.0, b: float = 1.0, c: float = 0.0
) -> Coefficients:
    """`a sin(bx + c)`: `F = a e^{-b²r²/2} sin(brt + c)`."""
    return a * _waves(radius, degree, b, [np.sin(c), np.cos(c), -np.sin(c), -np.cos(c)])


def cos_coefficients(
    radius: Norms, degree: int, a: float = 1.0, b: float = 1.0, c: float = 0.0
) -> Coefficients:
    """`a cos(bx + c)`, a sine with its phase a quarter on."""
    return a * _waves(radius, degree, b, [np.cos(c), -np.sin(c), -np.cos(c), np.sin(c)])


def rbf_coefficients(radius: Norms, degree: int, gamma: float = 1.0) -> Coefficients:
    """`√2 sin(√(2γ) x + π/4)`."""
    return sin_coefficients(radius, degree, np.sqrt(2), np.sqrt(2 * gamma), np.pi / 4)


def gaussian_coefficients(
    radius: Norms, degree: int, a: float = 1.0, b: float = -1.0
) -> Coefficients:
    r"""`a e^{bx²}`: `F = a (1 - 2br²)^{-1/2} e^{st²}`, `s = br² / (1 - 2br²)`.

    `c_{2k}²` falls like `(2s)^{2k}`: for b > 0 the series converges where `4br² < 1`.

    Raises:
        ValueError: `4br² >= 1`.
    """
    r, degree = checked_radius(radius), checked_degree(degree)
    if (4 * b * r**2 >= 1).any():
        raise ValueError(
            f"the series of Gaussian({a}, {b}) does not converge at norm {r.max():.6g}: its tail is"
            f" infinite from norm {(4 * b) ** -0.5:.6g} on"
        )
    v = 1 - 2 * b * r**2
    s = b * r**2 / v
    values = np.zeros((*r.shape, degree + 1))
    values[..., 0] = a / np.sqrt(v)
    for l in range(2, degree + 1, 2):  # √(2k)! / k!
        values[..., l] = values[..., l - 2] * s * np.sqrt(l * (l - 1)) / (l / 2)
    return values


def gabor_coefficients(radius: Norms, degree: int) -> Coefficients:
    r"""`e^{-x²} sin x`.

    With `v = 1 + 2r²`, F is the imaginary part of `v^{-1/2} exp((-r²t² + irt - r²/2) / v)`, the
    generating function of Hermite polynomials at `i / (2√v)`, whose terms all have one sign.
    """
    r, degree = checked_radius(radius), checked_degree(degree)
    v = 1 + 2 * r**2
    values = np.zeros((*r.shape, degree + 1))
    step = r * np.sqrt(2 / v)
    below, term = np.zeros_like(r), np.exp(-(r**2) / (2 * v)) / np.sqrt(v)
    for l in range(degree + 1):  # i^l times `term` is the complex coefficient
        values[..., l] = (0, 1, 0, -1)[l % 4] * term
        rise = step * term / np.sqrt(2 * v * (l + 1)) + step**2 * below * np.sqrt(l / (l + 1))
        below, term = term, rise
    return values


def erf_coefficients(
    radius: Norms, degree: int, a: float = 1.0, b: float = 1.0, c: float = 0.0
) -> Coefficients:
    """`a erf(bx) + c`: `F = a erf(ut) + c`, `u = br / √(1 + 2b²r²)`.

    `c_l²` falls like `(2u²)^l`, for large norms like `l^{-3/2}`.
    """
    r, degree = checked_radius(radius), checked_degree(degree)
    values = a * _erf(b * r, degree)
    values[..., 0] += c
    return values


def gelu_coefficients(radius: Norms, degree: int) -> Coefficients:
    """`x Φ(x)`, from the coefficients p_l of `Φ = (1 + erf(x / √2)) / 2`.

        c_l = r (√(l+1) p_{l+1} + √l p_{l-1}),    since g h_l = √(l+1) h_{l+1} + √l h_{l-1}.

    Of the exact Gelu, as NT's kernel, whatever `approximate` says of the finite network.
    """
    r, degree = checked_radius(radius), checked_degree(degree)
    p = _erf(r / np.sqrt(2), degree + 1) / 2
    p[..., 0] = 0.5
    return r[..., None] * _times_argument(p)


def sign_coefficients(radius: Norms, degree: int) -> Coefficients:
    """`sign(x)`, whatever the norm: `c_l = 2 φ(0) h_{l-1}(0) / √l`, l odd."""
    values = 2 * rectified_monomial_coefficients(radius, degree, 0)
    values[..., 0] = 0
    return values


def ab_relu_coefficients(radius: Norms, degree: int, a: float, b: float) -> Coefficients:
    """`a min(x, 0) + b max(x, 0)`: Relu (0, 1), LeakyRelu (α, 1), Abs (-1, 1)."""
    r = checked_radius(radius)
    values = (b - a) * rectified_monomial_coefficients(r, degree, 1)
    if degree > 0:  # a x + (b - a) max(x, 0)
        values[..., 1] += a * r
    return values


def rectified_monomial_coefficients(radius: Norms, degree: int, power: int) -> Coefficients:
    """`(x >= 0) x^p`: `c_l √l = p r` times `c_{l-1}` of p - 1, down to the step function."""
    r, degree = checked_radius(radius), checked_degree(degree)
    power = _checked_power(power)
    values = np.zeros((*r.shape, degree + 1))
    l = np.arange(1, degree + 1)
    for p in range(power + 1):
        above = p * r[..., None] * values[..., :-1] if p else _at_zero(degree) / _ROOT_2_PI
        values[..., 1:] = above / np.sqrt(l)
        values[..., 0] = r**p * _half_moment(p)
    return values


def monomial_coefficients(radius: Norms, degree: int, power: int) -> Coefficients:
    """`x^p`."""
    return polynomial_coefficients(radius, degree, [0.0] * _checked_power(power) + [1.0])


def polynomial_coefficients(radius: Norms, degree: int, coef: Sequence[float]) -> Coefficients:
    """`Σ_p coef[p] x^p`, by Horner's rule: multiplication by `x = r g` is tridiagonal in h_l."""
    r, degree = checked_radius(radius), checked_degree(degree)
    size = max(degree + 1, len(coef)) + 1
    values = np.zeros((*r.shape, size))
    for coefficient in real(coef, "coef")[::-1]:
        values[..., :-1] = r[..., None] * _times_argument(values)
        values[..., 0] += coefficient
    return values[..., : degree + 1]


def exp_normalized_coefficients(
    radius: Norms, degree: int, gamma: float = 1.0, shift: float = -1.0
) -> Coefficients:
    """Of NT's ExpNormalized, a kernel `r r' e^{γ (ρ + shift)}` without a σ; γ >= 0.

    Their signs are a choice: every one that makes `Σ_l c_l(r) c_l(r') ρ^l` the kernel will do.
    """
    r, degree = checked_radius(radius), checked_degree(degree)
    if not gamma >= 0:
        raise ValueError(f"gamma must be 0 or more for a positive definite kernel, got {gamma}")
    powers = _powers(np.sqrt(gamma), degree, np.exp(gamma * shift / 2))
    return r[..., None] * powers


def _waves(radius: Norms, degree: int, b: float, phases: list) -> Coefficients:
    """`e^{-b²r²/2} (br)^l / √l!` times the phases in turn: of a wave and its derivatives at 0."""
    r, degree = checked_radius(radius), checked_degree(degree)
    size = _powers(b * r, degree, np.exp(-((b * r) ** 2) / 2))
    return size * np.array(phases)[np.arange(degree + 1) % 4]


def _erf(r: np.ndarray | float, degree: int) -> np.ndarray:
    """Of `erf`: `√l! (-1)^k 2 u^l / (√π k! l)`, l = 2k + 1."""
    u = r / np.sqrt(1 + 2 * r**2)
    values = np.zeros((*np.shape(r), degree + 1))
    term = 2 / np.sqrt(np.pi) * u
    for l in range(1, degree + 1, 2):
        values[..., l] = term
        term = -term * u**2 * np.sqrt((l + 1) * (l + 2)) / ((l + 1) / 2) * l / (l + 2)
    return values


def _powers(
    x: np.ndarray | float, degree: int, first: np.ndarray | float
) -> Float[np.ndarray, "*r l"]:
    """`first x^l / √l!`, l = 0..degree, on a new last axis.

    A tiny `first` goes in first: without it large powers overflow.
    """
    factors = np.asarray(x)[..., None] / np.sqrt(np.arange(1, degree + 1))
    return np.cumprod(np.concatenate([np.asarray(first)[..., None], factors], axis=-1), axis=-1)


def _times_argument(values: np.ndarray) -> np.ndarray:
    """Coefficients of `g f(g)` from those of f, of which one more is needed."""
    root = np.sqrt(np.arange(1, values.shape[-1]))
    product = root * values[..., 1:]
    product[..., 1:] += root[:-1] * values[..., :-2]
    return product


def _at_zero(degree: int) -> np.ndarray:
    """`h_l(0)`, l = 0..degree - 1."""
    values = np.zeros(degree)
    values[:1] = 1
    for l in range(2, degree, 2):
        values[l] = -np.sqrt((l - 1) / l) * values[l - 2]
    return values


def _half_moment(p: int) -> float:
    """`E[g^p 1(g > 0)]`: (p - 1) times that of p - 2, from 1/2 and φ(0)."""
    moment = 0.5 if p % 2 == 0 else 1 / _ROOT_2_PI
    for factor in range(p - 1, 0, -2):
        moment *= factor
    return moment


def _checked_power(power: int) -> int:
    if isinstance(power, bool) or not isinstance(power, (int, np.integer)) or power < 0:
        raise ValueError(f"power must be an integer of 0 or more, got {power!r}")
    return int(power)


def arc_cosine_coefficients(order: int, degree: int) -> Float[np.ndarray, " l"]:
    r"""Taylor coefficients of the arc-cosine kernels of order 0 and 1, scaled to κ(1) = 1.

        κ_0(ρ) = (π - arccos ρ) / π = 1/2 + (1/π) Σ_k (2k)! / (4^k k!² (2k+1)) ρ^{2k+1},
        κ_1(ρ) = (√(1-ρ²) + ρ (π - arccos ρ)) / π = 1/π + ∫_0^ρ κ_0.

    Those of Relu are `κ_1 / 2` at unit variances, and of its derivative `κ_0 / 2`.

    Source: Cho and Saul 2009, eqs. (3), (5) and (6).
    """
    degree = checked_degree(degree)
    if order not in (0, 1):
        raise ValueError(f"order must be 0 or 1, got {order!r}")
    zero = np.zeros(degree + 1)
    zero[0] = 0.5
    central = 1 / np.pi  # (2k)! / (4^k k!²), which falls like k^{-1/2}
    for l in range(1, degree + 1, 2):
        zero[l] = central / l
        central *= l / (l + 1)
    if order == 0:
        return zero
    return np.r_[1 / np.pi, zero[:-1] / np.arange(1, degree + 1)]
