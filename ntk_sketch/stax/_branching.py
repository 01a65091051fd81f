"""Rules of the layers that split and join branches."""

import functools
import math
from typing import Any

import equinox as eqx
from jax import numpy as jnp

from .._typing import Offsets
from ..features._hidden import HiddenFeatures
from ..features._windows import union
from ._linear import selected
from ._rule import NoRule, Rule


class FanOut(Rule):
    masks = True

    def __init__(self, num: int):
        self.num = num

    def needs(self, offsets, shape, *, method):
        return union(*offsets)

    def fit(self, features, *, method, offsets, key):
        return FanOutTransform(tuple(offsets))

    def series(self, series):
        return [series] * self.num


class FanOutTransform(eqx.Module):
    offsets: tuple[Offsets, ...] = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> list[HiddenFeatures]:
        return [
            features.replace(variances=selected(features.variances, wanted))
            for wanted in self.offsets
        ]


def fan_out(layer, num):
    return FanOut(num)


class FanIn(Rule):
    """The sum of independent branches: kernels add, so that features are concatenated.

    Positions that all branches mask are masked.
    """

    masks = forms_patches = True

    def needs(self, offsets, shape, *, method):
        return [offsets] * len(shape)

    def fit(self, features, *, method, offsets, key):
        return FanInTransform(offsets)

    def series(self, series):
        return functools.reduce(lambda a, b: a.plus(b), series)


class FanInTransform(eqx.Module):
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: list[HiddenFeatures], **kwargs) -> HiddenFeatures:
        return add([branch.applied() for branch in features], self.offsets)


def add(branches: list[HiddenFeatures], offsets: Offsets) -> HiddenFeatures:
    first = branches[0]
    variances = None
    if offsets is not None:
        variances, *others = (branch.variances.select(offsets) for branch in branches)
        variances = variances.plus(others)
    return first.replace(
        nngp=sum((branch.nngp for branch in branches), ()),
        ntk=None if first.ntk is None else sum((branch.ntk for branch in branches), ()),
        variances=variances,
        mask=common_mask([branch.mask for branch in branches]),
        patched=any(branch.patched for branch in branches),
    )


def common_mask(masks: list[Any]) -> Any:
    """The positions that all masks mark; `None` means no mask."""
    given = [mask for mask in masks if mask is not None]
    return functools.reduce(jnp.logical_and, given) if len(given) == len(masks) else None


def fan_in_sum(layer):
    return FanIn()


class FanInConcatChannels(FanIn):
    """`K' = Σ_i (c_i / Σc) K_i` with c the finite channel counts."""

    def series(self, series):
        total = sum(branch.channels for branch in series)
        scaled = [branch.scaled(branch.channels / total) for branch in series]
        return super().series(scaled)._replace(channels=total)

    def fit(self, features, *, method, offsets, key):
        return ConcatChannelsTransform(offsets)


class ConcatChannelsTransform(eqx.Module):
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: list[HiddenFeatures], **kwargs) -> HiddenFeatures:
        total = sum(branch.channels for branch in features)
        scaled = []
        for branch in features:
            share = branch.channels / total
            branch = branch.applied().map(lambda block, share=share: math.sqrt(share) * block)
            if self.offsets is not None:
                variances = branch.variances.linear(
                    lambda k, share=share: share * k, branch.variances.offsets
                )
                branch = branch.replace(variances=variances)
            scaled.append(branch)
        return add(scaled, self.offsets).replace(channels=total)


class FanInConcatSpace(FanIn):
    """Concatenation along one spatial axis; positions of different branches are independent."""

    def __init__(self, axis: int):
        self.axis = axis

    def fit(self, features, *, method, offsets, key):
        return ConcatSpaceTransform(self.axis, offsets)


class ConcatSpaceTransform(eqx.Module):
    axis: int = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: list[HiddenFeatures], **kwargs) -> HiddenFeatures:
        branches = [branch.applied() for branch in features]
        sizes = [branch.space[self.axis - 1] for branch in branches]
        padded = []
        for i, branch in enumerate(branches):
            before, after = sum(sizes[:i]), sum(sizes[i + 1 :])

            def pad(array, axis, before=before, after=after):
                widths = [(0, 0)] * array.ndim
                widths[axis] = (before, after)
                return jnp.pad(array, widths)

            branch = branch.map(lambda block, pad=pad: pad(block, self.axis))
            if branch.mask is not None:
                branch = branch.replace(mask=~pad(~branch.mask, self.axis))
            if self.offsets is not None:
                variances = branch.variances.linear(
                    lambda k, pad=pad: pad(k, k.ndim // 2 + self.axis), branch.variances.offsets
                )
                branch = branch.replace(variances=variances)
            padded.append(branch)
        return add(padded, self.offsets)


class FanInConcat(Rule):
    """Concatenation of channels or positions, by `axis` and the number of axes of the inputs."""

    masks = forms_patches = True

    def __init__(self, layer, axis: int):
        self.name, self.axis = layer.name, axis

    def _rule(self, ndim: int) -> Rule:
        axis = self.axis % ndim
        if axis == 0:
            return NoRule(
                self.name, "concatenates along the batch axis, which has no features per example"
            )
        return FanInConcatChannels() if axis == ndim - 1 else FanInConcatSpace(axis)

    def needs(self, offsets, shape, *, method):
        return self._rule(len(shape[0])).needs(offsets, shape, method=method)

    def series(self, series):
        return self._rule(2).series(series)

    def fit(self, features, *, method, offsets, key):
        rule = self._rule(len(features[0].space) + 2)
        return rule.fit(features, method=method, offsets=offsets, key=key)


def fan_in_concat(layer, axis):
    return FanInConcat(layer, axis)
