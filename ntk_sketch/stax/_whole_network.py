"""The rule of a whole fully connected net, for methods with `scope="network"`."""

from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures, is_abstract
from ..features._paired_variances import PairedVariances, paired_variances
from ..methods import Method
from ..methods._variances_only import KernelsOnly
from ..series import KernelSeries
from ._layer import Layer, naming
from ._rule import Rule, Transform
from ._sample import abstracted
from ._shapes import finite_shape, output_shape


def rule_under(model: Layer, method: Method) -> Rule:
    """The rule of a model: its own, or `WholeNetwork` for methods with `scope="network"`."""
    return WholeNetwork(model) if method.whole_network else model.rule


class WholeNetwork(Rule):
    """A net as one nonlinearity of its inputs: `K' = k(c, q, q')`, `Θ' = θ(c, q, q')`.

    It implements `methods._network.Network`.
    """

    nonlinearities = 1

    def __init__(self, layer: Layer):
        self.layer = layer

    def needs(self, offsets, shape, *, method, **kwargs):
        if len(shape) != 2:
            raise ValueError(
                f'{type(method).__name__} with scope="network" takes inputs (n, d) of fully'
                f" connected nets, got shape {tuple(shape)}. With positions an exact kernel is one"
                " of all pairs of these, which features are there to avoid. Use"
                ' scope="layer".'
            )
        if kwargs:
            raise NotImplementedError(
                f'scope="network" takes no call-time arguments, got {", ".join(sorted(kwargs))}.'
                ' Use scope="layer".'
            )
        self.layer.rule.needs((), shape, method=KernelsOnly())  # for the checks of layers
        return () if method.uses_variances else None

    def looks_at_data(self, method):
        return method.looks_at_data

    def fit(self, features, *, method, offsets, key) -> Transform:
        unit = with_unit_ntk
        entering = (
            eqx.filter_eval_shape(unit, features) if is_abstract(features) else unit(features)
        )
        expansion = method.expand_network(self, entering, key=key)
        *_, channels = output_shape(self.layer, finite_shape(features))
        return WholeNetworkTransform(expansion, channels)

    def series(self, series: KernelSeries) -> KernelSeries:
        if self.layer.specification.is_traced:
            raise TypeError(
                "The series of a whole network is computed from numbers, and jax.grad, jit or vmap"
                ' traces one of the model. Use scope="layer", or Nystroem(scope="network").'
            )
        return naming(self.layer.rule.series, self.layer.name)(series)

    def kernels(self, features: HiddenFeatures) -> "NetworkKernels":
        transform = self.layer.rule.fit(
            abstracted(features), method=KernelsOnly(), offsets=(), key=jax.random.key(0)
        )
        return NetworkKernels(transform, features.channels)


def with_unit_ntk(features: HiddenFeatures) -> HiddenFeatures:
    """Inputs with Θ = 1, so that a nonlinearity that multiplies Θ by θ returns θ."""
    if features.ntk is None:
        return features
    return features.replace(ntk=(jnp.ones((*features.nngp[0].shape[:-1], 1), features.dtype),))


class WholeNetworkTransform(eqx.Module):
    expansion: Any
    channels: int = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        nngp, ntk = self.expansion(with_unit_ntk(features), None)
        ntk = None if ntk is None else (ntk,)
        return features.replace(nngp=(nngp,), ntk=ntk, variances=None, channels=self.channels)


class NetworkKernels(DualKernels):
    """Both kernels of a net as functions of covariances and variances of its inputs.

    They are computed by the rules' recursion for exact variances.

    Args:
        transform: that of the net, without features.
        channels: of its inputs.
    """

    transform: Transform
    channels: int = eqx.field(static=True)

    sees_zero = True

    @property
    def name(self) -> str:
        return "the whole network"

    def __call__(self, c: Array, q: Array, q_other: Array) -> tuple[Array, Array]:
        variances: Any = paired_variances(c, q, q_other)
        nothing = jnp.zeros((*variances.same.shape, 1), c.dtype)
        features = HiddenFeatures((nothing,), (), variances, self.channels)
        variances = self.transform(features).variances
        if not isinstance(variances, PairedVariances):
            raise NotImplementedError(
                "a layer's rule makes new variances of those that it is given. For"
                ' scope="network" let it use their own methods, such as `linear`; or use'
                ' scope="layer".'
            )
        return variances.kernels()
