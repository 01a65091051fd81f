"""Exact features: every position of the sample is a landmark."""

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._features import Features
from .._typing import Array, PRNGKey
from ..activations import DualActivation
from ._method import Method


class Exact(Method):
    """Features that reproduce the kernel on the sample to rounding. For tests and small inputs.

    With `Z` all P positions of the sample (patches and bias included),

        φ' = k_σ(φ, Z) k_σ(Z, Z)^{-1/2},
        ψ' = [k_σ'(φ, Z) ⊙ <ψ, Z_ψ>] (k_σ'(Z, Z) ⊙ <Z_ψ, Z_ψ>)^{-1/2},

    with exact variances in every dual and pseudo-inverse roots. Away from the sample this is the
    Nyström approximation with P landmarks.

    Cost: O(P³) to fit and O(n P² |space|) to apply at every nonlinearity, O(P²) memory.
    """

    looks_at_data = True

    def expand(self, dual: DualActivation, features: Features, *, key: PRNGKey):
        del key
        space = features.nngp_vectors().space
        index = tuple(i.ravel() for i in np.indices((features.nngp[0].shape[0], *space)))
        z, q, gram, z_ntk, gram_ntk = _landmarks(dual, features, index)
        root = inverse_root(gram)
        root_ntk = None if gram_ntk is None else inverse_root(gram_ntk)
        return LandmarkExpansion(z, q, root, z_ntk, root_ntk, dual)


@eqx.filter_jit
def _landmarks(dual: DualActivation, features: Features, index):
    """The vectors at `index` (in columns), their variances, and their Gram matrices under both
    kernels.
    """
    variances = features.variances
    z = features.nngp_vectors().at(index)
    q = variances.diagonal(variances.same)[index]
    covariance = set_diagonal(z @ z.T, variances.diagonal(variances.independent)[index])
    k, k_derivative = dual(covariance, q[:, None], q[None, :])
    if features.ntk is None:
        return z.T, q, k, None, None
    z_ntk = features.ntk_vectors().at(index)
    return z.T, q, k, z_ntk.T, k_derivative * (z_ntk @ z_ntk.T)


class LandmarkExpansion(eqx.Module):
    """Features of one nonlinearity from its kernels with landmarks."""

    z: Array
    q: Array
    root: Array
    z_ntk: Array | None
    root_ntk: Array | None
    dual: DualActivation = eqx.field(static=True)

    def __call__(self, features: Features) -> tuple[Array, Array | None]:
        variances = features.variances
        q = variances.diagonal(variances.same)[..., None]
        k, k_derivative = self.dual(features.nngp_vectors().project(self.z), q, self.q)
        nngp, ntk = k @ self.root, None
        if self.z_ntk is not None and self.root_ntk is not None:
            ntk = (k_derivative * features.ntk_vectors().project(self.z_ntk)) @ self.root_ntk
        return nngp, ntk


def set_diagonal(matrix: Float[Array, "m m"], diagonal: Float[Array, " m"]) -> Float[Array, "m m"]:
    i = jnp.arange(len(matrix))
    return matrix.at[i, i].set(diagonal)


def inverse_root(gram: Float[Array, "m m"]) -> Float[Array, "m r"]:
    """`B` (m, r) with `B Bᵀ` the pseudo-inverse of a positive semi-definite matrix (m, m) of rank
    r.

    Decomposed in float64 on the host. Eigenvalues below m eps of the largest, with the eps of the
    input's dtype, are rounding and are cut off: clamped, they would be blown up instead.
    """
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    kept = values > len(values) * np.finfo(gram.dtype).eps * max(values[-1], 0.0)
    if not kept.any():  # the zero kernel
        return jnp.zeros((len(values), 1), gram.dtype)
    return jnp.asarray(vectors[:, kept] / np.sqrt(values[kept]), gram.dtype)
