"""The kernels of a whole fully connected net as power series, at the norms of its inputs."""

import math

import jax
import numpy as np

from ..features._hidden import HiddenFeatures, is_abstract
from ..series import KernelSeries, input_series
from ._network import Network
from ._norms import input_radius

#: Smallest and largest degree of the power series in which layers are composed.
_LEAST_DEGREE, _MOST_DEGREE = 64, 200

#: Norms of the grid for each factor of e between its ends, and the smallest number of all.
_NORMS_PER_E, _LEAST_NORMS = 8, 12

#: The grid extends the norms of the example inputs by this factor; without examples, its ends.
_MARGIN, _DEFAULT_NORMS = 1.5, (1e-3, 1e2)


def network_series(
    network: Network, features: HiddenFeatures, radii: tuple[float, float] | None, degree: int
) -> tuple[KernelSeries, tuple[float, float]]:
    """The network's series at pairs of norms of a uniform grid in log r, and the grid's ends.

    Args:
        radii: the ends. `None`: the norms of the example inputs with a margin.
        degree: the degree asked for; layers are composed in series of higher degree.
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
    """A range around the norms of the example inputs, or a wide one if only shapes are given."""
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
