"""Generalised cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .._arguments import checked_examples
from ..streaming._feature_stream import FeatureStream
from ..streaming._stream import Inputs
from ._checks import checked_targets
from ._left_out import LeftOut, counted
from ._spectrum import Spectrum


class GCV:
    """Generalised cross-validation, from the statistics alone.

    (1/n) ‖Y - ZW‖² / ((1/n) trace(I - H))² per output, H(λ) = Z (ZᵀZ + λI)⁻¹ Zᵀ (with the constant
    if there is an intercept). Infinite where H interpolates all examples by degrees of freedom
    alone.

    Both sums run over the examples that are not landmarks of the map, and n counts these, if the
    landmarks are given: see `LeaveOneOut`.

    In the primal form ‖Y - ZW‖² is a difference of sums, resolved to eps ‖Y‖²; scores below that
    are not told apart. Choose leave-one-out where the fit is that close.

    Args:
      x, y: examples of the statistics; those that are landmarks of the map are left out of the
        score, at the cost of one pass over their features. None: no example is left out. `ridge`
        gives its own.

    Source: G. H. Golub, M. Heath, G. Wahba, Technometrics 21 (1979), 215-223, eq. 1.4.

    Example:
      >>> import numpy as np
      >>> from ntk_sketch.solvers import GCV
      >>> import jax
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> y, path = np.sin(x), [1e-3, 1e-2, 0.1]
      >>> len(ns.ridge(features, x, y, diag_reg=path, select=GCV()).scores)
      3
    """

    def __init__(self, x: Inputs | None = None, y: Inputs | None = None):
        if (x is None) != (y is None):
            raise ValueError("GCV takes both x and y, or neither")
        self.x = None if x is None else checked_examples(x)
        self.y = None if self.x is None else checked_targets(y, len(self.x))[0]

    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        sums = np.array([spectrum.residual_sums(penalty) for penalty in penalties])
        residual, rounding, freedom = sums.T
        n, k = spectrum.n_examples, len(spectrum.units.shift)
        if self.x is not None and self.y is not None:
            x, landmarks = self.x, np.flatnonzero(~counted(features, self.x, n))
            system = LeftOut(spectrum, penalties)
            rows_of = spectrum.example_rows(lambda order: features(x, order), landmarks)
            for start, stop, rows in rows_of:
                residuals, complements = system.of(rows, self.y[landmarks[start:stop]])
                residual = residual - np.sum(residuals**2, axis=(0, 2))
                freedom = freedom - complements.sum(axis=0)
            n -= len(landmarks)
        residual = np.maximum(residual, rounding)
        least = spectrum.leverage_tolerance * (n if spectrum.base else sums[:, 2])
        with np.errstate(divide="ignore", invalid="ignore"):
            score = n * residual / freedom**2 / k * spectrum.units.scale**2
        return np.where(freedom <= least, np.inf, score)
