"""Landmarks: positions of the sample whose kernel values become features."""

import equinox as eqx

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


class LandmarkExpansion(eqx.Module):
    """Features of one nonlinearity from its kernels with landmarks, and random features of what
    these miss.

    With `k = k_σ(φ, Z)` and `k_ψ = k_σ'(φ, Z) ⊙ <ψ, Z_ψ>`,

        φ' = k M + [0, σ(Wφ) / √m₂],        ψ' = k_ψ M_ψ + [0, σ'(Wφ) ⊙ Sψ / √m₂].

    Attributes:
        filters: `[Z, Wᵀ]` (d, m₁ + m₂): projected in one pass.
        q: variances of the landmarks (m₁,).
        mix: `M` (m₁, r + m₂), root of the landmarks' pseudo-inverse and their part in the random
            features.
        filters_ntk, mix_ntk: likewise `[Z_ψ, Sᵀ]` and `M_ψ`, or `None`.
    """

    filters: Array
    q: Array
    mix: Array
    filters_ntk: Array | None
    mix_ntk: Array | None
    dual: DualActivation = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    def __call__(self, features: Features) -> tuple[Array, Array | None]:
        m = self.q.shape[0]
        u, v = features.project(self.filters, self.filters_ntk, self.precision)
        variances = features.variances
        q = variances.diagonal(variances.same)[..., None]
        k, k_derivative = self.dual(u[..., :m], q, self.q)
        nngp = matmul(k, self.mix, "float32")
        ntk = None
        if v is not None and self.mix_ntk is not None:
            ntk = matmul(k_derivative * v[..., :m], self.mix_ntk, "float32")
        m_random = u.shape[-1] - m
        if m_random:
            value, derivative = self.dual.value_and_derivative(u[..., m:])
            scale = m_random**-0.5
            nngp = _added_last(nngp, scale * value)
            if ntk is not None and v is not None:
                ntk = _added_last(ntk, scale * derivative * v[..., m:])
        return nngp, ntk


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
    if w is None:
        values = values_ntk = None
        filters, filters_ntk = landmarks.z, landmarks.z_ntk
    else:
        values, values_ntk = _random_at_landmarks(landmarks, dual, w, s)
        filters = jnp.concatenate([landmarks.z, w], axis=1)
        filters_ntk = None
        if landmarks.z_ntk is not None and s is not None:
            filters_ntk = jnp.concatenate([landmarks.z_ntk, s], axis=1)
    return LandmarkExpansion(
        filters,
        landmarks.q,
        _mix(landmarks.gram, values),
        filters_ntk,
        None if landmarks.gram_ntk is None else _mix(landmarks.gram_ntk, values_ntk),
        dual,
        precision,
    )


@eqx.filter_jit
def _random_at_landmarks(landmarks: Landmarks, dual: DualActivation, w: Array, s: Array | None):
    """`g(Z) / √m₂` (m₁, m₂) of both kernels."""
    scale = w.shape[1] ** -0.5
    value, derivative = dual.value_and_derivative(matmul(landmarks.z.T, w, "float32"))
    if landmarks.z_ntk is None or s is None:
        return scale * value, None
    return scale * value, scale * derivative * matmul(landmarks.z_ntk.T, s, "float32")


def _mix(gram: Array, values: Array | None) -> Array:
    """`[B^½, -B g(Z) / √m₂]` in the dtype of `gram`, computed in float64."""
    root = inverse_root(gram)
    if values is not None:
        root = np.concatenate([root, -root @ (root.T @ np.asarray(values, np.float64))], axis=1)
    return jnp.asarray(root, gram.dtype)


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


def _added_last(z: Array, random: Array) -> Array:
    """`z` with `random` added to its last features. Nothing is concatenated: XLA fuses it all."""
    pads = [(0, 0)] * (z.ndim - 1) + [(z.shape[-1] - random.shape[-1], 0)]
    return z + jnp.pad(random, pads)
