"""Recovery of an unknown zonal kernel from few values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from .._arguments import checked_integer, checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ._checks import checked_degree, checked_dimension
from ._gegenbauer import gauss_rule, orthonormal_polynomials, root_harmonic_dimension, zonal_values


class ZonalRecovery(NamedTuple):
    """The result of `recover_zonal`: `Σ_l f_l P_l ≈ f`, from n values.

    Attributes:
        values: Gegenbauer coefficients f_l, l = 0..degree.
        residual: estimate of `√∫ (Σ_l f_l P_l - f)² dμ`, the root mean square error on the sphere.
        norm: estimate of `√∫ f² dμ`.
        cosines: the points (n,) at which f was evaluated.
    """

    values: Float[np.ndarray, " l"]
    residual: float
    norm: float
    cosines: Float[np.ndarray, " n"]


def recover_zonal(
    f: Callable, dimension: int, degree: int, *, key: PRNGKey, samples: int | None = None
) -> ZonalRecovery:
    r"""A nearly optimal polynomial approximation of a zonal function, from few values.

    Use this if values of the function are expensive. The method is least squares at cosines sampled
    by leverage scores.

    On the span of `p_0, ..., p_q` (orthonormal under μ, see `gegenbauer_coefficients`) the leverage
    score of a cosine t is `τ(t) = Σ_l p_l(t)²`, with integral q + 1. Cosines are drawn with a
    density near `τ / (q + 1)` with respect to μ, and weighted by its inverse. Then `O(q log q + q /
    ε)` values give an error of at most 1 + ε times the smallest (in expectation for the second
    term), in any dimension. Uniform points on the sphere, which are optimal for functions that are
    not zonal, would need as many values as there are spherical harmonics, the value of τ at t = ±1.

    The density is constant on cells: a node of a Gauss rule of μ is drawn with probability
    `w_i τ(t_i) / (q + 1)`, then a point of its cell, which has the μ-measure `w_i`, from μ. The
    density is therefore known exactly, and the Gram matrix of the weighted regression has exactly
    the expectation I.

    Args:
        f: an elementwise function of t = <x, x'>, of NumPy or JAX arrays; called once, with all t.
        dimension: d >= 2, of the space of the sphere.
        degree: q.
        key: of `jax.random`.
        samples: number n of values; None: `⌈4 (q + 1) (1 + log(q + 1))⌉`.

    Raises:
        ValueError: a dimension or degree outside its range; fewer than 2 (q + 1) samples; f is not
            finite.
        TypeError: a dimension, degree or number of samples that is not an integer; f is not real.

    Cost: n values of f and `O(n q²)` FLOPs. In high dimensions coefficients of high degree have
    errors that are `√α_l` times those of the expansion in `p_l`, as in `gegenbauer_coefficients`.

    Source: Zandieh, Han and Avron 2022 (arXiv 2202.12995), where the sampled space is that of all
    spherical harmonics, whose leverage is constant; here it is that of zonal functions.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import recover_zonal
        >>> import jax
        >>> found = recover_zonal(np.exp, dimension=5, degree=6, key=jax.random.key(0))
        >>> found.residual < 1e-4, len(found.cosines)
        (True, 83)
    """
    degree, dimension = checked_degree(degree), checked_dimension(dimension)
    q = degree + 1
    hint = " Fewer than 2 (degree + 1) values do not determine the polynomial stably."
    n = math.ceil(4 * q * (1 + math.log(q))) if samples is None else samples
    n = checked_integer(n, "samples", least=2 * q, hint=hint)
    t, inverse_density = _leverage_sample(dimension, degree, n, checked_key(key))
    values = zonal_values(f, t)
    root = np.sqrt(inverse_density)
    polynomials = orthonormal_polynomials(t, dimension, degree)
    solution, *_ = np.linalg.lstsq(root[:, None] * polynomials, root * values)
    squares = inverse_density * (polynomials @ solution - values) ** 2
    return ZonalRecovery(
        solution * root_harmonic_dimension(dimension, degree),
        # The fit uses q of the n degrees of freedom.
        float(np.sqrt(squares.sum() / (n - q))),
        float(np.sqrt(np.mean(inverse_density * values**2))),
        t,
    )


def _leverage_sample(dimension: int, degree: int, n: int, key: PRNGKey):
    """Cosines (n,) and the inverse of their density with respect to μ."""
    rng = generator(key)
    nodes, weights = gauss_rule(dimension, 16 * (degree + 1))
    leverage = np.sum(orthonormal_polynomials(nodes, dimension, degree) ** 2, axis=-1)
    probability = weights * leverage
    probability /= probability.sum()
    cells = rng.choice(len(nodes), size=n, p=probability)
    # In the lower half, by symmetry: small measures keep their relative precision there.
    mirrored = np.minimum(cells, len(nodes) - 1 - cells)
    below = np.cumsum(weights) - weights
    measure = below[mirrored] + weights[mirrored] * rng.random(n)
    half = (dimension - 1) / 2  # (1 - t) / 2 has a beta distribution
    magnitude = 1 - 2 * special.betaincinv(half, half, measure)
    return np.where(cells == mirrored, -magnitude, magnitude), (weights / probability)[cells]
