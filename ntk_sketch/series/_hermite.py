"""Hermite coefficients of a nonlinearity at any norm of its input."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._typing import Inputs
from ..activations._dual import DualActivation, value_and_derivative
from ._checks import Norms, checked_degree, checked_radius, real
from ._kernel_values import coefficients_from_kernel
from ._quadrature import gaussian_moments


class HermiteCoefficients(NamedTuple):
    """`c_l(r)` for l = 0..degree and what is known about them; NumPy float64.

    Attributes:
        values: (*r, degree + 1).
        error: estimate of the absolute error of each of them.
        second_moment: (*r), `E[σ(r g)²] = k_σ(r², r², r²) = Σ_l c_l(r)²` over all l, by the same
            quadrature.
    """

    values: Float[np.ndarray, "*r l"]
    error: Float[np.ndarray, "*r l"]
    second_moment: Float[np.ndarray, "*r"]

    @property
    def tail(self) -> Float[np.ndarray, "*r"]:
        """The share `1 - Σ_{l <= degree} c_l(r)² / k_σ(r², r², r²)` that the series leaves out,
        to rounding (1e-16).
        """
        kept = np.sum(self.values**2, axis=-1)
        whole = np.where(self.second_moment > 0, self.second_moment, 1)
        return np.asarray(np.maximum(1 - kept / whole, 0) * (self.second_moment > 0))


def hermite_coefficients(
    sigma: DualActivation | Callable,
    radius: Norms,
    degree: int,
    *,
    derivative: bool = False,
    tolerance: float = 1e-12,
    max_tail: float | None = None,
) -> HermiteCoefficients:
    r"""`c_l(r) = E[σ(r g) h_l(g)]`, g ~ N(0, 1), h_l the orthonormal Hermite polynomials.

    For `(u, v)` Gaussian of standard deviations `r, r'` and correlation ρ, Mehler's formula
    `E[h_l(g) h_m(g')] = ρ^l 1[l = m]` gives, for every pair of norms,

        k_σ(ρ r r', r², r'²) = Σ_l c_l(r) c_l(r') ρ^l.

    Coefficients at one norm cannot be carried to another through monomials of σ: the sums cancel.

    Derivative: see `derivative_coefficients`. `derivative=True` integrates `σ'` itself, which holds
    for a σ that jumps too: `σ'` is the derivative where there is one, jumps count for nothing, as
    in NT's `k_σ'` (of Sign, 0).

    Adaptive quadrature (`gaussian_moments`): kinks and jumps of σ, at 0 or elsewhere, cost panels,
    not digits. σ is evaluated in float64 on the host whatever JAX's default, so that a call also
    works while another function is traced. Of a `DualActivation` without a function the kernel's
    own values are used, which give coefficients up to degree 8, each up to its sign.

    Args:
        sigma: elementwise, of NumPy or JAX arrays; or a `DualActivation`.
        radius: norms r, of any shape.
        degree: the largest l, from 0 to 200.
        derivative: coefficients of the derivative of a `DualActivation` instead.
        tolerance: aim for the error, relative to `√E[σ²]`. What was reached is in `error`.
        max_tail: refuse norms where the series leaves out more than this share of `E[σ²]`.

    Raises:
        ValueError: a degree or a norm outside its range; σ not finite; `E[σ²]` infinite, so that
            the series converges at no ρ near 1; a tail above `max_tail`.
        TypeError: complex values; `derivative` of a plain function.

    Cost: `O(nodes · degree)` FLOPs, with about 1,500 nodes a norm for smooth σ at norms of order 1,
    in proportion to the number of oscillations for others; memory for 2^16 nodes at a time.

    Source: Han et al. 2022 (arXiv 2209.04121), for r = 1; Mehler 1866.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import hermite_coefficients
        >>> found = hermite_coefficients(np.sin, 0.5, degree=3)
        >>> np.abs(found.values).round(4)
        array([0.    , 0.4412, 0.    , 0.045 ])
        >>> bool(found.tail < 1e-3)
        True
    """
    degree = checked_degree(degree)
    radius = checked_radius(radius)
    if isinstance(sigma, DualActivation) and sigma.unit is not None:
        return _of_homogeneous(sigma, radius, degree, derivative, tolerance, max_tail)
    if isinstance(sigma, DualActivation) and not sigma.has_function:
        name, parts = (
            sigma.name,
            coefficients_from_kernel(sigma, radius.ravel(), degree, derivative),
        )
    else:
        function, name = elementwise_function(sigma, derivative)
        values, error = gaussian_moments(function, radius.ravel(), degree, tolerance, name)
        parts = values[:, :-1], error[:, :-1], values[:, -1]
    found = HermiteCoefficients(*(part.reshape((*radius.shape, *part.shape[1:])) for part in parts))
    if max_tail is not None:
        _check_tail(found, radius, max_tail, name)
    return found


def _of_homogeneous(
    sigma: DualActivation, radius: np.ndarray, degree: int, derivative: bool, *more
) -> HermiteCoefficients:
    """Those at norm one, of the nonlinearity that has the kernels there, times a power of norms."""
    tolerance, max_tail = more
    unit: Any = sigma.unit
    one = hermite_coefficients(
        unit, np.ones(()), degree, derivative=derivative, tolerance=tolerance, max_tail=max_tail
    )
    power = float(sigma.degree or 0) - derivative
    scale = np.where(radius > 0, np.maximum(radius, np.finfo(np.float64).tiny) ** power, power == 0)
    return HermiteCoefficients(
        scale[..., None] * one.values, scale[..., None] * one.error, scale**2 * one.second_moment
    )


def derivative_coefficients(
    values: Float[Inputs, "*r l_plus_1"], radius: Norms
) -> Float[np.ndarray, "*r l"]:
    r"""`c'_l(r) = E[σ'(r g) h_l(g)] = √(l+1) c_{l+1}(r) / r` of an absolutely continuous σ.

    With f(g) = σ(r g) and `(h_l φ)' = -√(l+1) h_{l+1} φ`, integration by parts turns
    `√(l+1) E[f h_{l+1}]` into `E[f' h_l] = r E[σ'(r g) h_l(g)]`. A jump of height J at x adds
    `J h_l(x/r) φ(x/r)` to the right side: for such σ use `hermite_coefficients(..., derivative=
    True)`. The limit at r → 0 is `c'_0 = σ'(0)` and `c'_l = 0` for l > 0 where `σ'` is continuous
    at 0, since `c_{l+1}` is of order `r^{l+1}`; dividing by r loses digits there (an error of
    `eps |σ(0)| / r`), the integral of `σ'` does not.

    Args:
        values: coefficients (*r, degree + 2) of σ, of one degree more than the result.
        radius: (*r).

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import derivative_coefficients, hermite_coefficients
        >>> values = hermite_coefficients(np.sin, 0.5, degree=3).values
        >>> np.abs(derivative_coefficients(values, np.array(0.5))).round(4)  # of cos
        array([0.8825, 0.    , 0.156 ])
    """
    values, radius = real(values, "values"), checked_radius(radius)
    l = np.arange(1, values.shape[-1])
    return np.sqrt(l) * values[..., 1:] / radius[..., None]


def elementwise_function(
    sigma: DualActivation | Callable, derivative: bool = False
) -> tuple[Callable, str]:
    """σ or σ' as a plain function, and what errors call it."""
    if isinstance(sigma, DualActivation):
        return (lambda x: value_and_derivative(sigma, x)[int(derivative)]), sigma.name
    if derivative:
        raise TypeError(
            "the derivative of a plain function is not known: pass that function itself, or a"
            " DualActivation"
        )
    return sigma, getattr(sigma, "__name__", "σ")


def _check_tail(found: HermiteCoefficients, radius: np.ndarray, max_tail: float, name: str):
    worst = np.argmax(found.tail)
    tail, r = found.tail.flat[worst], radius.flat[worst]
    if tail > max_tail:
        raise ValueError(
            f"the series of {name} has not converged at norm {r:.6g}: degree"
            f" {found.values.shape[-1] - 1} leaves out {tail:.3g} of its mass, more than max_tail ="
            f" {max_tail:.3g}. Raise the degree or bring the inputs to a smaller norm."
        )
