"""Landmarks: positions of the sample whose kernel values become features."""

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._features import Features
from .._precision import Precision, matmul
from .._typing import Array, Inputs
from ..activations import DualActivation


class Landmarks(eqx.Module):
    """Positions of the sample with their vectors, and what their kernels become features by.

    Attributes:
        z: NNGP vectors `Z` of the landmarks, in columns (d, m).
        q: their exact variances (m,).
        gram: `k_σ(Z, Z)` (m, m).
        z_ntk: NTK vectors `Z_ψ` (d_ψ, m), or `None`.
        gram_ntk: `k_σ'(Z, Z) ⊙ <Z_ψ, Z_ψ>` (m, m), or `None`.
    """

    z: Array
    q: Array
    gram: Array
    z_ntk: Array | None
    gram_ntk: Array | None


@eqx.filter_jit
def landmarks_at(dual: DualActivation, features: Features, index: tuple[Inputs, ...]) -> Landmarks:
    """The positions `index` = (example, *position) of the sample as landmarks.

    The covariance of a landmark with itself is its exact variance, not the square of its features'
    norm; `<Z_ψ, Z_ψ>` keeps the features' own diagonal.
    """
    variances = features.variances
    z = features.nngp_vectors().at(index)
    q = variances.diagonal(variances.same)[index]
    covariance = matmul(z, z.T, "float32")
    covariance = set_diagonal(covariance, variances.diagonal(variances.independent)[index])
    gram, k_derivative = dual(covariance, q[:, None], q[None, :])
    if features.ntk is None:
        return Landmarks(z.T, q, gram, None, None)
    z_ntk = features.ntk_vectors().at(index)
    return Landmarks(z.T, q, gram, z_ntk.T, k_derivative * matmul(z_ntk, z_ntk.T, "float32"))


class Roots(eqx.Module):
    """From kernel values to features, for one of the two kernels: `φ' = k M + σ(Wφ) N`.

    Attributes:
        landmarks: `M` (m₁, p).
        random: `N` (m₂, p), or `None` without random features.
    """

    landmarks: Array
    random: Array | None

    def __call__(self, k: Array, random: Array | None) -> Array:
        z = matmul(k, self.landmarks, "float32")
        if self.random is None or random is None:
            return z
        return z + matmul(random, self.random, "float32")

    def then(self, matrix: np.ndarray) -> "Roots":
        """Features multiplied by `matrix` (p, p)."""
        return jax.tree.map(
            lambda root: jnp.asarray(np.asarray(root, np.float64) @ matrix, root.dtype), self
        )


class LandmarkExpansion(eqx.Module):
    """Features of one nonlinearity from its kernels with landmarks, and random features of what
    these miss.

    With `k = k_σ(φ, Z)` and `k_ψ = k_σ'(φ, Z) ⊙ <ψ, Z_ψ>`,

        φ' = k M + σ(Wφ) N,        ψ' = k_ψ M_ψ + (σ'(Wφ) ⊙ Sψ) N_ψ.

    Attributes:
        filters: `[Z, Wᵀ]` (d, m₁ + m₂): projected in one pass.
        q: variances of the landmarks (m₁,).
        roots: `M` and `N`.
        filters_ntk, roots_ntk: likewise `[Z_ψ, Sᵀ]`, `M_ψ` and `N_ψ`, or `None`.
    """

    filters: Array
    q: Array
    roots: Roots
    filters_ntk: Array | None
    roots_ntk: Roots | None
    dual: DualActivation = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    def __call__(self, features: Features) -> tuple[Array, Array | None]:
        u, v = features.project(self.filters, self.filters_ntk, self.precision)
        variances = features.variances
        return self.of_projections(u, v, variances.diagonal(variances.same))

    def of_projections(self, u: Array, v: Array | None, q: Array) -> tuple[Array, Array | None]:
        """Features from the projections on `filters` and `filters_ntk` and the exact variances."""
        m = self.q.shape[0]
        k, k_derivative = self.dual(u[..., :m], q[..., None], self.q)
        value = derivative = None
        if u.shape[-1] > m:
            value, derivative = self.dual.value_and_derivative(u[..., m:])
        nngp = self.roots(k, value)
        if v is None or self.roots_ntk is None:
            return nngp, None
        random = None if derivative is None else derivative * v[..., m:]
        return nngp, self.roots_ntk(k_derivative * v[..., :m], random)


def expansion(
    landmarks: Landmarks,
    dual: DualActivation,
    w: Array | None = None,
    s: Array | None = None,
    precision: Precision = "float32",
) -> LandmarkExpansion:
    """Features from landmarks and, given directions `w` (d, m₂) and `s` (d_ψ, m₂), from what they
    miss.

    A random function `g` whose covariance is the kernel, `g(x) = σ(w·φ)` or `σ'(w·φ) s·ψ`, minus
    its projection on the landmarks, `g(x) - k(x, Z) B g(Z)`, has the covariance `k - k(·, Z) B
    k(Z, ·)` exactly if `B K B = B`. `B` is a pseudo-inverse, which has that property.
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
        _roots(landmarks.gram, values),
        filters_ntk,
        None if landmarks.gram_ntk is None else _roots(landmarks.gram_ntk, values_ntk),
        dual,
        precision,
    )


@eqx.filter_jit
def _random_at_landmarks(landmarks: Landmarks, dual: DualActivation, w: Array, s: Array | None):
    """`g(Z)` (m₁, m₂) of both kernels."""
    value, derivative = dual.value_and_derivative(matmul(landmarks.z.T, w, "float32"))
    if landmarks.z_ntk is None or s is None:
        return value, None
    return value, derivative * matmul(landmarks.z_ntk.T, s, "float32")


def _roots(gram: Array, values: Array | None) -> Roots:
    """`M = [B^½, -B g(Z) / √m₂]` and `N = [0, I / √m₂]`, computed in float64."""
    root = inverse_root(gram)
    if values is None:
        return Roots(jnp.asarray(root, gram.dtype), None)
    scale = values.shape[1] ** -0.5
    projection = root @ (root.T @ np.asarray(values, np.float64))
    landmarks = np.concatenate([root, -scale * projection], axis=1)
    random = np.eye(values.shape[1], landmarks.shape[1], root.shape[1])
    return Roots(jnp.asarray(landmarks, gram.dtype), jnp.asarray(scale * random, gram.dtype))


def inverse_root(gram: Float[Inputs, "m m"]) -> Float[np.ndarray, "m r"]:
    """`R` (m, r) with `R Rᵀ` the pseudo-inverse of a positive semi-definite matrix (m, m) of rank
    r.

    Decomposed in float64 on the host. Eigenvalues below m eps of the largest, with the eps of the
    input's dtype, are rounding and are cut off: clamped, they would be blown up instead.
    """
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    kept = values > len(values) * np.finfo(gram.dtype).eps * max(values[-1], 0.0)
    if not kept.any():  # the zero kernel
        return np.zeros((len(values), 1))
    return vectors[:, kept] / np.sqrt(values[kept])


def set_diagonal(matrix: Float[Array, "m m"], diagonal: Float[Array, " m"]) -> Float[Array, "m m"]:
    i = jnp.arange(len(matrix))
    return matrix.at[i, i].set(diagonal)
