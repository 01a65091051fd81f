"""How linear layers act on features, and the rules of Identity, Dropout and Flatten."""

from typing import Any

import equinox as eqx
from jax import numpy as jnp

from .._typing import Offsets, Scalar
from ..features._hidden import Affine, HiddenFeatures
from ..features._patch_operator import PatchOperator
from ..features._patch_variances import through_patches
from ..features._transposed_windows import TransposedWindows
from ..features._windows import Windows
from ..identity._specification import as_leaves, in_dtype
from ._rule import Rule

#: Patch operators that compute the mask of their outputs.
MASKING = (Windows, TransposedWindows)


class AffineTransform(eqx.Module):
    """Records a layer with weights on the features, for the next nonlinearity to apply."""

    affine: Affine
    windows: PatchOperator | None = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features = features.applied()
        affine = in_dtype(self.affine, features.dtype)
        mask = features.mask
        if isinstance(self.windows, MASKING):
            mask = self.windows.masks(mask)
        variances = None
        if self.offsets is not None:
            variances = self.after(features.variances, affine, self.offsets).masked(mask)
        return features.replace(
            variances=variances, channels=self.channels, pending=affine, mask=mask
        )

    def after(self, variances: Any, a: Affine, offsets: tuple[tuple[int, ...], ...]) -> Any:
        """Variances after the layer, at `offsets`."""
        variances = through_patches(self.windows, variances, offsets)
        return variances.affine(a.weight, a.bias, a.ntk_weight, a.ntk_bias)


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
    """Identity on features; variances grow by `1 / rate`.

    Inner products of features are covariances of two passes with independent masks, which Dropout
    leaves unchanged.
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
        channels = features.channels * size
        return features.replace(variances=variances, channels=channels, mask=mask, patched=False)


def flatten(layer, batch_axis, batch_axis_out):
    return Flatten(layer, batch_axis, batch_axis_out)
