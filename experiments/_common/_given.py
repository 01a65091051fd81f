"""Features that are there already, as what `ridge` takes."""

from typing import Any, NamedTuple

import numpy as np


class Given(NamedTuple):
    """One array as the features of both kernels."""

    nngp: Any
    ntk: Any


class GivenFeatures(NamedTuple):
    """The map z → z, which may say which training examples are landmarks."""

    landmarks: np.ndarray

    def __call__(self, z):
        return Given(z, z)

    def is_landmark(self, z):
        return self.landmarks
