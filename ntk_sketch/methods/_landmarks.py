"""Landmarks: positions of the sample whose kernel values become features."""

import functools
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Float

from .._typing import Array, Inputs, PerKernel, PRNGKey
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures
from ..numerics._compiling import fitting_jit
from ..numerics._linalg import eigh, in_float64, in_place
from ..numerics._precision import Precision, float64, matmul, on_device, x64
from ._roots import Values
from ._survey import check_kernel

#: The largest number of positions at which the rounding of kernel values is measured.
HELD_OUT = 256


class Vectors(eqx.Module):
    """The inputs of a nonlinearity's kernels at some positions.

    Attributes:
        z: NNGP vectors (m, d).
        q: exact variances (m,), the norms in cosines.
        independent: covariances (m,) of two passes with independent Dropout masks.
        z_ntk: NTK vectors (m, d_ψ), or `None`.
    """

    z: Array
    q: Array
    independent: Array
    z_ntk: Array | None


class Landmarks(eqx.Module):
    """Landmarks: their vectors and their Gram matrices.

    Attributes:
        z: NNGP vectors `Z` in columns (d, m), and NTK vectors `Z_ψ` (d_ψ, m).
        q: exact variances (m,).
        gram: `k_σ(Z, Z)` and `k_σ'(Z, Z) ⊙ <Z_ψ, Z_ψ>`, (m, m) in float64, of NumPy or on a GPU.
        examples: sorted index (m,) of the example that each landmark comes from.
        seen: kernel values at other positions, to measure rounding.
        traced: Gram matrices as JAX differentiates them.
        bases: orthonormal columns (d, r) that span `z`, if products with them cost less.
    """

    z: PerKernel
    q: Array
    gram: PerKernel
    examples: np.ndarray
    seen: PerKernel = PerKernel(None, None)
    traced: PerKernel = PerKernel(None, None)
    bases: PerKernel = PerKernel(None, None)


def landmarks_at(
    dual: DualKernels,
    features: HiddenFeatures,
    index: tuple[np.ndarray, ...],
    others: tuple[np.ndarray, ...] | None = None,
    precision: Precision = "full",
    rank: int | None = None,
) -> Landmarks:
    """Landmarks at the positions `index` = (example, *position) of the sample.

    The variance of a landmark is the exact one, not the squared norm of its features. `<Z_ψ, Z_ψ>`
    keeps the diagonal of the features.

    Gram matrices are formed in float64 from the vectors and variances of the sample. In float32 a
    smooth kernel would lose the eigenvalues below `eps √m` of the largest.

    Args:
        others: positions at which to measure the rounding of kernel values. `None`: none.
        precision: of the inputs of the map's projections.
        rank: replace the landmarks' vectors by their projections on this many principal directions,
            if that costs less (`principal_directions`).
    """
    bases = PerKernel(None, None)
    if rank is not None:
        found = values_of(_vectors_at(features, index))
        psi = found.z_ntk
        bases = PerKernel(
            principal_directions(found.z, found.q, rank),
            None if psi is None else principal_directions(psi, found.q, rank),
        )
    if features.nngp[0].dtype == np.float64:
        others = None
    together = index
    if others is not None:
        together = tuple(np.concatenate(pair) for pair in zip(index, others, strict=True))
    together = tuple(axis.astype(np.int32) for axis in together)  # also without 64 bits
    wide = bool(jax.config.read("jax_enable_x64"))
    with float64():
        duals = rounded(dual, features.nngp[0].dtype), promoted(dual)
        found = _at(duals, features, together, len(index[0]), precision, bases, wide)
    own, z, *kernels = found
    grams, accurate, seen_as_applied = jax.tree.map(in_place, kernels)
    for kernel in jax.tree.leaves((grams, seen_as_applied)):
        check_kernel(kernel, dual, values_of(own.q))
    seen = jax.tree.map(Values, seen_as_applied, accurate)
    differentiated = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((dual, own)))
    traced = _grams(dual, own) if differentiated else PerKernel(None, None)
    return Landmarks(z, own.q, grams, np.sort(index[0]), seen, traced, bases)


def principal_directions(z: Inputs, q: Inputs, rank: int) -> Array | None:
    """The first `rank` principal directions (d, rank) of the vectors `z / √q` (m, d).

    `None` if products through them cost no less than one product with `z`.
    """
    m, d = z.shape
    if rank * (d + m) >= d * m:
        return None
    with float64():
        unit = in_float64(z) / in_float64(q)[:, None] ** 0.5
        _, vectors = eigh(unit.T @ unit, overwrite=True)
        return on_device(vectors[:, -rank:], z.dtype)


@functools.partial(fitting_jit, level=0)
def _at(duals, features: HiddenFeatures, index, count: int, precision: Precision, bases, wide):
    """Landmarks, which are the first `count` positions, and other positions, in one program, under
    `float64()`. `duals` are the kernels in the dtype of the map and in float64; `wide` is whether
    JAX has 64 bits where the map is made.

    Returns:
        The landmarks' `Vectors`, and these in columns; in float64 both Gram matrices of the
        landmarks and both kernels of the other positions with them; and the latter as the map
        computes them.
    """
    own, other = _divided(vectors_at(features, index), count)
    z, z_ntk = (
        rows if basis is None else matmul(matmul(rows, basis, "full"), basis.T, "full")
        for rows, basis in zip((own.z, own.z_ntk), bases, strict=True)
    )
    own = Vectors(z, own.q, own.independent, z_ntk)
    columns = PerKernel(own.z.T, None if own.z_ntk is None else own.z_ntk.T)
    alone = count == len(index[0])
    with x64(wide):  # a formula's constants as the map has them
        nothing: Any = PerKernel(None, None)
        applied = nothing if alone else _kernels(duals[0], other, own, precision)
    fixed, other = jax.tree.map(lambda rows: rows.astype(jnp.float64), values_of((own, other)))
    if alone:
        return own, columns, _grams(duals[1], fixed), nothing, applied
    rows = jax.tree.map(lambda *sets: jnp.concatenate(sets), fixed, other)
    grams, seen = _divided(_kernels(duals[1], rows, fixed, "full", fixed.independent), count)
    return own, columns, grams, seen, applied


def _divided(tree: Any, count: int) -> tuple[Any, Any]:
    """The first `count` rows, and the others."""
    return tuple(
        jax.tree.map(lambda rows, part=part: rows[part], tree)
        for part in (slice(count), slice(count, None))
    )


def _grams(dual, own: Vectors) -> PerKernel:
    """Both Gram matrices of landmarks."""
    return _kernels(dual, own, own, "full", own.independent)


def _kernels(
    dual, rows: Vectors, columns: Vectors, precision: Precision, diagonal: Array | None = None
) -> PerKernel:
    """Both kernels between two sets of positions; `diagonal` replaces the first m covariances of a
    position with itself.
    """
    covariance = matmul(rows.z, columns.z.T, precision)
    if diagonal is not None:
        covariance = with_diagonal(covariance, diagonal)
    k, derivative = dual(covariance, rows.q[:, None], columns.q[None, :])
    if rows.z_ntk is None or columns.z_ntk is None:
        return PerKernel(k, None)
    return PerKernel(k, derivative * matmul(rows.z_ntk, columns.z_ntk.T, precision))


def with_diagonal(matrix: Float[Array, "n m"], diagonal: Float[Array, " m"]) -> Array:
    """The matrix with another diagonal in its first `m` rows."""
    place = jnp.eye(*matrix.shape, dtype=bool)  # no scatter, which is slow to compile
    return jnp.where(place, diagonal[None, :], matrix)


def vectors_at(features: HiddenFeatures, index: tuple[Inputs, ...]) -> Vectors:
    """The `Vectors` at m positions `index` = (example, *position)."""
    variances = features.variances
    z_ntk = None if features.ntk is None else features.ntk_vectors().at(index)
    return Vectors(
        features.nngp_vectors().at(index),
        variances.diagonal(variances.same)[index],
        variances.diagonal(variances.independent)[index],
        z_ntk,
    )


_vectors_at = functools.partial(fitting_jit, level=0)(vectors_at)


def rounded(tree: Any, dtype) -> Any:
    """The tree with its floating-point arrays in another dtype, as arrays of JAX."""
    return jax.tree.map(
        lambda leaf: on_device(leaf, dtype) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def promoted(tree: Any) -> Any:
    """The tree with its floating-point arrays in float64 (see `in_float64`)."""
    return jax.tree.map(lambda leaf: in_float64(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def values_of(tree: Any) -> Any:
    """The tree without derivatives."""
    return jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def check_values(method: str, name: str, features: Any, key: PRNGKey) -> None:
    """Refuses traced data, whose values are not known, before the layer of this name."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((values_of(features), key))):
        raise TypeError(
            f"{method} at {name} takes landmarks from the values of the sample and decomposes"
            " matrices of these, so that its map cannot be made under jax.jit or jax.vmap."
            " Make it outside and pass it to the compiled function as an argument: it is a pytree."
            " For several keys, make one map after the other; jax.grad works without jit."
        )
