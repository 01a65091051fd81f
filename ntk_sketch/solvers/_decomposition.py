"""What a regression and its selection need of the decomposed statistics.

Notation: Z (n, p) features, Y (n, k) targets, λ >= 0. Every decomposition gives the minimiser of
‖Z W - Y‖² + λ ‖W‖², at λ = 0 the one of least norm; or, with an intercept, the W and b that
minimise ‖Z W + 1 bᵀ - Y‖² + λ ‖W‖², which are those of centred features and targets.

With weights D = diag(w) of the examples all of this is that of √D Z, √D Y and √D 1: "centred" is by
weighted means, H is the hat matrix of √D Y, and residuals are √D (Y - Z W).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from ..streaming._stream import Batch
from ._conjugate_gradient import Report
from ._targets import Units

Roots = Float[np.ndarray, " b"] | None
"""√w of some examples; None: all 1."""

Rows = Callable[..., Iterator[Batch]]
"""`features(order)`: the features of the examples `order`, in batches."""


def scaled(a: Float[np.ndarray, "b ..."], roots: Roots) -> Float[np.ndarray, "b ..."]:
    """Rows times the root of their weight."""
    return a if roots is None else a * roots.reshape(-1, *[1] * (a.ndim - 1))


class Decomposition(abc.ABC):
    """For every λ: weights, and residuals of examples that are left out.

    A left-out residual comes from rows R of the examples: `example_rows` makes them, once for all
    λ, and `left_out` takes them.

    Attributes:
      n_examples: n, of weight > 0.
      total_weight: Σ w; n without weights.
      weighted: examples have weights.
      mean_square_norm: trace(DZZᵀ) / Σ w, the unit of a relative regulariser; not centred.
      dtype: of the features.
      size: directions, p or n.
      units: of targets inside; their shift is the mean of Y with an intercept, else 0.
      feature_mean: what features lose: their mean with an intercept, else 0.
      fit_intercept: whether there is an intercept.
      mean_to_spread: √(Σ mean² / Σ variance) of the targets over the outputs.
      base: 1, or 0 where `residual_sums` and `left_out` have a factor in common (dual form).
      leverage_tolerance: rounding error of a `1 - leverage`, relative to `base` or the largest.
    """

    n_examples: int
    total_weight: float
    weighted: bool
    mean_square_norm: float
    dtype: np.dtype
    size: int
    units: Units
    feature_mean: Float[np.ndarray, " p"]
    fit_intercept: bool
    mean_to_spread: float
    base: float
    leverage_tolerance: float

    def intercept(self, weights: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " k"]:
        """b of the W(λ) given."""
        return self.units.shift - self.feature_mean @ weights

    @abc.abstractmethod
    def rank(self, penalty: float) -> int:
        """Number of directions that are not dropped as rounding error."""

    @abc.abstractmethod
    def condition(self, penalty: float) -> float:
        """(largest s + λ) / (smallest kept s + λ); infinite if all are dropped."""

    @abc.abstractmethod
    def deficiency(self, penalty: float) -> str:
        """What is dropped and why, in a sentence; empty if nothing is."""

    def stands_out(self, penalty: float) -> bool:
        """Whether λ is more than the rounding of what is decomposed; True where all λ cost alike
        and directions are dropped one by one.
        """
        return True

    def report(self, penalty: float) -> Report | None:
        """Of an iterative solution, once there are weights; None: it is a direct one."""
        return None

    @abc.abstractmethod
    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        """W(λ)."""

    @abc.abstractmethod
    def residuals(
        self, penalties: Sequence[float], weights: Sequence[Float[np.ndarray, "p k"]]
    ) -> list[float]:
        """`‖(ZᵀZ + λI) W - ZᵀY‖ / ‖ZᵀY‖` of each λ and its W(λ), centred with an intercept."""

    @abc.abstractmethod
    def residual_sums(self, penalty: float) -> tuple[float, float, float]:
        """`‖(I - H) T‖²` over all outputs, how much of it is rounding at most, and `trace(I - H)`;
        H is the hat matrix of λ."""

    @abc.abstractmethod
    def example_rows(
        self, features: Rows, order: Int[np.ndarray, " n"], roots: Roots = None
    ) -> Iterator[tuple[int, int, Float[np.ndarray, "b r"]]]:
        """Yields `(start, stop, R)` for the examples `order[start:stop]`.

        Args:
          roots: of their weights, in this order.
        """

    @abc.abstractmethod
    def left_out(
        self,
        rows: Float[np.ndarray, "b r"],
        y: Float[np.ndarray, "b k"],
        penalty: float,
        roots: Roots = None,
    ) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, " b"]]:
        """Residuals `(I - H) T` of examples and their `(I - H)ᵢᵢ`."""


def residuals_of(
    products: Float[np.ndarray, "p mk"],
    w: Float[np.ndarray, "p mk"],
    penalties: Sequence[float],
    right_side: Float[np.ndarray, "p k"],
) -> list[float]:
    """`‖products + λ w‖ / ‖right_side‖` of each λ, whose k columns are side by side; 0 of zeros."""
    k, found = right_side.shape[1], []
    for i, penalty in enumerate(penalties):
        own = slice(i * k, (i + 1) * k)
        size = float(np.linalg.norm(products[:, own] + penalty * w[:, own]))
        found.append(size / float(np.linalg.norm(right_side)) if size else 0.0)
    return found
