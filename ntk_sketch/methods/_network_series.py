"""The kernels of a whole fully connected net as power series, at the norms of its inputs."""

import math

import jax
import numpy as np

from ..features._hidden import HiddenFeatures, is_abstract
from ..series import KernelSeries, input_series
from ._network import Network
from ._norms import input_radius

#: Of the power series that layers are composed by, at least.
_LEAST_DEGREE, _MOST_DEGREE = 64, 200

#: Norms for each factor e between the least and the largest, and at least.
_NORMS_PER_E, _LEAST_NORMS = 8, 12

#: How far the norms of the grid go beyond those of the example inputs; and without examples.
_MARGIN, _DEFAULT_NORMS = 1.5, (1e-3, 1e2)


def network_series(
    network: Network, features: HiddenFeatures, radii: tuple[float, float] | None, degree: int
) -> tuple[KernelSeries, tuple[float, float]]:
    """The series at pairs of norms of a uniform grid of log r, and its ends.

    Args:
        radii: these ends. `None`: those of the example inputs and a margin.
        degree: that is asked for; layers are composed by series of more powers.
    """
    least, largest = radii = radii or _norms_of(features)
    count = max(_LEAST_NORMS, math.ceil(_NORMS_PER_E * math.log(largest / least))) + 1
    degree = min(max(_LEAST_DEGREE, 2 * degree), _MOST_DEGREE)
    series = input_series(
        np.geomspace(least, largest, count),
        degree,
        ntk=features.ntk is not None,
        channels=features.channels,
    )
    return network.series(series), radii


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
