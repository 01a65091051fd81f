"""Projections of patches that are too long for the next layer on fewer features."""

from typing import Any

import equinox as eqx

from .._typing import PRNGKey
from ..features._hidden import HiddenFeatures
from ..features._windows import union
from ..methods import Method


class Compression(eqx.Module):
    """Projects the patches of one branch. Exact variances do not change.

    Attributes:
        expansion: the method's projection, which takes a list of one branch.
        nngp, ntk: whether φ, and ψ, is projected; otherwise it is formed.
    """

    expansion: Any
    nngp: bool = eqx.field(static=True)
    ntk: bool = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures) -> HiddenFeatures:
        formed = features.applied()
        nngp, ntk = self.expansion([features], features.variances)
        return formed.replace(
            nngp=(nngp,) if self.nngp else formed.nngp,
            ntk=(ntk,) if self.ntk else formed.ntk,
            patched=False,
        )


class CompressionTransform(eqx.Module):
    """The compression of one branch, or of each branch in a list; `None` changes nothing."""

    branches: tuple[Compression | None, ...]

    def __call__(self, features: Any, **kwargs) -> Any:
        if not isinstance(features, list):
            return self._one(self.branches[0], features)
        return [self._one(*both) for both in zip(self.branches, features, strict=True)]

    def _one(self, compression: Compression | None, features: HiddenFeatures) -> HiddenFeatures:
        return features if compression is None else compression(features)


def compresses(method: Method, features: Any) -> bool:
    """Whether the method compresses any of the branches."""
    return any(any(method.compresses(branch)) for branch in _branches(features))


def compression(
    name: str, method: Method, features: Any, keys: tuple[PRNGKey, ...]
) -> CompressionTransform:
    """Fits the compression of `features` before layer `name`, with one key for each branch."""
    method.check_examples(name, features)

    def one(branch: HiddenFeatures, key: PRNGKey) -> Compression | None:
        of_nngp, of_ntk = method.compresses(branch)
        if not (of_nngp or of_ntk):
            return None
        return Compression(method.compress(name, branch, key=key), of_nngp, of_ntk)

    return CompressionTransform(tuple(map(one, _branches(features), keys)))


def wanted_before(method: Method, offsets: Any, shape: Any) -> Any:
    """The offsets at which variances are needed before a layer.

    `offsets` are those that the layer needs. Compression also needs the variance of each position.
    """
    if method.compressed_width is None or not method.uses_variances:
        return offsets
    if isinstance(offsets, list):
        return [wanted_before(method, *both) for both in zip(offsets, shape, strict=True)]
    return offsets if len(shape) < 3 else union(offsets, ((0,),) * (len(shape) - 2))


def _branches(features: Any) -> list[HiddenFeatures]:
    return features if isinstance(features, list) else [features]
