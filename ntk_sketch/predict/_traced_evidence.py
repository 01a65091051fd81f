"""The evidence in JAX alone, to be differentiated."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._arguments import as_array, checked_inputs
from ..numerics._precision import promoted
from ..streaming._feature_map import check_feature_map
from ..streaming._stream import FeatureMapLike, kernel_features


def traced_log_evidence(
    feature_map: FeatureMapLike, x: Any, y: Any, diag_reg: Any, absolute: bool, get: str
) -> Float[Array, "*m"]:
    """`log_evidence` of features that are all in memory; one value for each `diag_reg`."""
    check_feature_map(feature_map)
    x, y = checked_inputs(x), as_array(y, "y", "of shape (n,) or (n, outputs)")
    if y.ndim not in (1, 2) or len(y) != len(x) or not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(
            f"y has shape {y.shape} and dtype {y.dtype}; needed: floating point (n,) or"
            f" (n, outputs), n = {len(x)} examples"
        )
    z = kernel_features(feature_map(x), get)
    if z.ndim != 2:
        raise ValueError(
            f"features have shape {z.shape}; needed: (n, p). End the architecture in Flatten or a"
            " global pool"
        )
    dtype = promoted(promoted(z.dtype, jnp.float32), jax.dtypes.canonicalize_dtype(y.dtype))
    z, y = z.astype(dtype), jnp.asarray(y).astype(dtype).reshape(len(y), -1)
    penalties = jnp.asarray(diag_reg).astype(dtype)
    if not absolute:
        penalties = penalties * (jnp.sum(z * z) / len(z))
    one = _of_dual if len(z) <= z.shape[1] else _of_primal
    found = [one(z, y, penalty) for penalty in penalties.reshape(-1)]
    return jnp.stack(found).reshape(penalties.shape)


def _of_dual(z: Float[Array, "n p"], y: Float[Array, "n k"], penalty: Array) -> Array:
    lower = _factor(_product(z, z.T), penalty)
    white = jax.scipy.linalg.solve_triangular(lower, y, lower=True)
    return _density(_log_determinant(lower), jnp.sum(white**2), y)


def _of_primal(z: Float[Array, "n p"], y: Float[Array, "n k"], penalty: Array) -> Array:
    lower = _factor(_product(z.T, z), penalty)
    w = jax.scipy.linalg.cho_solve((lower, True), _product(z.T, y))
    # yᵀ (K + λI)⁻¹ y as what a ridge regression minimises: nothing cancels
    residual = y - _product(z, w)
    quadratic = jnp.sum(residual**2) / penalty + jnp.sum(w**2)
    n, p = z.shape
    return _density(_log_determinant(lower) + (n - p) * jnp.log(penalty), quadratic, y)


def _factor(gram: Float[Array, "r r"], penalty: Array) -> Float[Array, "r r"]:
    return jnp.linalg.cholesky(gram + penalty * jnp.eye(len(gram), dtype=gram.dtype))


def _log_determinant(lower: Float[Array, "r r"]) -> Array:
    return 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))


def _density(log_determinant: Array, quadratic: Array, y: Float[Array, "n k"]) -> Array:
    constant = np.asarray(y.size * math.log(2 * math.pi), y.dtype)
    return -0.5 * (y.shape[1] * log_determinant + quadratic + constant)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
