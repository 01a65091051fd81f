"""Rules of the layers with weights, and of those that leave features as they are."""

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Offsets, Scalar
from ..features._hidden import Affine, HiddenFeatures
from ..features._variance_windows import through_convolution, window_offsets
from ..features._windows import Windows
from ..identity._specification import as_leaves, in_dtype
from ..numerics._stored import stored
from ._rule import NoRule, Rule, check_axes


class Weights(Rule):
    """Dense and Conv: `K' = W_std² A(K) + b_std²`, and the NTK of either parameterization.

    With `A` the mean over the window (the identity for Dense), c the input channels and |w| the
    window's size,

        'ntk':       Θ' = K' + W_std² A(Θ)
        'standard':  Θ' = c |w| / s[0] A(K) + W_std² A(Θ) + 1 (the last with a bias only)

    as in NT (Jacot et al. 2018, arXiv 1806.07572; Sohl-Dickstein et al. 2020, arXiv 2001.07301).
    Patches are not built: the layer stays pending on the features until a nonlinearity projects
    them.
    """

    masks = True

    def __init__(self, layer, out, W_std, b_std, parameterization, s, windows=None, axes=(0, -1)):
        self.name, self.windows, self.axes = layer.name, windows, axes
        self.W_std, self.b_std, self.s = W_std, b_std, s
        self.standard = parameterization.lower() == "standard"
        self.channels = out * s[1] if self.standard else out

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        if self.windows is None:
            return offsets
        return window_offsets(self.windows, tuple(shape[1:-1]), offsets, pool=False)

    def affine(self, channels: int) -> Affine:
        """This layer as an `Affine`, for inputs of `channels` channels."""
        size = 1 if self.windows is None else self.windows.size
        weight = self.W_std / size**0.5
        if self.standard:
            ntk_weight = (channels / self.s[0]) ** 0.5
            ntk_bias = None if self.b_std is None else 1.0
        else:
            ntk_weight, ntk_bias = weight, self.b_std
        return Affine(weight, self.b_std, ntk_weight, ntk_bias, self.windows)

    def fit(self, features, *, method, offsets, key):
        affine = as_leaves(self.affine(features.channels))
        return AffineTransform(affine, self.windows, self.channels, offsets)

    def series(self, series):
        if self.windows is not None:
            return super().series(series)
        a = self.affine(series.channels)
        after = series.affine(a.weight, a.bias, a.ntk_weight, a.ntk_bias)
        return after._replace(channels=self.channels)


class AffineTransform(eqx.Module):
    affine: Affine
    windows: Windows | None = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features = features.applied()
        affine = in_dtype(self.affine, features.dtype)
        mask = features.mask if self.windows is None else self.windows.masks(features.mask)
        variances = None
        if self.offsets is not None:
            if self.windows is None:
                variances = jax.tree.map(stored, features.variances.select(self.offsets))
            else:
                variances = through_convolution(features.variances, self.windows, self.offsets)
            variances = variances.affine(
                affine.weight, affine.bias, affine.ntk_weight, affine.ntk_bias
            ).masked(mask)
        return features.replace(
            variances=variances, channels=self.channels, pending=affine, mask=mask
        )


def dense(layer, out_dim, W_std, b_std, batch_axis, channel_axis, parameterization, s):
    axes = (batch_axis, channel_axis)
    return Weights(layer, out_dim, W_std, b_std, parameterization, s, axes=axes)


def conv(
    layer,
    out_chan,
    filter_shape,
    strides,
    padding,
    W_std,
    b_std,
    dimension_numbers,
    parameterization,
    s,
):
    if dimension_numbers is not None and not _channels_last(*dimension_numbers):
        reason = (
            f"has dimension_numbers={dimension_numbers!r}; features support the default,"
            " channels-last order, for example ('NHWC', 'HWIO', 'NHWC')"
        )
        return NoRule(layer.name, reason)
    windows = windows_of(filter_shape, strides, padding)
    return Weights(layer, out_chan, W_std, b_std, parameterization, s, windows=windows)


def windows_of(shape, strides, padding) -> Windows:
    shape = tuple(map(int, shape))
    strides = (1,) * len(shape) if strides is None else tuple(map(int, strides))
    return Windows(shape, strides, getattr(padding, "name", padding))


def _channels_last(lhs: str, rhs: str, out: str) -> bool:
    space = lhs[1:-1]
    return lhs == out == f"N{space}C" and rhs == f"{space}IO"


class Identity(Rule):
    """Features unchanged."""

    masks = True

    def fit(self, features, *, method, offsets, key):
        return SelectTransform(offsets)

    def series(self, series):
        return series


class SelectTransform(eqx.Module):
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features, **kwargs):
        return features.replace(variances=selected(features.variances, self.offsets))


def selected(variances, offsets: Offsets):
    return None if offsets is None else variances.select(offsets)


def identity(layer):
    return Identity()


class Dropout(Rule):
    """Identity on features, which stand for two passes with independent masks; variances of one
    pass grow by `1 / rate`.
    """

    masks = True

    def __init__(self, rate: float):
        self.rate = rate

    def fit(self, features, *, method, offsets, key):
        return DropoutTransform(as_leaves(self.rate), offsets)


class DropoutTransform(eqx.Module):
    rate: Scalar
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        variances = selected(features.variances, self.offsets)
        return features.replace(
            variances=None if variances is None else variances.dropout(1 / self.rate)
        )


def dropout(layer, rate, mode):
    return Dropout(rate) if mode == "train" else Identity()


class Flatten(Rule):
    """Positions become features: `K' = mean over s of K(s, s)`."""

    positions, masks = "flattened", True

    def __init__(self, layer, batch_axis: int, batch_axis_out: int):
        self.name, self.axes = layer.name, (batch_axis, batch_axis_out)

    def needs(self, offsets, shape, *, method):
        batch_axis, batch_axis_out = self.axes
        if batch_axis % len(shape) != 0 or batch_axis_out % 2 != 0:
            raise NotImplementedError(
                f"{self.name}: features support batch_axis=0 and batch_axis_out=0, got"
                f" {batch_axis} and {batch_axis_out}."
            )
        return None if offsets is None else ((0,),) * (len(shape) - 2)

    def fit(self, features, *, method, offsets, key):
        return FlattenTransform(offsets)


class FlattenTransform(eqx.Module):
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features = features.concrete()
        space = features.space
        size = 1
        for length in space:
            size *= length
        variances = None
        if self.offsets is not None:
            axes = tuple(range(1, 1 + 2 * len(space)))
            variances = features.variances.linear(lambda k: jnp.sum(k, axes) / size, ())
        mask = features.mask
        if mask is not None:
            mask = jnp.all(mask, tuple(range(1, mask.ndim)))
        features = features.map(lambda block: block.reshape(block.shape[0], -1) * size**-0.5)
        return features.replace(variances=variances, channels=features.channels * size, mask=mask)


def flatten(layer, batch_axis, batch_axis_out):
    return Flatten(layer, batch_axis, batch_axis_out)
