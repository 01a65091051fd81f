"""The rule of a whole fully connected net under a method that expands its kernels at once."""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..features._hidden import HiddenFeatures, is_abstract
from ..methods._norms import input_radius
from ..series import input_series
from ._layer import Layer, naming
from ._rule import Rule, Transform
from ._sample import abstracted

#: Of the power series that layers are composed by, at least.
_LEAST_DEGREE, _MOST_DEGREE = 64, 200

#: Norms for each factor e between the least and the largest, and at least.
_NORMS_PER_E, _LEAST_NORMS = 8, 12

#: How far the norms of the grid go beyond those of the example inputs; and without examples.
_MARGIN, _DEFAULT_NORMS = 1.5, (1e-3, 1e2)


class WholeNetwork(Rule):
    """Both kernels of a model as power series of the cosine of its inputs, expanded at once.

    The series are computed at pairs of norms of a grid around those of the example inputs.
    """

    def __init__(self, layer: Layer):
        self.layer = layer

    def needs(self, offsets, shape, *, method):
        if len(shape) != 2:
            raise ValueError(
                f'{type(method).__name__} with scope="network" takes inputs (n, d) of fully'
                f' connected nets, got shape {tuple(shape)}. Use scope="layer".'
            )
        return offsets

    def looks_at_data(self, method: Any):
        return method.radii is None

    def fit(self, features, *, method: Any, offsets, key) -> Transform:
        least, largest = radii = method.radii or _norms_of(features)
        count = max(_LEAST_NORMS, math.ceil(_NORMS_PER_E * math.log(largest / least))) + 1
        degree = min(max(_LEAST_DEGREE, 2 * method.degree), _MOST_DEGREE)
        series = input_series(
            np.geomspace(least, largest, count),
            degree,
            ntk=features.ntk is not None,
            channels=features.channels,
        )
        series = naming(self.layer.rule.series, self.layer.name)(series)
        return WholeNetworkTransform(
            method.expand_series(series, radii, abstracted(features), key=key), series.channels
        )


class WholeNetworkTransform(eqx.Module):
    expansion: Any
    channels: int = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        nngp, ntk = self.expansion(features)
        ntk = None if ntk is None else (ntk,)
        return features.replace(nngp=(nngp,), ntk=ntk, channels=self.channels)


def _norms_of(features: HiddenFeatures) -> tuple[float, float]:
    """A range around the norms of the example inputs; without these a wide one."""
    if is_abstract(features):
        return _DEFAULT_NORMS
    with jax.ensure_compile_time_eval():  # numbers even while a map is made under jit
        norms = np.asarray(input_radius(features), np.float64)
    positive = norms[norms > 0]
    if len(positive) == 0:
        raise ValueError(
            'all example inputs are 0, so that the norms at which scope="network" tabulates the'
            " kernel are not known. Give other examples, or radii=(least, largest)."
        )
    return float(positive.min()) / _MARGIN, float(positive.max()) * _MARGIN
