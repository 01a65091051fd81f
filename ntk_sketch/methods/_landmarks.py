"""Landmarks: positions of the sample whose kernel values become features."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Float

from .._typing import Array, Inputs, PRNGKey
from ..activations import DualActivation, RandomFunction
from ..features._features import Features
from ..numerics._compiling import fitting_jit
from ..numerics._precision import Precision, float64, matmul, on_device
from ._roots import Roots, Values, fitted_roots, on_host
from ._sampling import check_kernel

#: Positions at which the rounding of kernel values is measured, at most.
HELD_OUT = 256


class Vectors(eqx.Module):
    """What a nonlinearity's kernels need of some positions.

    Attributes:
        z: NNGP vectors (m, d).
        q: exact variances (m,), by which cosines divide.
        independent: covariances (m,) of two passes with independent Dropout masks.
        z_ntk: NTK vectors (m, d_ψ), or `None`.
    """

    z: Array
    q: Array
    independent: Array
    z_ntk: Array | None


class Landmarks(eqx.Module):
    """Positions of the sample with their vectors, and what their kernels become features by.

    Attributes:
        z: NNGP vectors `Z` of the landmarks, in columns (d, m).
        q: their exact variances (m,).
        gram: `k_σ(Z, Z)` (m, m), formed in float64.
        z_ntk: NTK vectors `Z_ψ` (d_ψ, m), or `None`.
        gram_ntk: `k_σ'(Z, Z) ⊙ <Z_ψ, Z_ψ>` (m, m), in float64, or `None`.
        examples: which examples of the sample they are positions of, in order, each once.
        seen, seen_ntk: values of both kernels at other positions, to measure rounding by, or
            `None`.
        traced, traced_ntk: both Gram matrices again while they are differentiated, or `None`.
    """

    z: Array
    q: Array
    gram: np.ndarray
    z_ntk: Array | None
    gram_ntk: np.ndarray | None
    examples: np.ndarray
    seen: Values | None = None
    seen_ntk: Values | None = None
    traced: Array | None = None
    traced_ntk: Array | None = None


def landmarks_at(
    dual: DualActivation,
    features: Features,
    index: tuple[np.ndarray, ...],
    others: tuple[np.ndarray, ...] | None = None,
    precision: Precision = "full",
) -> Landmarks:
    """The positions `index` = (example, *position) of the sample as landmarks.

    The covariance of a landmark with itself is its exact variance, not the square of its features'
    norm; `<Z_ψ, Z_ψ>` keeps the features' own diagonal.

    Gram matrices are formed in float64 from the vectors and variances of the sample: rounded to
    float32, a smooth kernel's eigenvalues below `eps √m` of the largest would be lost.

    Args:
        others: positions at which kernel values show the rounding of the map, whose projections
            have inputs of `precision`. `None`: it is not measured.
    """
    if features.nngp[0].dtype == np.float64:
        others = None
    together = index
    if others is not None:
        together = tuple(np.concatenate(pair) for pair in zip(index, others, strict=True))
    found = _at(dual, features, together, len(index[0]), precision)
    own, other, applied, (z, z_ntk) = found
    with float64():
        grams, accurate = _accurate(*promoted((dual, own, other)))
    grams, accurate = jax.tree.map(np.asarray, (grams, accurate))
    for kernel in jax.tree.leaves((grams, values_of(applied))):
        check_kernel(kernel, dual, values_of(own.q))
    seen, seen_ntk = (
        None if a is None or b is None else Values(np.asarray(values_of(a)), b)
        for a, b in zip(applied, accurate, strict=True)
    )
    differentiated = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((dual, own)))
    traced, traced_ntk = _grams(dual, own) if differentiated else (None, None)
    return Landmarks(
        z=z,
        q=own.q,
        gram=grams[0],
        z_ntk=z_ntk,
        gram_ntk=grams[1],
        examples=np.unique(index[0]),
        seen=seen,
        seen_ntk=seen_ntk,
        traced=traced,
        traced_ntk=traced_ntk,
    )


@fitting_jit
def _at(dual, features: Features, index, count: int, precision: Precision):
    """`Vectors` at the first `count` positions and at the others, if there are any, the kernels of
    these with the first as the map computes them, and both kinds of vectors of the first in
    columns.
    """
    found = vectors_at(features, index)
    own = jax.tree.map(lambda rows: rows[:count], found)
    other = jax.tree.map(lambda rows: rows[count:], found)
    columns = own.z.T, None if own.z_ntk is None else own.z_ntk.T
    if count == len(index[0]):
        return own, None, (None, None), columns
    return own, other, _kernels(dual, other, own, precision), columns


@fitting_jit
def _accurate(dual, own: Vectors, other: Vectors | None):
    """Both Gram matrices of landmarks, and their kernels with other positions."""
    if other is None:
        return _grams(dual, own), (None, None)
    m = len(own.q)
    rows = jax.tree.map(lambda *sets: jnp.concatenate(sets), own, other)
    kernels = _kernels(dual, rows, own, "full", own.independent)
    return jax.tree.map(lambda k: k[:m], kernels), jax.tree.map(lambda k: k[m:], kernels)


def _grams(dual, own: Vectors):
    """Both Gram matrices of landmarks."""
    return _kernels(dual, own, own, "full", own.independent)


def _kernels(
    dual, rows: Vectors, columns: Vectors, precision: Precision, diagonal: Array | None = None
):
    """Both kernels between two sets of positions; of the first `m` with themselves, if given."""
    covariance = matmul(rows.z, columns.z.T, precision)
    if diagonal is not None:
        covariance = with_diagonal(covariance, diagonal)
    k, derivative = dual(covariance, rows.q[:, None], columns.q[None, :])
    if rows.z_ntk is None or columns.z_ntk is None:
        return k, None
    return k, derivative * matmul(rows.z_ntk, columns.z_ntk.T, precision)


def with_diagonal(matrix: Float[Array, "n m"], diagonal: Float[Array, " m"]) -> Array:
    """The first `m` rows with another diagonal."""
    place = jnp.eye(*matrix.shape, dtype=bool)  # no scatter, which is slow to compile
    return jnp.where(place, diagonal[None, :], matrix)


def vectors_at(features: Features, index: tuple[Inputs, ...]) -> Vectors:
    """At the positions `index` = (example, *position), each (m,)."""
    variances = features.variances
    z_ntk = None if features.ntk is None else features.ntk_vectors().at(index)
    return Vectors(
        features.nngp_vectors().at(index),
        variances.diagonal(variances.same)[index],
        variances.diagonal(variances.independent)[index],
        z_ntk,
    )


def promoted(tree: Any) -> Any:
    """The same with the values of its floating-point arrays in float64, on the host."""
    return jax.tree.map(lambda leaf: on_host(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def values_of(tree: Any) -> Any:
    """The same without derivatives."""
    return jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def check_values(method: str, dual: DualActivation, features: Features, key: PRNGKey) -> None:
    """Refuses to look at data whose values are not known yet."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((values_of(features), key))):
        raise TypeError(
            f"{method} at {dual.name} takes landmarks from the values of the sample and decomposes"
            " matrices on the host, so that its map cannot be made under jax.jit or jax.vmap."
            " Make it outside and pass it to the compiled function as an argument: it is a pytree."
            " For several keys, make one map after the other; jax.grad works without jit."
        )


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
        function: `σ` and `σ'` at random directions, or `None` without residual features.
        normalize: what the landmarks miss has its exact norm at every position.
        asked: how many features were asked for, or `None` for as many as there are positions.
    """

    filters: Array
    q: Array
    roots: Roots
    filters_ntk: Array | None
    roots_ntk: Roots | None
    examples: Array
    function: RandomFunction | None
    dual: DualActivation
    precision: Precision = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    asked: int | None = eqx.field(static=True, default=None)

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
        if self.function is not None:
            value, derivative = self.function(self.dual, u[..., m:])
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
    w: Inputs | None = None,
    s: Inputs | None = None,
    precision: Precision = "full",
    normalize: bool = False,
    rcond: float | None = None,
    asked: int | None = None,
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
        w, s = on_device(w, filters.dtype), None if s is None else on_device(s, filters.dtype)
        random = _with_directions(landmarks.z, landmarks.z_ntk, dual, w, s)
        (filters, values), (filters_ntk, values_ntk) = random
    dtype, roots_ntk = landmarks.q.dtype, None
    if landmarks.gram_ntk is not None:
        roots_ntk = fitted_roots(
            landmarks.gram_ntk,
            dtype,
            values_ntk,
            rcond,
            landmarks.seen_ntk,
            landmarks.traced_ntk,
        )
    return LandmarkExpansion(
        filters,
        landmarks.q,
        fitted_roots(landmarks.gram, dtype, values, rcond, landmarks.seen, landmarks.traced),
        filters_ntk,
        roots_ntk,
        on_device(landmarks.examples),
        None if w is None else RandomFunction(dual, dtype),
        dual,
        precision,
        normalize,
        asked,
    )


@fitting_jit
def _with_directions(z: Array, z_ntk: Array | None, dual, w: Array, s: Array | None):
    """`[Z, Wᵀ]` and `g(Z)` (m₁, m₂) of both kernels."""
    value, derivative = dual.value_and_derivative(matmul(z.T, w, "full"))
    own = jnp.concatenate([z, w], axis=1), value
    if z_ntk is None or s is None:
        return own, (None, None)
    value_ntk = derivative * matmul(z_ntk.T, s, "full")
    return own, (jnp.concatenate([z_ntk, s], axis=1), value_ntk)
