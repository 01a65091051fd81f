"""Rules of pools. Pools are linear: NT's own pool is applied to each feature."""

from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Offsets
from ..features._hidden import HiddenFeatures, positions
from ..features._variance_windows import through_pool, window_offsets
from ..features._variances import Variances
from ..features._windows import Windows
from ..identity._specification import Specification
from ._rule import Rule, check_axes
from ._weights import windows_of


class Pool(Rule):
    """`K'(S, T)` is the sum, or mean, of `K(s, t)` over the pairs of positions in two windows.

    As in NT, a mean counts the masked positions of its window.
    """

    positions, masks = "pooled", True

    def __init__(self, layer, windows: Windows, weights: str, axes):
        self.name, self.layer = layer.name, layer.specification
        self.windows, self.weights, self.axes = windows, weights, axes

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        return window_offsets(self.windows, tuple(shape[1:-1]), offsets, pool=True)

    def fit(self, features, *, method, offsets, key):
        return PoolTransform(self.layer, self.windows, self.weights, offsets)


class PoolTransform(eqx.Module):
    layer: Specification
    windows: Windows = eqx.field(static=True)
    weights: str = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features = features.applied()
        mask, variances = self.windows.masks(features.mask), None
        if self.offsets is not None:
            variances = through_pool(
                features.variances, self.windows, self.offsets, weights=self.weights
            ).masked(mask)
        _, pool, _ = self.layer.triple()
        pooled = features.map(lambda block: pool((), block)).replace(mask=mask)
        return pooled.map(pooled.masked).replace(variances=variances)


def avg_pool(layer, window_shape, strides, padding, normalize_edges, batch_axis, channel_axis):
    windows = windows_of(window_shape, strides, padding)
    weights = "average inside" if normalize_edges and windows.padding == "SAME" else "average"
    return Pool(layer, windows, weights, (batch_axis, channel_axis))


def sum_pool(layer, window_shape, strides, padding, batch_axis, channel_axis):
    windows = windows_of(window_shape, strides, padding)
    return Pool(layer, windows, "sum", (batch_axis, channel_axis))


GLOBAL_POOL_NOTE = """
The pool itself is exact. A nonlinearity after it divides by the variance of the pooled position,
the sum of the covariances of all pairs of positions of an example. These are exact up to 256
positions. Beyond, the covariances of different positions are *estimated* by products of features.
Measured with 400 positions, three keys, the estimate adds no visible error: the NTK error is 0.14
under `Nystroem(256)` and 0.09 to 0.14 under `RandomFeatures(256)`, with estimated and with exact
covariances (`python -m benchmarks.position_pairs`).
"""


class GlobalPool(Rule):
    """`K'` is the sum, or mean, of `K(s, t)` over all pairs of positions.

    A nonlinearity after it needs the variance of the pooled features, and so the covariances of all
    pairs of positions of an example (`GLOBAL_POOL_NOTE`). A mean is over unmasked positions.
    """

    positions, masks = "pooled", True

    def __init__(self, layer, mean: bool, axes):
        self.name, self.layer, self.mean, self.axes = layer.name, layer.specification, mean, axes

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        space = shape[1:-1]
        if offsets is None:
            return None
        if positions(space) > method.max_positions_all_pairs:
            return ((0,),) * len(space)
        return tuple(tuple(range(1 - size if k else 0, size)) for k, size in enumerate(space))

    def fit(self, features, *, method, offsets, key):
        exact = positions(features.space) <= method.max_positions_all_pairs
        return GlobalPoolTransform(self.layer, self.mean, exact, offsets)


class GlobalPoolTransform(eqx.Module):
    layer: Specification
    mean: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features = features.applied() if self.exact else features.concrete()
        _, pool, _ = self.layer.triple()
        pooled, size = features.map(lambda block: pool((), block)), positions(features.space)
        pooled = pooled.replace(patched=False)
        scale: Any = size**-2.0 if self.mean else 1.0
        if features.mask is not None:
            places = tuple(range(1, features.mask.ndim))
            pooled = pooled.replace(mask=jnp.all(features.mask, places))
            if self.mean:
                count = jnp.sum(~features.mask, places, dtype=features.dtype)
                count = jnp.maximum(count, 1)
                scale, share = count**-2.0, size / count[:, None]
                pooled = pooled.map(lambda block: share * block)
        if self.offsets is None:
            return pooled.replace(variances=None)
        total = features.variances.total().linear(lambda k: scale * k, ())
        if self.exact:
            return pooled.replace(variances=total)

        def cross(blocks, pooled_blocks):
            own = sum(jnp.sum(b**2, axis=tuple(range(1, b.ndim))) for b in blocks)
            return sum(jnp.sum(b**2, axis=1) for b in pooled_blocks) - scale * own

        nngp_cross = cross(features.nngp, pooled.nngp)
        variances = Variances(
            same=total.same + nngp_cross,
            other=None if total.other is None else total.other + nngp_cross,
            ntk=jax.tree.map(lambda ntk: ntk + cross(features.ntk, pooled.ntk), total.ntk),
            offsets=(),
        )
        return pooled.replace(variances=variances)


def global_avg_pool(layer, batch_axis, channel_axis):
    return GlobalPool(layer, True, (batch_axis, channel_axis))


def global_sum_pool(layer, batch_axis, channel_axis):
    return GlobalPool(layer, False, (batch_axis, channel_axis))
