"""The rule of LayerNorm: division by exact standard deviations."""

import equinox as eqx
from jax import numpy as jnp

from .._typing import Offsets, Scalar
from ..features._hidden import HiddenFeatures
from ..features._windows import union
from ..identity._specification import as_leaves, in_dtype
from ._rule import Rule, check_axes


class LayerNorm(Rule):
    """`K'(s, t) = K(s, t) / √((eps + v_s) (eps + v_t))`, and Θ likewise.

    `v` is the variance `K(s, s)`, averaged over the spatial axes that are normalised together with
    the channels. It is the exact variance, not the squared norm of features. With masks, as in NT,
    the sum of `eps + v` over all positions is divided by the number of unmasked ones.
    """

    masks = True

    def __init__(self, layer, axis, eps: float, axes):
        self.name, self.eps, self.axes = layer.name, eps, axes
        self.axis = (axis,) if isinstance(axis, int) else tuple(axis)

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        if 0 in self.normalised(len(shape)):
            raise NotImplementedError(
                f"{self.name}: features of an example cannot depend on the others of its batch,"
                f" but axis={self.axis} contains the batch axis. Leave axis 0 out."
            )
        return union(offsets, ((0,),) * (len(shape) - 2))

    def normalised(self, ndim: int) -> set[int]:
        return {axis % ndim for axis in self.axis}

    def fit(self, features, *, method, offsets, key):
        channel_axis = 1 + len(features.space)
        together = self.normalised(channel_axis + 1) - {channel_axis}
        return LayerNormTransform(tuple(sorted(together)), as_leaves(self.eps), offsets)

    def series(self, series):
        return series.layer_norm(self.eps)


class LayerNormTransform(eqx.Module):
    """`together`: the spatial axes of (n, *space) over which variances are averaged."""

    together: tuple[int, ...] = eqx.field(static=True)
    eps: Scalar
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features, variances = features.applied(), features.variances
        v = variances.diagonal(variances.same)
        eps = in_dtype(self.eps, v.dtype)
        if features.mask is None or not self.together:
            mean = eps + jnp.mean(v, self.together, keepdims=True)
        else:
            count = jnp.sum(~features.mask, self.together, keepdims=True, dtype=v.dtype)
            mean = jnp.sum(eps + v, self.together, keepdims=True) / jnp.maximum(count, 1)
        factor = jnp.broadcast_to(mean**-0.5, v.shape)
        return features.map(lambda block: block * factor[..., None]).replace(
            variances=None if self.offsets is None else variances.scaled(factor, self.offsets)
        )


def layer_norm(layer, axis, eps, batch_axis, channel_axis):
    return LayerNorm(layer, axis, eps, (batch_axis, channel_axis))
