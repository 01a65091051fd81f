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
    """Hermite coefficients `c_l(r)` for l = 0..degree with error estimates, in NumPy float64.

    Attributes:
        values: `c_l(r)` (*r, degree + 1).
        error: estimates of their absolute errors.
        second_moment: `E[σ(r g)²] = k_σ(r², r², r²) = Σ_l c_l(r)²` over all l, (*r), by the same
            quadrature.
    """

    values: Float[np.ndarray, "*r l"]
    error: Float[np.ndarray, "*r l"]
    second_moment: Float[np.ndarray, "*r"]

    @property
    def tail(self) -> Float[np.ndarray, "*r"]:
        """The share of the kernel that the series leaves out, to rounding (1e-16).

        It is `1 - Σ_{l <= degree} c_l(r)² / k_σ(r², r², r²)`.
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
    r"""Hermite coefficients `c_l(r) = E[σ(r g) h_l(g)]` of a nonlinearity, with g ~ N(0, 1).

    Use this for the power series of a dual kernel at given norms; `HermiteTable` gives the
    coefficients at any norm inside of a compiled function.

    `h_l` are the orthonormal Hermite polynomials. Let `(u, v)` be Gaussian with standard deviations
    `r, r'` and correlation ρ. Mehler's formula `E[h_l(g) h_m(g')] = ρ^l 1[l = m]` gives, for every
    pair of norms,

        k_σ(ρ r r', r², r'²) = Σ_l c_l(r) c_l(r') ρ^l.

    Coefficients at one norm cannot be computed from those at another through monomials of σ: the
    sums cancel.

    `derivative=True` integrates `σ'` itself, also for a σ that jumps: `σ'` is then the derivative
    outside of the jumps, as in NT's `k_σ'` (0 for Sign). See also `derivative_coefficients`.

    The quadrature is adaptive (`gaussian_moments`): kinks and jumps of σ cost more panels, but no
    accuracy. σ is evaluated in float64 on the host whatever JAX's default, so that a call also
    works while another function is traced. For a `DualActivation` without a function the values of
    its kernel are used, which give coefficients up to degree 8, each up to its sign.

    Args:
        sigma: an elementwise function of NumPy or JAX arrays, or a `DualActivation`.
        radius: norms r, of any shape.
        degree: the largest l, from 0 to 200.
        derivative: coefficients of the derivative of a `DualActivation` instead.
        tolerance: the error to aim for, relative to `√E[σ²]`. The result's `error` is the one
            reached.
        max_tail: refuse norms at which the series leaves out more than this share of `E[σ²]`.

    Raises:
        ValueError: a degree or norm outside its range; σ is not finite; `E[σ²]` is infinite, so
            that the series converges at no ρ near 1; a tail above `max_tail`.
        TypeError: complex values; `derivative` of a plain function.

    Cost: `O(nodes · degree)` FLOPs. Smooth σ at norms of order 1 take about 1,500 nodes a norm;
    others take nodes in proportion to their oscillations. Memory is for 2^16 nodes at a time.

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
    """Coefficients of `sigma.unit` at norm one, times powers of the norms."""
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
    r"""Hermite coefficients of σ' from those of an absolutely continuous σ.

    Use this to save a second quadrature. For a σ that jumps, or at tiny norms, use
    `hermite_coefficients(..., derivative=True)`.

        c'_l(r) = E[σ'(r g) h_l(g)] = √(l+1) c_{l+1}(r) / r.

    This follows with f(g) = σ(r g) and `(h_l φ)' = -√(l+1) h_{l+1} φ`: integration by parts turns
    `√(l+1) E[f h_{l+1}]` into `E[f' h_l] = r E[σ'(r g) h_l(g)]`. A jump of height J at x would add
    `J h_l(x/r) φ(x/r)`. Division by a small r has an error of `eps |σ(0)| / r`, which the integral
    of `σ'` has not. (The limit at r → 0 is `c'_0 = σ'(0)` and `c'_l = 0` for l > 0, if `σ'` is
    continuous at 0.)

    Args:
        values: coefficients (*r, degree + 2) of σ, one degree more than the result.
        radius: norms (*r).

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
    """σ or σ' as a plain function, and its name for errors."""
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
