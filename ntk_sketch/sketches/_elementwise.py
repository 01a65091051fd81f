"""`elementwise`: low-rank factors of a function applied to all inner products."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._arguments import checked_integer, checked_key
from .._typing import Array, Inputs, PRNGKey
from ._polynomial_fit import fit_polynomial
from ._sketch import checked_vectors
from ._sparse import Sparse
from ._tensor_sketch import TensorSketch


class ElementwiseFactors(NamedTuple):
    """The result of `elementwise`: `left @ right.T ≈ f(A Bᵀ)`.

    Attributes:
        left: (n, r).
        right: (n2, r).
        coefficients: γ_j of `f(t) ≈ Σ_j γ_j (t / radius)^j`, j = 0..degree, in float64.
        radius: the product of the largest norms of rows of A and of B, an upper bound of |t|.
        residual: the relative error of the polynomial, in the Frobenius norm.
        expected_error: the relative error of the factors, as a root mean square over keys. Both
            errors are estimates from the rows of the coreset.
    """

    left: Float[Array, "n r"]
    right: Float[Array, "n2 r"]
    coefficients: Float[np.ndarray, " l"]
    radius: float
    residual: float
    expected_error: float


def elementwise(
    f: Callable,
    a: Float[Inputs, "n d"],
    b: Float[Inputs, "n2 d"],
    *,
    degree: int,
    width: int,
    key: PRNGKey,
    scales: tuple[Inputs, Inputs] | None = None,
    coreset: int = 64,
) -> ElementwiseFactors:
    r"""Low-rank factors of `f(A Bᵀ)`, with f elementwise, in time linear in the rows.

    Use this for matrices such as kernels or attention that are too large to form. The factors come
    from

        f(<a, b>) ≈ Σ_j c_j <a, b>^j ≈ Σ_j c_j <S_j a, S_j b>,    j = 0..degree,

    with the powers `S_j` of one `TensorSketch`. A power with at most `width` different monomials is
    exact: the monomials are its columns. The signs of negative c_j are in the left factor.

    The coefficients minimise the expected squared error (`fit_polynomial`) of polynomial and sketch
    together. With a small `width`, high powers have noisy sketches and get small coefficients; with
    a large one, coefficients are those of the best polynomial. They are fitted to a coreset of rows
    of A, against all rows of B.

    With `scales` the factors and the error are those of the scaled matrix `diag(s_a) f(A Bᵀ)
    diag(s_b)`. A Gaussian kernel `exp(-γ‖x - y‖²)` is such a matrix:

        >>> import jax, numpy as np
        >>> from ntk_sketch.sketches import elementwise
        >>> x = np.random.default_rng(0).normal(size=(200, 3))
        >>> scale = np.exp(-0.2 * (x**2).sum(1))
        >>> found = elementwise(lambda t: np.exp(0.4 * t), x, x, degree=8, width=64,
        ...                     scales=(scale, scale), key=jax.random.key(0))
        >>> exact = np.exp(-0.2 * ((x[:, None] - x) ** 2).sum(-1))
        >>> error = np.linalg.norm(found.left @ found.right.T - exact) / np.linalg.norm(exact)
        >>> bool(error < 0.02)
        True

    Args:
        f: a function of real NumPy arrays of any length in float64, or of JAX arrays.
        a: A (n, d).
        b: B (n2, d).
        degree: of the polynomial, 0 or more. Raise it if `residual` is too large.
        width: m, of the sketch of every power. Raise it if `expected_error` exceeds `residual`.
        key: of `jax.random`, for the sketch.
        scales: s_a (n,) and s_b (n2,).
        coreset: the number of rows of A at which coefficients are fitted.

    Returns:
        Factors of rank `r = Σ_j min(m, C(d + j - 1, j))`, in the dtype of A and B.

    Raises:
        TypeError: arrays are sparse or not real and floating; sizes are not integers; values of f
            are not real.
        ValueError: shapes do not fit; entries are NaN or infinite; f is not finite at an inner
            product of the coreset with B, which the message names; a degree below 0; a width or
            coreset below 1.

    Cost: `2 (n + n2) degree (d + 2.5 m log₂ m)` FLOPs for the factors, `(n + n2) r` numbers; on the
    host `coreset (2 n d + n2 (2 d + 4 degree²))` FLOPs for the coefficients.

    Source: Han, Avron and Shin 2020 (arXiv 1905.11616).
    """
    degree, m = checked_integer(degree, "degree", least=0), checked_integer(width, "width")
    coreset, key = checked_integer(coreset, "coreset"), checked_key(key)
    a, b = _checked_rows(a, "a"), _checked_rows(b, "b")
    d = a.shape[1]
    if b.shape[1] != d:
        raise ValueError(f"a {a.shape} and b {b.shape} need rows of one length.")
    scale_a, scale_b = _checked_scales(scales, len(a), len(b))
    exact = [math.comb(d + j - 1, j) <= m for j in range(degree + 1)]
    fit = fit_polynomial(f, _host(a), _host(b), scale_a, scale_b, m, exact, coreset)
    sketch = None if all(exact) else TensorSketch(d, m, degree, key=key, dtype=a.dtype)
    roots = np.sqrt(np.abs(fit.coefficients))
    left_weights = np.copysign(roots, fit.coefficients)
    return ElementwiseFactors(
        _factor(a / fit.radii[0], scale_a, left_weights, exact, sketch),
        _factor(b / fit.radii[1], scale_b, roots, exact, sketch),
        fit.coefficients,
        math.prod(fit.radii),
        fit.residual,
        fit.expected_error,
    )


def _factor(
    x: Array, scale: np.ndarray, weights: np.ndarray, exact: list[bool], sketch: TensorSketch | None
) -> Array:
    """All weighted powers of vectors in the unit ball as columns, each exact or sketched."""
    powers = None if sketch is None else sketch.powers(x)
    columns = [
        weight * (_monomials(x, j) if exact[j] or powers is None else powers[:, j])
        for j, weight in enumerate(weights.tolist())
    ]
    return jnp.concatenate(columns, axis=1) * jnp.asarray(scale, x.dtype)[:, None]


def _monomials(x: Float[Array, "n d"], degree: int) -> Float[Array, "n monomials"]:
    """All monomials of one degree, with inner products `<x, y>^degree`."""
    chosen = list(itertools.combinations_with_replacement(range(x.shape[1]), degree))
    orders = [
        math.factorial(degree) // math.prod(map(math.factorial, Counter(each).values()))
        for each in chosen
    ]
    products = x[:, np.array(chosen, int).reshape(len(chosen), degree)].prod(-1)
    return products * jnp.asarray(np.sqrt(np.array([orders], np.float64)), x.dtype)


def _host(x: Array) -> np.ndarray:
    return np.asarray(x, np.float64)


def _checked_rows(x: Inputs, name: str) -> Array:
    if isinstance(x, Sparse):
        raise TypeError(f"{name} is sparse, which is not supported. Use `{name}.toarray()`.")
    if np.ndim(x) != 2 or 0 in np.shape(x):
        raise ValueError(f"{name} must be a matrix with rows (n, d), got shape {np.shape(x)}.")
    return _finite(checked_vectors(x, x.shape[1], name), name)


def _finite(x: Array, name: str) -> Array:
    """Refuses entries that are not finite; the values are needed on the host anyway."""
    if bad := np.sum(~np.isfinite(_host(x))):
        raise ValueError(
            f"{name} has {bad} entries that are NaN or infinite. Remove or replace them first."
        )
    return x


def _checked_scales(
    scales: tuple[Inputs, Inputs] | None, n: int, n2: int
) -> tuple[np.ndarray, np.ndarray]:
    if scales is None:
        return np.ones(n), np.ones(n2)
    if [np.shape(scale) for scale in scales] != [(n,), (n2,)]:
        shapes = " and ".join(str(np.shape(scale)) for scale in scales)
        raise ValueError(f"scales must be a pair of shapes ({n},) and ({n2},), got {shapes}.")
    known = [checked_vectors(scale, len(scale), "scales") for scale in scales]
    s_a, s_b = (_host(_finite(scale, "scales")) for scale in known)
    return s_a, s_b
