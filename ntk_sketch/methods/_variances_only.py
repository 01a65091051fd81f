"""Methods without features: only the exact variances of a network are propagated."""

import math
from typing import Any

import equinox as eqx
from jax import numpy as jnp

from .._typing import PerKernel, PRNGKey
from ..activations import DualActivation
from ..features._hidden import HiddenFeatures
from ._method import Method


class VariancesOnly(Method):
    """One zero feature at every nonlinearity, so that only exact variances are computed.

    It overrides the methods that layers have of their own. Covariances of all pairs of positions
    are propagated wherever a later layer needs them.
    """

    everywhere = True
    max_positions_all_pairs = math.inf

    def expand(
        self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey
    ) -> "NoFeatures":
        del dual, features, key
        return NoFeatures()

    def expand_product(
        self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey
    ) -> "NoFeatures":
        del name, branches, key
        return NoFeatures()


class KernelsOnly(VariancesOnly):
    """`VariancesOnly` for a whole network: no layer may have a method of its own."""

    @property
    def whole_network(self) -> bool:
        return True


class NoFeatures(eqx.Module):
    def __call__(self, features: Any, exact: Any) -> PerKernel:
        """Zeros, for the features of a nonlinearity or the branches of a product."""
        del exact
        features = features[0] if isinstance(features, list) else features
        nothing = jnp.zeros((features.nngp[0].shape[0], *features.space, 1), features.dtype)
        return PerKernel(nothing, None if features.ntk is None else nothing)
