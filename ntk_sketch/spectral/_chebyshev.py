"""Quadratic forms vᵀ p(A) v of Chebyshev series p from products with A, on the host and in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ._lanczos import Product
from ._series import Series

_GROWTH = 1.01  # a ratio of ‖T_j v‖² to ‖v‖² above this is more than rounding


def quadratic_forms(
    product: Product,
    v: Float[np.ndarray, "n k"],
    series: Series,
    weights: Float[np.ndarray, "l k"],
    rounding: float,
) -> Float[np.ndarray, " k"]:
    """Σ_j weights_jk vᵀ T_j v for every column v, from ⌈(l - 1) / 2⌉ products:

        vᵀ T_{2j} v = 2 ‖T_j v‖² - ‖v‖²,   vᵀ T_{2j+1} v = 2 (T_{j+1} v)ᵀ (T_j v) - vᵀ T_1 v.

    Raises:
      ValueError: ‖T_j v‖ > ‖v‖, which means that an eigenvalue is outside of the interval.
    """
    centre, radius = series.centre, series.radius
    squares = _dots(v, v)
    before, now = v, (product(v) - centre * v) / radius
    first = _dots(v, now)
    total = weights[0] * squares + (weights[1] * first if len(weights) > 1 else 0.0)
    for j in range(1, len(weights) // 2 + 1):
        norms = _dots(now, now)
        if (norms > (1 + 1e-3 + rounding * j) * squares).any():
            raise ValueError(
                f"an eigenvalue is outside of [{series.interval[0]:.6g}, {series.interval[1]:.6g}]:"
                " the Chebyshev recurrence grows. Give an interval=(low, high) that holds all"
            )
        if 2 * j < len(weights):
            total += weights[2 * j] * (2 * norms - squares)
        if 2 * j + 1 < len(weights):
            following = product(now)
            following -= centre * now
            following *= 2 / radius
            following -= before
            before, now = now, following
            total += weights[2 * j + 1] * (2 * _dots(before, now) - first)
    return total


def differentiable_forms(
    product: Callable[[Any], Any],
    v: Float[Array, "k n"],
    series: Series,
    values: Float[Array, "k l"],
    slopes: Float[Array, "k l"],
    last: Any,
) -> Float[Array, " k"]:
    """Σ_j values_kj vᵀ T_j(A) v for every row v, in JAX, with the custom derivative

        d vᵀ f(A) v = wᵀ dA v,   w = Σ_j slopes_kj T_j(A) v ≈ f'(A) v.

    Its mean over probes is tr f'(A) dA, the derivative of the trace. Reverse mode therefore stores
    two vectors besides those of the recurrence, not one for each degree, and differentiates a
    single product. Higher derivatives are those of this formula. The result is NaN if ‖T_j v‖ >
    ‖v‖, which means that an eigenvalue is outside of the interval.

    Args:
      product: v (n,) -> A v, may close over traced values.
      last: the last degree in the sum; may be traced.
    """
    closed, constants = jax.closure_convert(product, v[0])
    centre, radius = (jnp.asarray(x, v.dtype) for x in (series.centre, series.radius))

    def both(constants, v, values, slopes):
        def scaled(v):
            return (closed(v, *constants) - centre * v) / radius

        def step(j, state):
            before, now, form, w = state
            before, now = now, jnp.asarray(2, v.dtype) * scaled(now) - before
            return before, now, form + values[j] * jnp.vdot(v, now), w + slopes[j] * now

        now = scaled(v)
        form = values[0] * jnp.vdot(v, v) + values[1] * jnp.vdot(v, now)
        state = v, now, form, slopes[0] * v + slopes[1] * now
        _, now, form, w = lax.fori_loop(2, last + 1, step, state)
        inside = jnp.vdot(now, now) <= jnp.asarray(_GROWTH, v.dtype) * jnp.vdot(v, v)
        return jnp.where(inside, form, jnp.nan), jnp.where(inside, w, jnp.nan)

    @jax.custom_jvp
    def form(constants, v, values, slopes):
        return both(constants, v, values, slopes)[0]

    @form.defjvp
    def _(primals, tangents):
        constants, v, *_ = primals
        found, w = both(*primals)
        _, moved = jax.jvp(lambda at: closed(v, *at), (constants,), (tangents[0],))
        return found, jnp.vdot(w, moved)

    return lax.map(lambda row: form(constants, *row), (v, values, slopes))


def _dots(a: Float[np.ndarray, "n k"], b: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    return np.einsum("ij,ij->j", a, b)
