"""Which regulariser: scores that estimate the mean squared error on new examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ..streaming._feature_stream import FeatureStream
from ._spectrum import Spectrum


@runtime_checkable
class Selector(Protocol):
    """One number for each λ, smaller is better, in the units of Y² and averaged over examples and
    outputs, so that scores of different selectors can be compared.
    """

    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]: ...
