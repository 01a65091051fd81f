"""The rule of GlobalSelfAttention without linear scaling, with the identity as its mechanism."""

import functools
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array, Offsets, PerKernel, Scalar
from ..features._hidden import HiddenFeatures, positions
from ..features._position_pairs import pair_bands, pair_matrices, pair_offsets
from ..features._variances import Variances
from ..features._windows import union
from ..identity._specification import as_leaves, in_dtype
from ..methods._norms import with_norm
from ._cubic import Sides, landmarks, products
from ._embedding import Embedded, Embedding
from ._rule import Rule, check_axes, check_positions


class QuadraticAttention(Rule):
    """`K'(s, t) = W² D J(s, t) + b_std²` with `D = Σ_uv J(u, v) V(u, v)` of two examples.

    `J` is the covariance of keys and queries, and `V` that of values. Both are K, with the
    covariance of positional embeddings added if there are any. With Θ_J and Θ_V defined likewise,

        Θ' = W² (D_Θ J + D (Θ_J + 4 J)) + b_std²,    D_Θ = Σ_uv J Θ_V + V Θ_J.

    The kernel is cubic in that of the inputs, so that the layer is not a linear map of features. A
    data-dependent method uses landmarks. Other methods sketch products of three random projections,

        φ'_s = W (A φ_s) ⊙ Σ_u (B φ_u) ⊙ (C φ_u) / √m.

    The sketch is unbiased, and its variance falls as 1/m.

    Source: Hron, Bahri, Sohl-Dickstein and Novak 2020 (arXiv 2006.10540); the sketch is derived
    here.
    """

    nonlinearities, positions, masks, compares = 1, "expanded", True, True

    def __init__(self, layer, embedding: Embedding, weight, bias, channels: int, axes):
        self.name, self.axes, self.embedding = layer.name, axes, embedding
        self.weight, self.bias, self.channels = weight, bias, channels

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        check_positions(self.name, shape)
        if offsets is None and not method.uses_variances:
            return None
        space = tuple(shape[1:-1])
        wanted = union(offsets, ((0,),) * len(space))
        exact = positions(space) <= method.max_positions_all_pairs
        return pair_offsets(space, tuple(range(len(space))), wanted, exact=exact)

    def looks_at_data(self, method):
        return method.looks_at_data

    def fit(self, features, *, method, offsets, key):
        exact = positions(features.space) <= method.max_positions_all_pairs
        embedding = self.embedding.of(features.space, features.channels, self.name, root=True)
        sides = Sides.of if self.embedding.values else Sides.without_embedded_values
        weight, bias = as_leaves((self.weight, self.bias))
        entering = functools.partial(sides, embedding=embedding)
        if method.looks_at_data:
            made = landmarks(entering(features), features.mask, getattr(method, "width", None), key)
        elif hasattr(method, "width"):
            made = products(eqx.filter_eval_shape(entering, features), method.width.one, key)
        else:  # the method only propagates variances
            made = None
        return QuadraticTransform(
            embedding,
            made,
            weight,
            bias,
            self.embedding.values,
            getattr(method, "normalize", method.uses_variances) and not method.looks_at_data,
            self.channels,
            exact,
            offsets,
        )


class QuadraticTransform(eqx.Module):
    """The layer fitted to the positions of a sample.

    Attributes:
        made: `Products` or `Landmarks`; `None` if only variances are needed.
        values: whether values have embeddings.
        normalize: whether features are rescaled to their exact norms.
    """

    embedding: Embedded
    made: Any
    weight: Scalar
    bias: Scalar | None
    values: bool = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features = features.concrete()
        weight, bias = in_dtype((self.weight, self.bias), features.dtype)
        variances = None
        if features.variances is not None and (self.normalize or self.offsets is not None):
            variances = self.variances(features, weight)
        nngp, ntk = self.vectors(features)
        if self.normalize and variances is not None:
            norm, norm_ntk = variances.diagonals().kernels
            nngp = with_norm(nngp, norm)
            ntk = None if ntk is None or norm_ntk is None else with_norm(ntk, norm_ntk)
        else:
            nngp, ntk = jax.tree.map(lambda z: weight * z, (nngp, ntk))
        constant = () if bias is None else (jnp.full((*nngp.shape[:-1], 1), bias, nngp.dtype),)
        if variances is not None and self.offsets is not None:
            one = jnp.ones((), features.dtype)
            variances = variances.affine(one, bias, 0 * one, bias).masked(features.mask)
        after = features.replace(
            nngp=(nngp, *constant),
            ntk=None if ntk is None else (ntk, *constant),
            variances=None if self.offsets is None else variances,
            channels=self.channels,
        )
        return after.map(after.masked)

    def vectors(self, features: HiddenFeatures) -> PerKernel:
        """Features of both kernels without weight and bias."""
        if self.made is None:
            nothing = jnp.zeros((*features.nngp[0].shape[:-1], 1), features.dtype)
            return PerKernel(nothing, None if features.ntk is None else nothing)
        of = Sides.of if self.values else Sides.without_embedded_values
        nngp, ntk = self.made(of(features, self.embedding))
        shape = features.nngp[0].shape[:-1]
        return jax.tree.map(lambda z: z.reshape(*shape, -1), PerKernel(nngp, ntk))

    def variances(self, features: HiddenFeatures, weight: Array) -> Variances:
        """Variances after the layer, without its bias."""
        space = features.space
        along, offsets = tuple(range(len(space))), self.offsets
        offsets = ((0,),) * len(space) if offsets is None else offsets
        values = pair_matrices(features, along, offsets, exact=self.exact)
        keys = self.embedding.covariances(values, features.mask)
        values = keys if self.values else values

        def product(keys, values):
            return weight**2 * total(keys * values) * keys

        independent, ntk = keys.independent, keys.ntk
        if ntk is not None:
            no = jnp.zeros_like(keys.same)
            of_keys = no if isinstance(ntk, tuple) else ntk
            of_values: Any = no if isinstance(values.ntk, tuple) else values.ntk
            mixed = total(independent * of_values + values.independent * of_keys)
            shared = total(independent * values.independent)
            ntk = weight**2 * (mixed * independent + shared * (of_keys + 4 * independent))
        other = None if keys.other is None else product(keys.other, values.independent)
        matrices = Variances(product(keys.same, values.same), other, ntk, offsets)
        return pair_bands(matrices, space, along, offsets)


def total(matrices: Array) -> Array:
    """The sum over all pairs of positions (n, 1, 1)."""
    return jnp.sum(matrices, (1, 2), keepdims=True)
