"""Stochastic Lanczos quadrature of operators in JAX, by the library matfree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float


def lanczos_forms(
    product: Callable[[Any], Any], v: Float[Array, "k n"], f: Callable, steps: int
) -> Float[Array, " k"]:
    """vᵀ f(A) v of every row v, with full reorthogonalisation and matfree's exact gradients of the
    Lanczos recurrence (N. Krämer et al., Gradients of functions of large matrices, 2024, arXiv
    2405.17277).

    Raises:
      ImportError: matfree is not installed.
    """
    try:
        from matfree import decomp, funm
    except ImportError as error:
        raise ImportError(
            "method='lanczos' of operators in JAX uses the library matfree, which is not installed:"
            ' pip install "ntk-sketch[spectral]". Without it: method="chebyshev"'
        ) from error
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        form = funm.monte_carlo_funm_sym(funm.dense_funm_sym_eigh(f), decomp.tridiag_sym(steps))
        return jax.lax.map(lambda row: form(product, row), v)
