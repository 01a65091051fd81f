"""The rule of GlobalSelfAttention with linear scaling.

Attention weights of an example come from the covariances of its own positions.
"""

from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array, Offsets, Scalar
from ..features._hidden import Affine, HiddenFeatures, positions
from ..features._position_pairs import pair_bands, pair_matrices, pair_offsets, through_weights
from ..features._windows import union
from ..identity._specification import as_leaves, in_dtype
from ._embedding import Embedded, Embedding
from ._quadratic_attention import QuadraticAttention
from ._rule import Rule, check_axes, check_positions

NOTE = """
The attention weights of an example come from the covariances of all pairs of its positions. These
are exact up to 256 positions. Beyond, the covariances of different positions are *estimated* by
products of features. Measured with 400 tokens, three keys and `linear_scaling=True`: the NTK error
of `RandomFeatures(256)` is 0.10 to 0.15 with estimated and with exact covariances; that of
`Nystroem(256)` is 0.14 with estimated and 0.08 to 0.10 with exact covariances.

With `linear_scaling=True` the layer is linear for given attention weights, and adds no error of its
own. With `linear_scaling=False` its kernel is cubic in that of the inputs. Features of the cubic
kernel come from landmarks (`Nystroem`) or sketches, and both have an error: with 400 tokens the NTK
error is 0.27 to 0.29 under `Nystroem(256)` and 0.51 to 0.56 under `RandomFeatures(256)`, with
estimated and with exact covariances. Use a larger width there. All by `python -m
benchmarks.position_pairs`.
"""


class Attention(Rule):
    """`K' = W_OV² G K Gᵀ + b_std²`, `Θ' = W_OV² G Θ Gᵀ + 2 W_OV² G K Gᵀ + b_std²`,

    Each example has attention weights `G = ζ(W_QK (K + R))`, where `R` is the covariance of
    positional embeddings and ζ the mechanism (a softmax over the second position). For given G the
    layer is linear in the features; an affine layer follows. With `val_pos_emb`, R is added to K
    and Θ, and a root of it to their features.

    G needs the covariances of all pairs of positions of an example (`NOTE`).

    Source: Hron, Bahri, Sohl-Dickstein and Novak 2020 (arXiv 2006.10540).
    """

    positions, masks, compares = "pooled", True, True

    def __init__(self, layer, embedding, mechanism, query_key, affine, channels, axes):
        self.name, self.axes = layer.name, axes
        self.embedding, self.mechanism, self.query_key = embedding, mechanism, query_key
        self.affine, self.channels = affine, channels

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        check_positions(self.name, shape)
        space = tuple(shape[1:-1])
        wanted = union(offsets, ((0,),) * len(space))
        exact = positions(space) <= method.max_positions_all_pairs
        return pair_offsets(space, tuple(range(len(space))), wanted, exact=exact)

    def fit(self, features, *, method, offsets, key):
        exact = positions(features.space) <= method.max_positions_all_pairs
        embedding = self.embedding.of(
            features.space, features.channels, self.name, root=self.embedding.values
        )
        query_key, affine = as_leaves((self.query_key, self.affine))
        return AttentionTransform(
            embedding, self.mechanism, query_key, affine, self.channels, exact, offsets
        )


class AttentionTransform(eqx.Module):
    """The layer fitted to the positions of a sample.

    Attributes:
        embedding: of the sample's positions, with a root if values have embeddings too.
        query_key: `W_QK`.
        affine: the affine layer after the weighted sums, which is left pending.
    """

    embedding: Embedded
    mechanism: str = eqx.field(static=True)
    query_key: Scalar
    affine: Affine
    channels: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features = features.applied() if self.exact else features.concrete()
        space, mask, affine = features.space, features.mask, in_dtype(self.affine, features.dtype)
        along = tuple(range(len(space)))
        offsets = ((0,),) * len(space) if self.offsets is None else self.offsets
        matrices = pair_matrices(features, along, offsets, exact=self.exact)
        embedded = self.embedding.covariances(matrices, mask)
        weights = self.weights(embedded.same, mask)
        if self.embedding.root is not None:
            features, matrices = self.embedding.features(features), embedded
        mixed = features.map(lambda block: mixed_positions(weights, block))
        variances = None
        if self.offsets is not None:
            bands = pair_bands(through_weights(weights, matrices), space, along, self.offsets)
            variances = bands.affine(
                affine.weight, affine.bias, affine.ntk_weight, affine.ntk_bias
            ).masked(mask)
        return mixed.replace(variances=variances, channels=self.channels, pending=affine)

    def weights(self, covariance: Array, mask: Array | None) -> Array:
        """Attention weights `G` (n, P, P): row s holds the weights of all positions for s."""
        scores = in_dtype(self.query_key, covariance.dtype) * covariance
        seen = None if mask is None else ~mask.reshape(len(mask), 1, -1)
        if self.mechanism == "SOFTMAX":
            # Finite, as in NT: with -inf the softmax is NaN if all positions are masked.
            low = jnp.finfo(scores.dtype).min / 2
            return jax.nn.softmax(scores if seen is None else jnp.where(seen, scores, low))
        scores = scores if seen is None else jnp.where(seen, scores, 0)
        if self.mechanism == "IDENTITY":
            return scores
        return jnp.abs(scores) if self.mechanism == "ABS" else jnp.maximum(scores, 0)


def mixed_positions(weights: Array, block: Array) -> Array:
    """`Σ_t G[s, t] x_t` for vectors `x` (n, *space, p)."""
    rows = block.reshape(len(block), -1, block.shape[-1])
    return jnp.matmul(weights, rows, precision="highest").reshape(block.shape)


def global_self_attention(
    layer,
    n_chan_out: int,
    n_chan_key: int,
    n_chan_val: int,
    n_heads: int,
    linear_scaling: bool,
    W_key_std: Any,
    W_value_std: Any,
    W_query_std: Any,
    W_out_std: Any,
    b_std: Any,
    attention_mechanism: Any,
    pos_emb_type: Any,
    pos_emb_p_norm: Any,
    pos_emb_decay_fn: Any,
    n_chan_pos_emb: int | None,
    W_pos_emb_std: Any,
    val_pos_emb: bool,
    batch_axis: int,
    channel_axis: int,
) -> Rule:
    embedding = Embedding(
        kind=getattr(pos_emb_type, "value", pos_emb_type),
        p_norm=pos_emb_p_norm,
        decay=pos_emb_decay_fn,
        channels=n_chan_pos_emb,
        std=W_pos_emb_std,
        values=bool(val_pos_emb),
    )
    mechanism = getattr(attention_mechanism, "value", attention_mechanism)
    query_key, weight = W_query_std * W_key_std, W_out_std * W_value_std
    axes = (batch_axis, channel_axis)
    if not linear_scaling:  # NT has a kernel here only if the mechanism is the identity
        return QuadraticAttention(layer, embedding, query_key * weight, b_std, n_chan_out, axes)
    affine = Affine(weight, b_std, 2**0.5 * weight, b_std)
    return Attention(layer, embedding, mechanism, query_key, affine, n_chan_out, axes)
