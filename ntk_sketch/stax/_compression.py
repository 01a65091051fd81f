"""Fewer features in place of patches that are too long to be formed."""

from typing import Any

import equinox as eqx

from .._typing import PRNGKey
from ..features._hidden import HiddenFeatures
from ..methods import Method


class CompressionTransform(eqx.Module):
    """Patches of a pending convolution, projected: in one branch, or in some of a list of them.

    Exact variances stay as they are.
    """

    expansions: tuple[Any, ...]  # one for each branch, `None` where patches are formed

    def __call__(self, features: Any, **kwargs) -> Any:
        if not isinstance(features, list):
            return self._one(self.expansions[0], features)
        return [self._one(*both) for both in zip(self.expansions, features, strict=True)]

    def _one(self, expansion: Any, features: HiddenFeatures) -> HiddenFeatures:
        if expansion is None:
            return features
        nngp, ntk = expansion([features], features.variances)
        return features.replace(nngp=(nngp,), ntk=None if ntk is None else (ntk,), pending=None)


def compresses(method: Method, features: Any) -> bool:
    """Whether the method compresses any of the branches."""
    return any(map(method.compresses, _branches(features)))


def compression(name: str, method: Method, features: Any, key: PRNGKey) -> CompressionTransform:
    """Drawn for features like these, before the layer of this name."""
    method.check_examples(name, features)
    branches = _branches(features)
    return CompressionTransform(
        tuple(
            method.compress(name, branch, key=key) if method.compresses(branch) else None
            for branch in branches
        )
    )


def _branches(features: Any) -> list[HiddenFeatures]:
    return features if isinstance(features, list) else [features]
