"""Adaptive quadrature of a function of a Gaussian against Hermite polynomials."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ._checks import finite
from ._host import on_host

#: Integrals reach to `_END` standard deviations; beyond `_NEARLY_END` there must be no mass.
_END, _NEARLY_END = 40.0, 32.0
_NODES = 16
_MAX_HALVINGS, _MAX_PANELS = 50, 1 << 15


def gaussian_moments(
    fn: Callable, radius: Float[np.ndarray, " r"], degree: int, tolerance: float, name: str
) -> tuple[Float[np.ndarray, "r m"], Float[np.ndarray, "r m"]]:
    r"""`E[f(r g) h_l(g)]` for l = 0..degree, then `E[f(r g)²]`: values and errors (r, degree + 2).

    The integrand, with the Gaussian density, is integrated over Gauss-Legendre panels, which are
    halved until a panel and its halves agree. Panels meet at 0, so that a kink there costs nothing;
    other kinks and jumps are enclosed by ever smaller panels. The first panels shrink towards 0 at
    the scale of both f and g, so that a bump of f near 0 is found at any norm. `f` and `h_l` are
    each multiplied by `√φ`, since they could overflow alone.

    The error is the sum of the differences of panels and their halves, plus rounding. That is the
    error of the panels; that of the halves is far smaller.
    """
    edges = _first_edges(float(radius.max()))
    who = np.repeat(np.arange(len(radius)), len(edges) - 1)
    low, high = np.tile(edges[:-1], len(radius)), np.tile(edges[1:], len(radius))
    parents = _panels(fn, radius[who], low, high, degree, name)
    scale = _scale(parents, who, radius, np.abs(low + high) / 2 > _NEARLY_END, name)
    total, error = np.zeros((2, len(radius), degree + 2))
    budget = np.full(len(radius), _MAX_PANELS)
    for halving in range(_MAX_HALVINGS):
        middle = (low + high) / 2
        left = _panels(fn, radius[who], low, middle, degree, name)
        right = _panels(fn, radius[who], middle, high, degree, name)
        difference = np.abs(left + right - parents)
        budget -= np.bincount(who, minlength=len(radius))
        good = np.all(difference <= tolerance / 32 * scale[who], axis=1)
        good |= (budget[who] < 0) | (halving == _MAX_HALVINGS - 1)
        np.add.at(total, who[good], (left + right)[good])
        np.add.at(error, who[good], difference[good])
        bad = ~good
        if not bad.any():
            break
        low, high = np.r_[low[bad], middle[bad]], np.r_[middle[bad], high[bad]]
        parents, who = np.r_[left[bad], right[bad]], np.r_[who[bad], who[bad]]
    return total, error + 8 * np.finfo(np.float64).eps * scale


def _first_edges(largest_radius: float) -> np.ndarray:
    """Edges in g: 0, powers of 1/4 down to the scale of f at the largest norm, then wider ones."""
    steps = max(int(np.ceil(np.log(max(4 * largest_radius, 1)) / np.log(4))), 0)
    half = np.r_[4.0 ** -np.arange(steps, 0, -1), 1:9, 10, 12, 16, 24, _NEARLY_END, _END]
    return np.r_[-half[::-1], 0, half]


def _scale(panels, who, radius, at_the_end, name) -> np.ndarray:
    """The scale of relative errors: `√E[f²]` for coefficients, `E[f²]` for the second moment.

    Raises:
        ValueError: E[f²] has mass beyond the range.
    """
    second, beyond = np.zeros((2, len(radius)))
    np.add.at(second, who, panels[:, -1])
    np.add.at(beyond, who[at_the_end], panels[at_the_end, -1])
    share = np.divide(beyond, second, out=np.zeros_like(second), where=second > 0)
    worst = np.argmax(share)
    if share[worst] > 1e-12:
        raise ValueError(
            f"the Hermite series of {name} does not converge at norm {radius[worst]:.6g}: a share"
            f" of {share[worst]:.3g} of E[{name}(r g)²] comes from |g| > {_NEARLY_END:.0f}, in the"
            f" tail of the integral up to |g| = {_END:.0f}. Use smaller norms (a smaller W_std)."
        )
    scale = np.repeat(np.sqrt(second)[:, None], panels.shape[1], axis=1)
    scale[:, -1] = second
    return scale


def _panels(fn, radius, low, high, degree: int, name: str) -> Float[np.ndarray, "p m"]:
    """All moments of one Gauss-Legendre rule on each panel, in parts of 2^12 panels."""
    out = np.empty((len(low), degree + 2))
    x, w = np.polynomial.legendre.leggauss(_NODES)
    for start in range(0, len(low), 1 << 12):
        part = slice(start, start + (1 << 12))
        half = (high[part] - low[part])[:, None] / 2
        g = (high[part] + low[part])[:, None] / 2 + half * x
        argument = radius[part, None] * g
        value = on_host(fn, argument.ravel(), name).reshape(g.shape)
        _check_overflow(value, radius[part], g, name)
        value = finite(value, argument, name)
        root_density = (2 * np.pi) ** -0.25 * np.exp(-(g**2) / 4)
        value = value * root_density
        weighted = half * w * value
        for l, h in enumerate(_hermite_functions(g, root_density, degree)):
            out[part, l] = np.einsum("pk,pk->p", weighted, h)
        out[part, -1] = np.einsum("pk,pk->p", weighted, value)
    return out


def _check_overflow(value: np.ndarray, radius: np.ndarray, g: np.ndarray, name: str) -> None:
    """Refuses a σ that overflows: its series diverges, or its tail cannot be bounded."""
    infinite = np.argwhere(np.isinf(value))
    if len(infinite):
        panel, node = infinite[0]
        r, g = radius[panel], g[panel, node]
        raise ValueError(
            f"the Hermite series of {name} does not converge at norm {r:.6g} in float64: {name} is"
            f" {value[panel, node]} at {r * g:.6g}, {abs(g):.3g} standard deviations out, so that"
            " the tail of its series has no bound. Use smaller norms (a smaller W_std, or the"
            " `radii` of a method)."
        )


def _hermite_functions(g: np.ndarray, first: np.ndarray, degree: int):
    """`h_l(g) √φ(g)`, l = 0..degree: `√(l+1) h_{l+1} = g h_l - √l h_{l-1}`, bounded throughout."""
    below, h = np.zeros_like(g), first
    for l in range(degree + 1):
        yield h
        below, h = h, (g * h - np.sqrt(l) * below) / np.sqrt(l + 1)
