r"""Gegenbauer polynomials of any dimension, and series of zonal functions in them.

`P_l` of dimension d is the Gegenbauer polynomial of degree l and index (d - 2) / 2, scaled to
`P_l(1) = 1`: Chebyshev's for d = 2, Legendre's for d = 3. On the unit sphere of R^d, `P_l(<x, x'>)`
is the kernel of the spherical harmonics of degree l divided by their number `α_l`, and

    ∫ P_l P_m dμ = 1[l = m] / α_l,        μ the law of <x, x'>, of density ∝ (1 - t²)^{(d-3)/2}.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float
from scipy.linalg import eigvalsh_tridiagonal

from .._typing import Inputs
from ._checks import checked_degree, checked_dimension, finite, real
from ._host import on_host

_FIRST_NODES, _MAX_NODES = 64, 2048

#: Nodes of smaller weight w are left out. There `w |p_l| <= √w`, and `p_l` overflows.
_LEAST_WEIGHT = 1e-60


class GegenbauerCoefficients(NamedTuple):
    """Coefficients of `f(t) = Σ_l f_l P_l(t)`: `values` f_l (degree + 1,) and estimates of their
    absolute errors, in NumPy float64.
    """

    values: Float[np.ndarray, " l"]
    error: Float[np.ndarray, " l"]


def gegenbauer_coefficients(
    f: Callable, dimension: int, degree: int, *, tolerance: float = 1e-12
) -> GegenbauerCoefficients:
    r"""Gegenbauer coefficients `f_l = α_l ∫ f P_l dμ` of a zonal function f on [-1, 1].

    Use this for a function that is given by its values. If its power series is known, as that of
    every dual kernel, `gegenbauer_from_powers` is more accurate.

    The number of nodes of a Gauss quadrature of μ is doubled until the integrals `∫ f p_l dμ` with
    the orthonormal `p_l = √α_l P_l` agree to `tolerance`, relative to `√∫ f² dμ`, or 2,048 nodes
    are reached.

    These integrals have rounding errors of `nodes · eps √∫ f² dμ`, and `f_l` errors that are `√α_l`
    times larger. In high dimensions almost all t are near 0, where values of f do not determine its
    high degrees. `error` shows this (d = 10,000: 2e-10 for l = 2, above 1 for l = 8).

    Args:
        f: an elementwise function of NumPy or JAX arrays, evaluated in float64 on the host.
        dimension: d >= 2.
        degree: the largest l, from 0 to 200.
        tolerance: the error to aim for.

    Raises:
        ValueError: a dimension or degree outside its range; f is not finite.
        TypeError: complex values.

    Cost: `O(nodes² + nodes · degree)` FLOPs.

    Source: Han, Zandieh and Avron 2022 (arXiv 2202.03474), section on Gegenbauer polynomials;
    Golub and Welsch 1969.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import gegenbauer_coefficients
        >>> found = gegenbauer_coefficients(np.exp, dimension=3, degree=2)
        >>> np.round(found.values, 4)
        array([1.1752, 1.1036, 0.3578])
    """
    degree, dimension = checked_degree(degree), checked_dimension(dimension)
    nodes = max(_FIRST_NODES, 2 * degree + 2)
    coarse = _moments(f, dimension, degree, nodes)[0]
    while True:
        nodes *= 2
        moments, norm = _moments(f, dimension, degree, nodes)
        difference = np.abs(moments - coarse)
        if np.all(difference <= tolerance * norm) or nodes >= _MAX_NODES:
            break
        coarse = moments
    scale = root_harmonic_dimension(dimension, degree)
    rounding = nodes * np.finfo(np.float64).eps * norm  # the rule has `nodes` steps of a recurrence
    return GegenbauerCoefficients(scale * moments, scale * (difference + rounding))


def gegenbauer_from_powers(dimension: int, degree: int) -> Float[np.ndarray, "l n"]:
    r"""The matrix M of `t^n = Σ_l M[l, n] P_l(t)`, (degree + 1, degree + 1), upper triangular.

    Use this to turn a power series into a Gegenbauer series without loss of digits.

    Column n + 1 is column n times t, by `(2l + d - 2) t P_l = (l + d - 2) P_{l+1} + l P_{l-1}`.
    Entries are not negative and columns sum to 1, so that nothing cancels, in any dimension. The
    kernel of a nonlinearity therefore has the coefficients

        f_l(r, r') = Σ_n M[l, n] c_n(r) c_n(r'),

    with radial factors `√M[l, n] c_n(r)`: a generalised zonal kernel.

    Cost: `O(degree²)`.

    Source: Han, Zandieh and Avron 2022 (arXiv 2202.03474), generalised zonal kernels.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import gegenbauer_from_powers
        >>> gegenbauer_from_powers(dimension=3, degree=2)[2].round(4)  # t² = 2/3 P_2 + ...
        array([0.    , 0.    , 0.6667])
    """
    degree, dimension = checked_degree(degree), checked_dimension(dimension)
    up, down = _recurrence(dimension, degree)
    matrix = np.zeros((degree + 1, degree + 1))
    matrix[0, 0] = 1
    for n in range(degree):
        column = matrix[:, n]
        matrix[1:, n + 1] += up[:-1] * column[:-1]
        matrix[:-1, n + 1] += down[1:] * column[1:]
    return matrix


def gegenbauer_polynomials(t: Inputs, dimension: int, degree: int):
    """`P_l(t)` for l = 0..degree, (*t.shape, degree + 1): in JAX for JAX arrays, else in NumPy.

    Use this to evaluate a Gegenbauer series. The recurrence is stable on [-1, 1]; its coefficients
    are at most 2.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import gegenbauer_polynomials
        >>> np.round(gegenbauer_polynomials(np.array([0.5]), dimension=3, degree=2), 4)
        array([[ 1.   ,  0.5  , -0.125]])
    """
    degree, dimension = checked_degree(degree), checked_dimension(dimension)
    xp = jnp if isinstance(t, jax.Array) else np
    t = xp.asarray(t)
    up, down = _recurrence(dimension, degree)
    below, p = xp.zeros_like(t), xp.ones_like(t)
    values = [p]
    for l in range(degree):
        below, p = p, (t * p - float(down[l]) * below) / float(up[l])
        values.append(p)
    return xp.stack(values, axis=-1)


def log_harmonic_dimension(dimension: int, degree: int) -> Float[np.ndarray, " l"]:
    """`log α_l`, l = 0..degree: `α_l = (2l + d - 2) / l · C(l + d - 3, l - 1)`, α_0 = 1.

    It is a logarithm because α_l overflows float64 early in high dimensions.
    """
    degree, dimension = checked_degree(degree), checked_dimension(dimension)
    l = np.arange(1, degree + 1)
    binomial = np.cumsum(np.log1p((dimension - 2) / np.maximum(l - 1, 1)) * (l > 1))
    return np.r_[0.0, np.log((2 * l + dimension - 2) / l) + binomial]


def root_harmonic_dimension(dimension: int, degree: int) -> Float[np.ndarray, " l"]:
    """`√α_l`, or 1e260 if it is larger: no coefficient of such a degree has correct digits."""
    return np.exp(np.minimum(log_harmonic_dimension(dimension, degree) / 2, 600.0))


def gauss_rule(dimension: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [-1, 1] and weights (of sum 1) of the Gauss quadrature of μ.

    In high dimensions nodes of negligible weight are left out. Nodes are the eigenvalues of the
    recurrence of the orthonormal `p_l`. Weights are `1 / Σ_l p_l²`, which keeps the relative
    precision of the smallest. SciPy's rules for Jacobi weights overflow in high dimensions.
    """
    off = _orthonormal_recurrence(dimension, nodes)
    t = np.asarray(eigvalsh_tridiagonal(np.zeros(nodes), off[:-1]))
    t = (t - t[::-1]) / 2
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.asarray(sum(p**2 for p in orthonormal_sequence(t, dimension, nodes - 1)))
        kept = total < 1 / _LEAST_WEIGHT
    weights = 1 / total[kept]
    return t[kept], weights / weights.sum()


def orthonormal_polynomials(t: np.ndarray, dimension: int, degree: int) -> np.ndarray:
    """`p_l(t) = √α_l P_l(t)`, (*t.shape, degree + 1); `∫ p_l p_m dμ = 1[l = m]`."""
    return np.stack(list(orthonormal_sequence(t, dimension, degree)), axis=-1)


def orthonormal_sequence(t, dimension: int, degree: int):
    """Yields `p_l(t)` for l = 0..degree, for a NumPy or JAX array."""
    off = [float(b) for b in _orthonormal_recurrence(dimension, degree + 1)]
    below, p = 0 * t, 0 * t + 1
    for l in range(degree + 1):
        yield p
        below, p = p, (t * p - (off[l - 1] if l else 0) * below) / off[l]


def _orthonormal_recurrence(dimension: int, count: int) -> np.ndarray:
    """`b_l`, l = 0..count - 1, of `t p_l = b_l p_{l+1} + b_{l-1} p_{l-1}`."""
    l, d = np.arange(1, count + 1, dtype=np.float64), float(dimension)
    with np.errstate(invalid="ignore"):
        squares = l * (l + d - 3) / ((2 * l + d - 2) * (2 * l + d - 4))
    squares[0] = 1 / d  # 0/0 for d = 2
    return np.sqrt(squares)


def _recurrence(dimension: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """`t P_l = up_l P_{l+1} + down_l P_{l-1}`, l = 0..degree, `up + down = 1`."""
    l = np.arange(degree + 1, dtype=np.float64)
    down = l / np.maximum(2 * l + dimension - 2, 1)  # 0 for l = 0, d = 2 too
    return 1 - down, down


def _moments(f: Callable, dimension: int, degree: int, nodes: int) -> tuple[np.ndarray, float]:
    """`∫ f p_l dμ`, l = 0..degree, and `√∫ f² dμ`."""
    t, weights = gauss_rule(dimension, nodes)
    values = zonal_values(f, t)
    polynomials = orthonormal_polynomials(t, dimension, degree)
    return (weights * values) @ polynomials, float(np.sqrt(weights @ values**2))


def zonal_values(f: Callable, t: np.ndarray) -> np.ndarray:
    """`f(t)` in float64, checked to be finite."""
    return finite(real(on_host(f, t, "f"), "f"), t, "f")
