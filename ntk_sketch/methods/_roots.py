"""From kernel values with landmarks to features: inverse roots, and their rounding."""

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

#: Residuals below this many eps of the kernel's diagonal are rounding and become 0, as they do at
#: the landmarks themselves.
_ROUNDING = 64

#: Largest noise of a feature that is kept, relative to the feature itself. A feature `s`, computed
#: as `s + e` with random `e` of relative size ρ, misses the rank-one kernel `s sᵀ` by a squared
#: error of `2 ρ² + ρ⁴` of it; leaving the feature out misses all of it. Both are equal at
#: `ρ² = √2 - 1`.
LARGEST_NOISE = (2**0.5 - 1) ** 0.5


class Values(eqx.Module):
    """Kernel values of positions that are no landmarks, as the map computes them and in float64.

    Attributes:
        applied: (N, m) in the dtype and by the operations of the map.
        accurate: (N, m) in float64, for the same vectors and variances.
    """

    applied: Inputs
    accurate: Inputs


class Roots(eqx.Module):
    """From kernel values to features, for one of the two kernels.

    `φ' = [k M, (g - k P) / √m₂] R`, for values k (m₁,) of the kernel with the landmarks and values
    g (m₂,) of the random functions.

    Attributes:
        landmarks: `M` (m₁, r).
        projection: `P` (m₁, m₂), or `None` without random functions.
        fit: `R` (r + m₂, p), or `None` for the identity.
        noise: relative error (r,) of each feature `k M`, before any fit, measured at positions
            that are no landmarks; `None` where it was not measured, as in float64.
    """

    landmarks: Array
    projection: Array | None = None
    fit: Array | None = None
    noise: Array | None = None

    def __call__(self, k: Array, g: Array | None, squared_norm: Array | None) -> Array | Rooted:
        """The features, the last product of them not yet made; those of the random functions
        rescaled, so that `[k M, (g - k P) / √m₂]` has the given squared norms (without `R`), unless
        these are `None`.

        At a landmark what is missed is 0 and its derivative is not: that of `(g - k P) / √m₂`.
        """
        z = Rooted(k, self.landmarks)
        if self.projection is not None and g is not None:
            z = formed(z)
            missed = g.shape[-1] ** -0.5 * (g - matmul(k, self.projection, "full"))
            if squared_norm is not None:
                left = squared_norm - jnp.sum(z**2, axis=-1)
                rounding = _ROUNDING * jnp.finfo(z.dtype).eps * squared_norm
                missed = with_small_norm(missed, jnp.where(left > rounding, left, 0.0))
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
        gram: in float64, NumPy's or on a GPU.
        dtype: of the map.
        values: `g(Z)` (m, m₂) of random functions, or `None`.
        rcond: eigenvalues below this share of the largest are cut off. `None`: those that are
            rounding of float64; and features more of which is noise than `LARGEST_NOISE`, if
            `seen` is given.
        seen: kernel values to measure the noise by.
        traced: the Gram matrix again, while it is differentiated. `M` and `P` get the derivative
            `dM = -½ B dK M`, by which `d(M Mᵀ) = -B dK B` is that of the pseudo-inverse, without a
            division by gaps of eigenvalues.
    """
    root, noise = inverse_root(gram, rcond), None
    if rcond is None and seen is not None:
        noise = feature_noise(root, seen)
        kept = np.flatnonzero(noise <= LARGEST_NOISE)
        with float64():
            root, noise = root[:, kept], on_device(noise[kept], dtype)
    if not root.shape[1]:  # the zero kernel, or all of it noise
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
    """`R` (m, r) with `R Rᵀ` the pseudo-inverse of a positive semi-definite matrix (m, m) of rank
    r.

    Decomposed in float64, where the matrix is. Eigenvalues below `rcond` of the largest are cut
    off; `None`: those below m eps, with the eps of the input's dtype, which are rounding. Clamped,
    they would be blown up instead.
    """
    if rcond is None:
        rcond = len(gram) * float(jnp.finfo(gram.dtype).eps)
    values, vectors = eigh(in_float64(gram), overwrite=True)
    first = int(np.searchsorted(values, rcond * max(values[-1], 0.0), side="right"))
    with float64():
        return vectors[:, first:] / np.sqrt(values[None, first:])


def feature_noise(root: Float[Inputs, "m r"], seen: Values) -> Float[np.ndarray, " r"]:
    """Of each feature `k R`, the relative error (r,) with which the map computes it.

    The features of N positions are computed as the map does, from its kernel values and with `R`
    rounded to its dtype, and in float64. With `E` the error of the kernel values, that of the
    feature of an eigenvector v to the eigenvalue λ is `E v / √λ`: it grows as λ falls.
    """
    with float64(), jax.default_matmul_precision("highest"):
        rounded = root.astype(seen.applied.dtype).astype(np.float32)
        applied = np.asarray(seen.applied.astype(np.float32) @ rounded)
        accurate = np.asarray(seen.accurate @ root)
    signal = np.sum(accurate**2, axis=0)
    error = np.sum((applied - accurate) ** 2, axis=0)
    return np.sqrt(error / np.where(signal > 0, signal, 1))


def with_derivative(value: Inputs, fn: Callable[..., Array], *args: Any, dtype) -> Array:
    """`value`, computed in float64, with the derivative of `fn(*args)`, which is evaluated only
    while one of `args` is differentiated.
    """
    result = on_device(value, dtype)
    if not any(isinstance(arg, Tracer) for arg in args):
        return result
    change = fn(*args)
    return result + (change - lax.stop_gradient(change))
