"""The evidence from statistics of one pass, in float64 on the host."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from . import _checks
from ._directions import Directions, DualDirections
from ._training import Training


class HostEvidence:
    """log N(y; 0, K + λI) of a kernel of training examples, for several λ.

    Attributes:
      directions: of the kernel.
      penalties: λ (m,), in the units of K.
    """

    directions: Directions
    penalties: Float[np.ndarray, " m"]

    def __init__(self, training: Training, get: str, diag_reg: Sequence[float], absolute: bool):
        _checks.check_available(get, get, training.kernels)
        width = training.stream((get,)).widths(training.x)[get]
        n = training.n_examples
        if min(diag_reg) == 0 and training.devices.processes is not None:
            raise ValueError(
                f"diag_reg={list(diag_reg)}: the evidence of examples of several processes is that"
                " of sums, for which every diag_reg must be > 0"
            )
        if min(diag_reg) == 0 and n > width:
            raise ValueError(
                f"diag_reg={list(diag_reg)}: {n} examples with {width} features have a singular"
                " kernel, under which targets have no density: every diag_reg must be > 0"
            )
        self._n, self._outputs = n, training.y.shape[1]
        self._squared_targets, self._diag_reg = training.squared_targets, diag_reg
        self.directions = training.statistics((get,)).directions(get)
        spectrum = self.directions.spectrum
        scale = 1.0 if absolute else spectrum.mean_square_norm
        self.penalties = np.array([value * scale for value in diag_reg])

    def values(self, stacklevel: int) -> Float[np.ndarray, " m"]:
        """One for each λ."""
        n, k = self._n, self._outputs
        constant = n * k * math.log(2 * math.pi)
        found = []
        for penalty, diag_reg in zip(self.penalties, self._diag_reg, strict=True):
            self._check_rank(penalty, diag_reg)
            quadratic = self._quadratic(penalty, diag_reg, stacklevel + 1)
            found.append(-0.5 * (k * self._log_determinant(penalty) + quadratic + constant))
        return np.array(found)

    def residual_norms(self) -> Float[np.ndarray, " m"]:
        """‖y - Zw‖² of the regression with each λ, in the primal form."""
        s, total = self.directions.spectrum.values, self._squared_targets
        inverse = 1 / (s + self.penalties[:, None])
        explained = (2 * inverse - s * inverse**2) @ np.sum(self.directions.targets**2, axis=1)
        return np.maximum(total - explained, 0.0)

    def _check_rank(self, penalty: float, diag_reg: float) -> None:
        spectrum = self.directions.spectrum
        if penalty == 0 and spectrum.rank(penalty) < spectrum.size:
            raise ValueError(
                f"diag_reg={diag_reg!r}: {spectrum.deficiency(penalty)}. Targets have no density"
                " under such a kernel: give diag_reg > 0"
            )

    def _log_determinant(self, penalty: float) -> float:
        spectrum = self.directions.spectrum
        found = float(np.sum(np.log(spectrum.values + penalty)))
        missing = self._n - spectrum.size
        return found + (missing * math.log(penalty) if missing else 0.0)

    def _quadratic(self, penalty: float, diag_reg: float, stacklevel: int) -> float:
        spectrum = self.directions.spectrum
        rates = spectrum.values + penalty
        explained = float(np.sum(self.directions.targets**2 / rates[:, None]))
        if isinstance(self.directions, DualDirections):
            return explained
        total = self._squared_targets
        return _rest(total, explained, spectrum.dtype, diag_reg, stacklevel + 1) / penalty


def _rest(
    total: float, explained: float, dtype: np.dtype, diag_reg: float, stacklevel: int
) -> float:
    """Their difference, of which a warning says where it is rounding."""
    rounding = float(np.finfo(np.float64).eps) * total
    rest = max(total - explained, rounding)
    resolved = float(np.finfo(dtype).eps) * total
    if rest < resolved:
        warnings.warn(
            f"at diag_reg={diag_reg:g} the features leave {rest / total:.2g} of the squared"
            f" targets, less than {dtype} resolves: the evidence is rounding there. Use a larger"
            " diag_reg, or float64 features",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )
    return rest
