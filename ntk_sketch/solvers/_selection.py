"""Which regulariser: scores that estimate the mean squared error on new examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ..streaming._feature_stream import FeatureStream
from ._decomposition import Decomposition

#: Selectors that take any decomposition say so by an attribute of this name.
_ANY = "takes_any_decomposition"


@runtime_checkable
class Selector(Protocol):
    """One number for each λ, smaller is better: a mean over examples and outputs in the units of
    Y², or of the loss that was asked for, so that scores of different selectors can be compared.
    """

    def scores(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]: ...


def needs_spectrum(selector: Selector | None, diag_regs: Sequence[float]) -> bool:
    """Whether only an eigendecomposition will do: for a selector that does not say otherwise, and
    where a regulariser is 0."""
    return min(diag_regs) == 0 or not (selector is None or getattr(selector, _ANY, False))
