"""Features of kernels `D J(s, t)`, where `D = Σ_uv J(u, v) V(u, v)` sums over all positions."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from .._typing import Array, PerKernel, PRNGKey
from ..features._hidden import HiddenFeatures, joined
from ..methods._directions import orthogonal_directions
from ..methods._landmarks import promoted, values_of
from ..methods._roots import Roots, fitted_roots
from ..numerics._compiling import fitting_jit
from ..numerics._host_random import generator
from ..numerics._precision import float64, matmul
from ._embedding import Embedded


class Sides(eqx.Module):
    """The vectors at all positions, (n, P, p) each.

    Attributes:
        keys, values: NNGP vectors of keys and queries, and of values.
        keys_ntk, values_ntk: NTK vectors of the same, or `None`.
    """

    keys: Array
    values: Array
    keys_ntk: Array | None
    values_ntk: Array | None

    @classmethod
    def of(cls, features: HiddenFeatures, embedding: Embedded) -> "Sides":
        """The vectors if values have the same embeddings as keys."""
        keys, keys_ntk = _rows(embedding.features(features.concrete()))
        return cls(keys, keys, keys_ntk, keys_ntk)

    @classmethod
    def without_embedded_values(cls, features: HiddenFeatures, embedding: Embedded) -> "Sides":
        features = features.concrete()
        keys, values = _rows(embedding.features(features)), _rows(features)
        return cls(keys.nngp, values.nngp, keys.ntk, values.ntk)


def _rows(features: HiddenFeatures) -> PerKernel:
    both = (joined(blocks, features.nngp[0]) for blocks in (features.nngp, features.ntk))
    nngp, ntk = (None if x is None else x.reshape(x.shape[0], -1, x.shape[-1]) for x in both)
    assert nngp is not None
    return PerKernel(nngp, ntk)


class Products(eqx.Module):
    """Sketches `(A j_s) ⊙ Σ_u (B j_u) ⊙ (C v_u) / √m` with independent A, B and C.

    Attributes:
        a, b, c: projections (p, m) of the vectors `j_s`, `j_u` and `v_u`.
        ntk: the same for NTK vectors, or `None`.
    """

    a: Array
    b: Array
    c: Array
    ntk: tuple[Array, Array, Array] | None

    def __call__(self, x: Sides) -> PerKernel:
        scale = self.a.shape[1] ** -0.5
        one, two, three = (
            matmul(side, matrix, "full")
            for side, matrix in ((x.keys, self.a), (x.keys, self.b), (x.values, self.c))
        )

        def summed(first, second):
            return scale * jnp.sum(first * second, axis=1, keepdims=True)

        shared = summed(two, three)
        nngp = one * shared
        if self.ntk is None or x.keys_ntk is None or x.values_ntk is None:
            return PerKernel(nngp, None)
        a, b, c = self.ntk
        parts = [
            2 * nngp,
            matmul(x.keys_ntk, a, "full") * shared,
            one * summed(two, matmul(x.values_ntk, c, "full")),
            one * summed(matmul(x.keys_ntk, b, "full"), three),
        ]
        return PerKernel(nngp, jnp.concatenate(parts, axis=-1))


def products(sides: Sides, width: int, key: PRNGKey) -> Products:
    """Draws products of `width` features for vectors of these shapes."""
    dtype = sides.keys.dtype
    kinds = [sides.keys, sides.keys, sides.values]
    if sides.keys_ntk is not None and sides.values_ntk is not None:
        kinds += [sides.keys_ntk, sides.keys_ntk, sides.values_ntk]
    drawn = [
        orthogonal_directions(own, kind.shape[-1], width, dtype, chi_norms=False)
        for own, kind in zip(jax.random.split(key, len(kinds)), kinds, strict=True)
    ]
    return Products(*drawn[:3], ntk=None if len(drawn) == 3 else (drawn[3], drawn[4], drawn[5]))


class Landmarks(eqx.Module):
    """Kernel values with landmarks, times an inverse root of the landmarks' Gram matrix.

    Attributes:
        sides: vectors (E, P, p) of the E examples that landmarks come from.
        place: for each landmark its example among these, and its position, (m,) each.
        roots, roots_ntk: inverse roots of the Gram matrices of both kernels.
        examples: sorted indices of these examples in the sample.
    """

    sides: Sides
    place: tuple[Array, Array]
    roots: Roots
    roots_ntk: Roots | None
    examples: Array

    def __call__(self, x: Sides) -> PerKernel:
        k, k_ntk = kernels(x, self.sides, self.place)
        nngp: Any = self.roots(k, None, None)
        if k_ntk is None or self.roots_ntk is None:
            return PerKernel(nngp.formed(), None)
        ntk: Any = self.roots_ntk(k_ntk, None, None)
        return PerKernel(nngp.formed(), ntk.formed())


def kernels(x: Sides, z: Sides, place: Any) -> PerKernel:
    """Both kernels (n, P, m), of all positions of `x` with the positions `place` of `z`.

    Pairs of positions are formed for one example of `z` after the other: n P² numbers at a time.
    """
    example, position = place

    def dot(a, b):
        return jnp.einsum("nuc,vc->nuv", a, b, precision="highest")

    def sums(one: Sides) -> PerKernel:
        """`D` and `D_Θ` of all examples of `x` with one of `z`, (n,) each."""
        keys, values = dot(x.keys, one.keys), dot(x.values, one.values)
        shared = jnp.sum(keys * values, (1, 2))
        if x.keys_ntk is None or one.keys_ntk is None:
            return PerKernel(shared, None)
        keys_ntk, values_ntk = dot(x.keys_ntk, one.keys_ntk), dot(x.values_ntk, one.values_ntk)
        return PerKernel(shared, jnp.sum(keys * values_ntk + values * keys_ntk, (1, 2)))

    found = jax.lax.map(jax.checkpoint(sums), z)  # derivatives form the pairs again
    shared, mixed = jax.tree.map(lambda k: k.T[:, None, example], found)
    own = dot(x.keys, z.keys[example, position])
    if x.keys_ntk is None or z.keys_ntk is None:
        return PerKernel(shared * own, None)
    own_ntk = dot(x.keys_ntk, z.keys_ntk[example, position])
    return PerKernel(shared * own, mixed * own + shared * (own_ntk + 4 * own))


def landmarks(sides: Sides, mask: Any, width: Any, key: PRNGKey) -> Landmarks:
    """Landmarks at `width` uniformly random positions, or at all unmasked ones if there are fewer.

    A `width` of `None` means all.
    """
    shape = sides.keys.shape[:2]
    seen = np.ones(shape, bool) if mask is None else ~np.asarray(mask).reshape(shape)
    usable = np.flatnonzero(seen)
    count = len(usable) if width is None else min(width.one, len(usable))
    chosen = np.sort(generator(key).permutation(usable)[:count])
    owner, position = np.unravel_index(chosen, shape)
    examples, example = np.unique(owner, return_inverse=True)
    own, place = jax.tree.map(lambda rows: rows[examples], sides), (example, position)
    traced: Any = PerKernel(None, None)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(own)):
        traced = _gram(own, place)
    with float64():
        grams = _gram(promoted(values_of(own)), place)
    dtype = sides.keys.dtype
    rcond = count * float(jnp.finfo(dtype).eps)
    roots, roots_ntk = (
        None if gram is None else fitted_roots(np.asarray(gram), dtype, rcond=rcond, traced=also)
        for gram, also in zip(grams, traced, strict=True)
    )
    assert roots is not None
    place = jnp.asarray(example), jnp.asarray(position)
    return Landmarks(own, place, roots, roots_ntk, jnp.asarray(examples))


@fitting_jit
def _gram(z: Sides, place: Any) -> PerKernel:
    """Both Gram matrices (m, m) of landmarks."""
    k, k_ntk = kernels(z, z, place)
    return PerKernel(k[place], None if k_ntk is None else k_ntk[place])
