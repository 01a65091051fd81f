"""Stochastic Lanczos quadrature that JAX differentiates, by the library matfree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ENDED = 100  # eps of the diagonal: what is beside it then is rounding


def lanczos_forms(
    product: Callable[[Any], Any], v: Float[Array, "k n"], f: Callable, steps: int
) -> Float[Array, " k"]:
    """vᵀ f(A) v of every row v, with full reorthogonalisation and matfree's exact gradients of the
    Lanczos recurrence (N. Krämer et al., Gradients of functions of large matrices, 2024, arXiv
    2405.17277). NaN where a Krylov space has fewer dimensions than steps: what matfree then goes on
    with is rounding.

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
            t: Any = decompose(product, row).J_small
            beside, size = jnp.abs(jnp.diagonal(t, 1)), jnp.max(jnp.abs(jnp.diagonal(t)))
            ended = jnp.any(beside <= _ENDED * jnp.finfo(t.dtype).eps * size)
            return jnp.where(ended, jnp.nan, jnp.vdot(row, row) * of_dense(t)[0, 0])

        return jax.lax.map(form, v)
