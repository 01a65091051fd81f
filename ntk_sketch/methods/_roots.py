"""Inverse roots of Gram matrices, which turn kernel values with landmarks into features."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Float

from .._typing import Array, Inputs
from ..features._rooted import Rooted, formed
from ..numerics._linalg import eigh, in_float64
from ..numerics._precision import float64, matmul, on_device
from ._norms import with_small_norm

#: Residuals below this many eps of the kernel's diagonal are rounding and become 0.
_ROUNDING = 64

#: Features with a larger relative noise are dropped. A feature `s` that is computed as `s + e`,
#: with random `e` of relative size ρ, approximates the rank-one kernel `s sᵀ` with a relative
#: squared error of `2 ρ² + ρ⁴`. Dropping it has an error of 1. Both are equal at `ρ² = √2 - 1`.
LARGEST_NOISE = (2**0.5 - 1) ** 0.5


class Values(eqx.Module):
    """Kernel values of other positions with the landmarks, computed twice to measure rounding.

    Attributes:
        applied: (N, m) in the dtype and by the operations of the map.
        accurate: (N, m) in float64, for the same vectors and variances.
    """

    applied: Inputs
    accurate: Inputs


class Roots(eqx.Module):
    """Matrices that turn kernel values into features, for one of the two kernels.

    `φ' = [k M, (g - k P) / √m₂] R`, where k (m₁,) are kernel values with the landmarks and g (m₂,)
    values of the random functions.

    Attributes:
        landmarks: `M` (m₁, r).
        projection: `P` (m₁, m₂), or `None` without random functions.
        fit: `R` (r + m₂, p), or `None` for the identity.
        noise: relative error (r,) of each feature `k M` before any fit, measured at other
            positions; `None` if it was not measured, as in float64.
    """

    landmarks: Array
    projection: Array | None = None
    fit: Array | None = None
    noise: Array | None = None

    def __call__(self, k: Array, g: Array | None, squared_norm: Array | None) -> Array | Rooted:
        """The features, with their last product left pending (`Rooted`).

        With `squared_norm`, residual features are rescaled so that `[k M, (g - k P) / √m₂]` has
        these squared norms. At a landmark they are 0, but their derivative is not: there and nearby
        it is that of `(g - k P) / √m₂`.
        """
        z = Rooted(k, self.landmarks)
        if self.projection is not None and g is not None:
            z = formed(z)
            missed = g.shape[-1] ** -0.5 * (g - matmul(k, self.projection, "full"))
            if squared_norm is not None:
                left = squared_norm - jnp.sum(z**2, axis=-1)
                rounding = _ROUNDING * jnp.finfo(z.dtype).eps * squared_norm
                left = jnp.where(left > rounding, left, 0.0)
                missed = with_small_norm(missed, left, squared_norm)
            z = jnp.concatenate([z, missed], axis=-1)
        return z if self.fit is None else Rooted(formed(z), self.fit)

    def then(self, matrix: Inputs) -> "Roots":
        """Features multiplied by `matrix` (p, p)."""
        dtype = self.landmarks.dtype
        if self.projection is not None:
            fit = matrix if isinstance(matrix, Tracer) else on_device(matrix, dtype)
            return Roots(self.landmarks, self.projection, fit, self.noise)
        with float64():
            product = in_float64(self.landmarks) @ in_float64(matrix)
        product = with_derivative(product, jnp.matmul, self.landmarks, matrix, dtype=dtype)
        return Roots(product, noise=self.noise)


def fitted_roots(
    gram: Float[Inputs, "m m"],
    dtype,
    values: Array | None = None,
    rcond: float | None = None,
    seen: Values | None = None,
    traced: Array | None = None,
) -> Roots:
    """`M = B^½` and `P = B g(Z)` with the pseudo-inverse `B` of a landmark Gram matrix.

    Args:
        gram: the Gram matrix in float64, of NumPy or on a GPU.
        dtype: of the map.
        values: `g(Z)` (m, m₂) of random functions, or `None`.
        rcond: cut off eigenvalues below this share of the largest. `None`: those that are rounding
            of float64, and, if `seen` is given, features with more noise than `LARGEST_NOISE`.
        seen: kernel values to measure the noise with.
        traced: the Gram matrix as JAX differentiates it. The derivative `dM = -½ B dK M` gives
            `d(M Mᵀ) = -B dK B`, that of the pseudo-inverse, without a division by gaps between
            eigenvalues.
    """
    root, noise = inverse_root(gram, rcond), None
    if rcond is None and seen is not None:
        noise = feature_noise(root, seen)
        kept = np.flatnonzero(noise <= LARGEST_NOISE)
        with float64():
            root, noise = root[:, kept], on_device(noise[kept], dtype)
    if not root.shape[1]:  # the kernel is zero or nothing but noise
        root, noise = np.zeros((len(gram), 1)), None
    fixed = on_device(root, dtype)
    m = with_derivative(root, lambda k: -0.5 * fixed @ (fixed.T @ k @ fixed), traced, dtype=dtype)
    if values is None:
        return Roots(m, noise=noise)
    with float64():
        projection = root @ (root.T @ in_float64(values))
    p = on_device(projection, dtype)
    p = with_derivative(
        projection, lambda k, g: fixed @ (fixed.T @ (g - k @ p)), traced, values, dtype=dtype
    )
    return Roots(m, p, noise=noise)


def inverse_root(gram: Float[Inputs, "m m"], rcond: float | None = None) -> Float[Inputs, "m r"]:
    """`R` (m, r): `R Rᵀ` is the pseudo-inverse of a positive semidefinite matrix of rank r.

    It is decomposed in float64 on its own device. Eigenvalues below `rcond` times the largest are
    cut off; clamping them instead would amplify rounding. `None`: m eps of the input's dtype.
    """
    if rcond is None:
        rcond = len(gram) * float(jnp.finfo(gram.dtype).eps)
    values, vectors = eigh(in_float64(gram), overwrite=True)
    first = int(np.searchsorted(values, rcond * max(values[-1], 0.0), side="right"))
    with float64():
        return vectors[:, first:] / np.sqrt(values[None, first:])


def feature_noise(root: Float[Inputs, "m r"], seen: Values) -> Float[np.ndarray, " r"]:
    """The relative error (r,) with which the map computes each feature `k R`.

    The features of N positions are computed as in the map, from its kernel values and with `R`
    rounded to its dtype, and again in float64. If kernel values have the error `E`, the feature of
    an eigenvector v with eigenvalue λ has the error `E v / √λ`, which grows as λ falls.
    """
    with float64(), jax.default_matmul_precision("highest"):
        rounded = root.astype(seen.applied.dtype).astype(np.float32)
        applied = np.asarray(seen.applied.astype(np.float32) @ rounded)
        accurate = np.asarray(seen.accurate @ root)
    signal = np.sum(accurate**2, axis=0)
    error = np.sum((applied - accurate) ** 2, axis=0)
    return np.sqrt(error / np.where(signal > 0, signal, 1))


def with_derivative(value: Inputs, fn: Callable[..., Array], *args: Any, dtype) -> Array:
    """`value`, computed in float64, with the derivative of `fn(*args)`. `fn` is evaluated only if
    one of `args` is traced.
    """
    result = on_device(value, dtype)
    if not any(isinstance(arg, Tracer) for arg in args):
        return result
    change = fn(*args)
    return result + (change - lax.stop_gradient(change))
