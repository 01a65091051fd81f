"""Hermite coefficients from the values of a kernel, for kernels without a function."""

import jax
import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev

from ..activations._dual import DualActivation
from ..numerics._precision import float64

#: The largest degree; higher coefficients are lost in the rounding of kernel values, see `_taylor`.
MAX_DEGREE = 8
_NODES, _HALF_WIDTH = 28, 0.5
#: Every coefficient is positive at one of these norms: this convention fixes its sign.
_REFERENCES = np.array([0.3, 1.0, 3.0])


def coefficients_from_kernel(
    dual: DualActivation, radius: Float[np.ndarray, " r"], degree: int, derivative: bool
) -> tuple[Float[np.ndarray, "r l"], Float[np.ndarray, "r l"], Float[np.ndarray, " r"]]:
    r"""`c_l(r)`, their error and `k_σ(r², r², r²)`, for an unknown σ with a known kernel `k_σ`.

    By Mehler's formula the products `a_l(r, s) = c_l(r) c_l(s)` are the Taylor coefficients of
    `ρ ↦ k_σ(ρ r s, r², s²)`. They determine every `c_l` up to its sign, which has no effect on
    kernels:

        c_l(r) = a_l(r, s) / √a_l(s, s),

    where s is the one of three norms at which `a_l(s, s)` is largest.

    Raises:
        ValueError: the degree is above 8; the kernel is not finite, or not positive semidefinite.

    Cost: 84 values of the kernel for each norm.
    """
    check_degree_of_kernel(dual, degree)
    weights, cosines = _taylor(degree)

    def kernel(r, s, rho):
        with float64(), jax.ensure_compile_time_eval():
            q, q_other, rho = np.broadcast_arrays(r**2, s**2, rho)
            c = rho * np.sqrt(q) * np.sqrt(q_other)
            values = np.asarray(dual(*map(jax.numpy.asarray, (c, q, q_other)))[int(derivative)])
        if not np.isfinite(values).all():
            raise ValueError(
                f"the kernel of {dual.name} is not finite at norms from {np.min(r):.3g} to"
                f" {np.max(r):.3g}. Its series needs finite values: bring the inputs to other"
                " norms, or give `radii`."
            )
        return values

    def series(r, s, whole, whole_other):
        """`a_l` (r, s, l) of the kernel, scaled to a diagonal of 1."""
        scale = np.sqrt(whole[:, None] * whole_other)
        scale = np.where(scale > 0, scale, 1)
        values = kernel(r[:, None, None], s[:, None], cosines) / scale[..., None]
        return values @ weights.T

    second_moment, others = (kernel(r, r, np.ones(())) for r in (radius, _REFERENCES))
    if min(second_moment.min(initial=0), others.min()) < 0:
        _refuse(dual, "k(x, x) is negative at some norms")
    own = np.einsum("ssl->sl", series(_REFERENCES, _REFERENCES, others, others))
    best = np.argmax(own, axis=0)
    largest = np.max(own, axis=0)
    error = 4 * np.finfo(float).eps * np.abs(weights).sum(axis=1)
    if (own < -8 * error).any():
        _refuse(dual, f"its power series in the cosine has a coefficient {own.min():.3g}")
    seen = largest > 8 * error
    root = np.sqrt(np.where(seen, largest, 1))
    across = series(radius, _REFERENCES, second_moment, others)
    across = np.take_along_axis(across, best[None, None], axis=1)[:, 0]
    scale = np.sqrt(second_moment)[:, None]
    # A coefficient whose `a_l` is hidden by rounding is set to 0; its error is the root of that
    # rounding.
    errors = np.where(seen, error / root, np.sqrt(8 * error))
    return np.where(seen, across / root, 0) * scale, errors * scale, second_moment


def check_degree_of_kernel(dual: DualActivation, degree: int) -> None:
    """Raises an error if coefficients of this degree cannot be computed from kernel values."""
    if degree > MAX_DEGREE:
        raise ValueError(
            f"{dual.name} has no function, so its series comes from values of its kernel, and"
            f" coefficients above degree {MAX_DEGREE} are lost in their rounding; got degree"
            f" {degree}. Give the layer its function, take a smaller degree, or a method that needs"
            " no series, such as Nystroem."
        )


def _refuse(dual: DualActivation, what: str):
    raise ValueError(
        f"the kernel of {dual.name} is not positive semidefinite: {what}. No features have such a"
        " kernel: check its formula."
    )


def _taylor(degree: int) -> tuple[Float[np.ndarray, "l node"], Float[np.ndarray, " node"]]:
    """Taylor coefficients at 0 as weighted sums of values at Chebyshev nodes of [-1/2, 1/2].

    Dual kernels are analytic for |ρ| < 1, so that interpolation at 28 nodes has an error of `(2 +
    √3)^-28`, 1e-16. Rounding errors are multiplied by the sum of the absolute weights. This sum is
    4.8e5 at degree 4, 1.7e9 at degree 8 and 7.7e11 at degree 12.
    """
    angles = np.pi * (np.arange(_NODES) + 0.5) / _NODES
    nodes = np.cos(angles)
    to_chebyshev = 2 / _NODES * chebyshev.chebvander(nodes, _NODES - 1).T
    to_chebyshev[0] /= 2
    to_powers = np.zeros((_NODES, _NODES))
    for n, unit in enumerate(np.eye(_NODES)):
        to_powers[: n + 1, n] = chebyshev.cheb2poly(unit[: n + 1])
    scale = _HALF_WIDTH ** -np.arange(degree + 1.0)
    return scale[:, None] * (to_powers @ to_chebyshev)[: degree + 1], _HALF_WIDTH * nodes
