"""Landmarks: positions of the sample whose kernel values become features."""

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._features import Features
from .._precision import Precision, matmul
from .._typing import Array, Inputs
from ..activations import DualActivation
from ._norms import with_norm

#: Of the kernel's diagonal, in eps: what landmarks miss less of, as they do of themselves, is 0.
_ROUNDING = 64


class Landmarks(eqx.Module):
    """Positions of the sample with their vectors, and what their kernels become features by.

    Attributes:
        z: NNGP vectors `Z` of the landmarks, in columns (d, m).
        q: their exact variances (m,).
        gram: `k_σ(Z, Z)` (m, m).
        z_ntk: NTK vectors `Z_ψ` (d_ψ, m), or `None`.
        gram_ntk: `k_σ'(Z, Z) ⊙ <Z_ψ, Z_ψ>` (m, m), or `None`.
        examples: which examples of the sample they are positions of, in order, each once.
    """

    z: Array
    q: Array
    gram: Array
    z_ntk: Array | None
    gram_ntk: Array | None
    examples: Inputs


def landmarks_at(dual: DualActivation, features: Features, index: tuple[Inputs, ...]) -> Landmarks:
    """The positions `index` = (example, *position) of the sample as landmarks.

    The covariance of a landmark with itself is its exact variance, not the square of its features'
    norm; `<Z_ψ, Z_ψ>` keeps the features' own diagonal.
    """
    return Landmarks(*_landmarks_at(dual, features, index), np.unique(index[0]))


@eqx.filter_jit
def _landmarks_at(dual: DualActivation, features: Features, index: tuple[Inputs, ...]):
    variances = features.variances
    z = features.nngp_vectors().at(index)
    q = variances.diagonal(variances.same)[index]
    covariance = matmul(z, z.T, "full")
    covariance = set_diagonal(covariance, variances.diagonal(variances.independent)[index])
    gram, k_derivative = dual(covariance, q[:, None], q[None, :])
    if features.ntk is None:
        return z.T, q, gram, None, None
    z_ntk = features.ntk_vectors().at(index)
    return z.T, q, gram, z_ntk.T, k_derivative * matmul(z_ntk, z_ntk.T, "full")


class Roots(eqx.Module):
    """From kernel values to features, for one of the two kernels.

    `φ' = [k M, (g - k P) / √m₂] R`, for values k (m₁,) of the kernel with the landmarks and values
    g (m₂,) of the random functions.

    Attributes:
        landmarks: `M` (m₁, r).
        projection: `P` (m₁, m₂), or `None` without random functions.
        fit: `R` (r + m₂, p), or `None` for the identity.
    """

    landmarks: Array
    projection: Array | None = None
    fit: Array | None = None

    def __call__(self, k: Array, g: Array | None, squared_norm: Array | None) -> Array:
        """The features; those of the random functions rescaled, so that `[k M, (g - k P) / √m₂]`
        has the given squared norms (without `R`), unless these are `None`.
        """
        z = matmul(k, self.landmarks, "full")
        if self.projection is not None and g is not None:
            missed = g.shape[-1] ** -0.5 * (g - matmul(k, self.projection, "full"))
            if squared_norm is not None:
                left = squared_norm - jnp.sum(z**2, axis=-1)
                rounding = _ROUNDING * jnp.finfo(z.dtype).eps * squared_norm
                missed = with_norm(missed, jnp.where(left > rounding, left, 0.0))
            z = jnp.concatenate([z, missed], axis=-1)
        return z if self.fit is None else matmul(z, self.fit, "full")

    def then(self, matrix: np.ndarray) -> "Roots":
        """Features multiplied by `matrix` (p, p)."""
        fit, dtype = jnp.asarray(matrix, self.landmarks.dtype), self.landmarks.dtype
        if self.projection is not None:
            return Roots(self.landmarks, self.projection, fit)
        return Roots(jnp.asarray(np.asarray(self.landmarks, np.float64) @ matrix, dtype))


class LandmarkExpansion(eqx.Module):
    """Features of one nonlinearity from its kernels with landmarks, and random features of what
    these miss.

    With `k = k_σ(φ, Z)` and `k_ψ = k_σ'(φ, Z) ⊙ <ψ, Z_ψ>`, and `σ(Wφ)` and `σ'(Wφ) ⊙ Sψ` the random
    functions of the two kernels, `Roots` makes features of them.

    Attributes:
        filters: `[Z, Wᵀ]` (d, m₁ + m₂): projected in one pass.
        q: variances of the landmarks (m₁,).
        roots: of the NNGP features.
        filters_ntk, roots_ntk: likewise `[Z_ψ, Sᵀ]` and of the NTK features, or `None`.
        examples: of the sample that landmarks come from: their indices, in order, each once.
        normalize: what the landmarks miss has its exact norm at every position.
    """

    filters: Array
    q: Array
    roots: Roots
    filters_ntk: Array | None
    roots_ntk: Roots | None
    examples: Array
    dual: DualActivation
    precision: Precision = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)

    def __call__(self, features: Features) -> tuple[Array, Array | None]:
        u, v = features.project(self.filters, self.filters_ntk, self.precision)
        return self.of_projections(u, v, *features.variances.diagonals())

    def of_projections(
        self, u: Array, v: Array | None, q: Array, independent: Array, ntk: Array | None
    ) -> tuple[Array, Array | None]:
        """Features from the projections on `filters` and `filters_ntk` and the exact variances."""
        m = self.q.shape[0]
        k, k_derivative = self.dual(u[..., :m], q[..., None], self.q)
        value = derivative = norm = norm_ntk = None
        if u.shape[-1] > m:
            value, derivative = self.dual.value_and_derivative(u[..., m:])
            if self.normalize:
                norm, norm_ntk = self.dual(independent, q, q)
        nngp = self.roots(k, value, norm)
        if v is None or self.roots_ntk is None:
            return nngp, None
        random = None if derivative is None else derivative * v[..., m:]
        norm = None if norm_ntk is None or ntk is None else norm_ntk * ntk
        return nngp, self.roots_ntk(k_derivative * v[..., :m], random, norm)


def expansion(
    landmarks: Landmarks,
    dual: DualActivation,
    w: Array | None = None,
    s: Array | None = None,
    precision: Precision = "full",
    normalize: bool = False,
    rcond: float | None = None,
) -> LandmarkExpansion:
    """Features from landmarks and, given directions `w` (d, m₂) and `s` (d_ψ, m₂), from what they
    miss.

    A random function `g` whose covariance is the kernel, `g(x) = σ(w·φ)` or `σ'(w·φ) s·ψ`, minus
    its projection on the landmarks, `g(x) - k(x, Z) B g(Z)`, has the covariance `k - k(·, Z) B
    k(Z, ·)` exactly if `B K B = B`. `B` is a pseudo-inverse, which has that property.

    With `normalize`, m₂ such functions have squared norm `k(x, x) - k(x, Z) B k(Z, x)` at every
    position x instead of on average: a bias of order `1 / m₂`, and less variance.
    """
    filters, filters_ntk, values, values_ntk = landmarks.z, landmarks.z_ntk, None, None
    if w is not None:
        values, values_ntk = _random_at_landmarks(landmarks, dual, w, s)
        filters = jnp.concatenate([filters, w], axis=1)
        if filters_ntk is not None and s is not None:
            filters_ntk = jnp.concatenate([filters_ntk, s], axis=1)
    return LandmarkExpansion(
        filters,
        landmarks.q,
        _roots(landmarks.gram, values, rcond),
        filters_ntk,
        None if landmarks.gram_ntk is None else _roots(landmarks.gram_ntk, values_ntk, rcond),
        jnp.asarray(landmarks.examples),
        dual,
        precision,
        normalize,
    )


@eqx.filter_jit
def _random_at_landmarks(landmarks: Landmarks, dual: DualActivation, w: Array, s: Array | None):
    """`g(Z)` (m₁, m₂) of both kernels."""
    value, derivative = dual.value_and_derivative(matmul(landmarks.z.T, w, "full"))
    if landmarks.z_ntk is None or s is None:
        return value, None
    return value, derivative * matmul(landmarks.z_ntk.T, s, "full")


def _roots(gram: Array, values: Array | None, rcond: float | None) -> Roots:
    """`M = B^½` and `P = B g(Z)`, computed in float64."""
    root = inverse_root(gram, rcond)
    if values is None:
        return Roots(jnp.asarray(root, gram.dtype))
    projection = root @ (root.T @ np.asarray(values, np.float64))
    return Roots(jnp.asarray(root, gram.dtype), jnp.asarray(projection, gram.dtype))


def inverse_root(
    gram: Float[Inputs, "m m"], rcond: float | None = None
) -> Float[np.ndarray, "m r"]:
    """`R` (m, r) with `R Rᵀ` the pseudo-inverse of a positive semi-definite matrix (m, m) of rank
    r.

    Decomposed in float64 on the host. Eigenvalues below `rcond` of the largest are cut off; `None`:
    those below m eps, with the eps of the input's dtype, which are rounding. Clamped, they would be
    blown up instead.
    """
    if rcond is None:
        rcond = len(gram) * float(jnp.finfo(gram.dtype).eps)
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    kept = values > rcond * max(values[-1], 0.0)
    if not kept.any():  # the zero kernel
        return np.zeros((len(values), 1))
    return vectors[:, kept] / np.sqrt(values[kept])


def set_diagonal(matrix: Float[Array, "m m"], diagonal: Float[Array, " m"]) -> Float[Array, "m m"]:
    i = jnp.arange(len(matrix))
    return matrix.at[i, i].set(diagonal)
