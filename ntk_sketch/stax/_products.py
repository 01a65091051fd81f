"""The rule of FanInProd."""

import functools
from typing import Any

import equinox as eqx

from .._typing import Offsets
from ..features._hidden import HiddenFeatures
from ..features._windows import union
from ._branching import common_mask
from ._linear import selected
from ._rule import Rule


class FanInProd(Rule):
    """`K' = Π_i K_i`, `Θ' = Σ_i Θ_i Π_{j≠i} K_j` of independent branches.

    The features of a product are a tensor product, which is too large to form. Methods expand it
    like a nonlinearity, and it takes one entry of a schedule of widths. `Nystroem` and `Exact` use
    landmarks of the product kernels; the others multiply random projections of the branches
    elementwise.
    """

    nonlinearities = 1
    positions = "expanded"
    masks = True

    def __init__(self, layer):
        self.name = layer.name

    def needs(self, offsets, shape, *, method):
        if offsets is not None or method.uses_variances:
            offsets = union(offsets, ((0,),) * (len(shape[0]) - 2))
        return [offsets] * len(shape)

    def looks_at_data(self, method):
        return method.looks_at_data

    def fit(self, features, *, method, offsets, key):
        if len(features) == 1:
            return OneBranchTransform(offsets)
        method.check_examples(self.name, features)
        return ProductTransform(method.expand_product(self.name, features, key=key), offsets)

    def series(self, series):
        return functools.reduce(lambda a, b: a.times(b), series)


class ProductTransform(eqx.Module):
    expansion: Any
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: list[HiddenFeatures], **kwargs) -> HiddenFeatures:
        first, exact = features[0], None
        if first.variances is not None:
            offsets = ((0,),) * len(first.space) if self.offsets is None else self.offsets
            exact, *others = (branch.variances.select(offsets) for branch in features)
            exact = exact.times(others)
        nngp, ntk = self.expansion(features, exact)
        return first.replace(
            nngp=(nngp,),
            ntk=None if ntk is None else (ntk,),
            variances=None if self.offsets is None else exact,
            pending=None,
            patched=False,
            mask=common_mask([branch.mask for branch in features]),
        )


class OneBranchTransform(eqx.Module):
    """The product of a single branch."""

    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: list[HiddenFeatures], **kwargs) -> HiddenFeatures:
        (only,) = features
        return only.replace(variances=selected(only.variances, self.offsets))


def fan_in_prod(layer):
    return FanInProd(layer)
