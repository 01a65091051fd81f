"""Stochastic Lanczos quadrature that JAX differentiates, by the library matfree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ORTHONORMAL = 1e-2  # what inner products of Lanczos's vectors may be off by


def lanczos_forms(
    product: Callable[[Any], Any], v: Float[Array, "k n"], f: Callable, steps: int
) -> Float[Array, " k"]:
    """vᵀ f(A) v of every row v, with full reorthogonalisation and matfree's exact gradients of the
    Lanczos recurrence (N. Krämer et al., Gradients of functions of large matrices, 2024, arXiv
    2405.17277). NaN where a Krylov space has fewer dimensions than steps: matfree then goes on with
    rounding for a vector, which is not orthogonal to those before.

    Raises:
      ImportError: matfree is not installed.
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
