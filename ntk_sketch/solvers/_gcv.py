"""Generalised cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_examples
from ..streaming._feature_stream import FeatureStream
from ..streaming._sample_weights import checked_weights
from ..streaming._stream import Inputs
from ..streaming._targets import checked_targets
from ._decomposition import Decomposition, Roots
from ._left_out import check_weighting, counted


class GCV:
    """Generalised cross-validation, computed from the statistics.

    Use this first to choose a regulariser: it needs no second pass over the examples. For one λ and
    each output the score is

        (1/n) ‖Y - ZW‖² / ((1/n) trace(I - H))²,   H(λ) = Z (ZᵀZ + λI)⁻¹ Zᵀ,

    with the constant in Z if there is an intercept. It is infinite if H has as many degrees of
    freedom as there are examples.

    With weights it is (1/Σw) Σ wᵢ ‖yᵢ - zᵢW‖² / ((1/n) trace(I - H))² with the H of √D Z. This is
    the weighted mean error when an example is left out with its whole weight, with leverages
    replaced by their mean. It is the same for c w and c λ.

    If the landmarks are given, both sums and n are over the examples that are not landmarks of the
    map: see `LeaveOneOut`.

    In the primal form ‖Y - ZW‖² is a difference of sums with an error of eps ‖Y‖². Scores below
    that cannot be compared: use leave-one-out if the fit is that close.

    Args:
      x, y, sample_weight: the examples of the statistics. Those that are landmarks of the map are
        left out of the score, at the cost of one pass over their features. None: leave out none.
        `ridge` gives its own examples; for batches it collects the landmarks during the first pass.

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

    takes_any_decomposition = True

    def __init__(
        self,
        x: Inputs | None = None,
        y: Inputs | None = None,
        sample_weight: Inputs | None = None,
    ):
        if (x is None) != (y is None):
            raise ValueError("GCV takes both x and y, or neither")
        self.x = None if x is None else checked_examples(x)
        self.y = None if self.x is None else checked_targets(y, len(self.x))[0]
        self.sample_weight = None
        if sample_weight is not None and self.x is not None:
            self.sample_weight = checked_weights(sample_weight, len(self.x))

    def scores(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        check_weighting(self, decomposition.weighted)
        n, units = decomposition.n_examples, decomposition.units
        total, left, weights = decomposition.total_weight, np.zeros(0, int), self.sample_weight
        if self.x is not None:
            left = ~counted(features, self.x, n, sample_weight=weights)
            left = np.flatnonzero(left if weights is None else left & (weights > 0))
        roots = None if weights is None else np.sqrt(weights[left])
        rows, targets = self._rows(decomposition, features, left, roots)
        n -= len(targets)
        total -= len(targets) if weights is None else float(np.sum(weights[left]))
        sums = []
        for penalty in penalties:  # all of one before the next: see `Factors`
            residuals, complements = np.zeros(0), np.zeros(0)
            if len(targets):
                residuals, complements = decomposition.left_out(rows, targets, penalty, roots)
            residual, rounding, freedom = decomposition.residual_sums(penalty)
            least = decomposition.leverage_tolerance * (n if decomposition.base else freedom)
            residual, freedom = residual - np.sum(residuals**2), freedom - complements.sum()
            sums.append((max(residual, rounding), freedom, least))
        residual, freedom, least = np.array(sums).T
        with np.errstate(divide="ignore", invalid="ignore"):
            score = n * residual / freedom**2 / len(units.shift) * units.scale**2
            score *= n / total  # 1 without weights
        return np.where(freedom <= least, np.inf, score)

    def _rows(
        self,
        decomposition: Decomposition,
        features: FeatureStream,
        left: Int[np.ndarray, " b"],
        roots: Roots,
    ) -> tuple[Float[np.ndarray, "b r"], Float[np.ndarray, "b k"]]:
        """Those of the examples that do not count, and their targets."""
        if self.x is None or self.y is None or not len(left):
            return np.zeros((0, 0)), np.zeros((0, 0))
        x = self.x
        parts = decomposition.example_rows(lambda order: features(x, order), left, roots)
        return np.concatenate([rows for _, _, rows in parts]), self.y[left]


def of_all_processes(selector: Any, features: FeatureStream) -> Any:
    """GCV that leaves out the landmarks of all processes; other selectors stay."""
    devices = features.devices
    if devices.processes is None or not isinstance(selector, GCV):
        return selector
    with devices.together():
        here = None if selector.x is None else features.landmarks(selector.x)
    every = GCV()
    for name in ("x", "y", "sample_weight"):
        own = getattr(selector, name)
        own = None if here is None or own is None else np.asarray(own)[here]
        found = devices.processes.gathered_arrays(own)
        setattr(every, name, np.concatenate(found) if sum(map(len, found)) else None)
    return every


class LandmarksOfBatches(GCV):
    """GCV of batches, which keeps the landmarks among them as they go by in the one pass.

    Memory: as many inputs as there are landmarks.
    """

    def __init__(self, features: FeatureStream):
        super().__init__()
        self._features = features

    def add(self, x: np.ndarray, y: np.ndarray | None, sample_weight: np.ndarray | None) -> None:
        """Looks at one batch."""
        here = self._features.landmarks(x)
        if y is None or not here.any():
            return
        x, y = x[here], y[here]
        self.x = x if self.x is None else np.concatenate([self.x, x])
        self.y = y if self.y is None else np.concatenate([self.y, y])
        if sample_weight is not None:
            before = np.zeros(0) if self.sample_weight is None else self.sample_weight
            self.sample_weight = np.concatenate([before, sample_weight[here]])
