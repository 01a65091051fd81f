"""Differentiable stochastic Lanczos quadrature in JAX, by the library matfree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ORTHONORMAL = 1e-2  # largest error of inner products of Lanczos vectors


def lanczos_forms(
    product: Callable[[Any], Any], v: Float[Array, "k n"], f: Callable, steps: int
) -> Float[Array, " k"]:
    """vᵀ f(A) v for every row v, with full reorthogonalisation.

    Gradients are matfree's exact gradients of the Lanczos recurrence. The result is NaN if a Krylov
    space has fewer dimensions than there are steps: matfree then continues with a vector of
    rounding errors, which is not orthogonal to the earlier ones.

    Raises:
      ImportError: matfree is not installed.

    Source: N. Krämer et al., Gradients of functions of large matrices, 2024, arXiv 2405.17277.
    """
    try:
        from matfree import decomp, funm
    except ImportError as error:
        raise ImportError(
            "derivatives of method='lanczos' come from the library matfree, which is not installed:"
            ' pip install "ntk-sketch[spectral]". Without it: method="chebyshev"'
        ) from error
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        of_dense, decompose = funm.dense_funm_sym_eigh(f), decomp.tridiag_sym(steps)

        def form(row: Array) -> Array:
            found: Any = decompose(product, row)
            q = jax.lax.stop_gradient(found.Q_tall)
            orthonormal = jnp.max(jnp.abs(q @ q.T - jnp.eye(steps, dtype=q.dtype))) < _ORTHONORMAL
            value = jnp.vdot(row, row) * of_dense(found.J_small)[0, 0]
            return jnp.where(orthonormal, value, jnp.nan)

        return jax.lax.map(form, v)
