"""What a regression needs of its examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_examples
from ..numerics._precision import promoted
from ..streaming._batches import Batches, is_batches
from ..streaming._computed import Part
from ..streaming._feature_stream import FeatureStream, batches_of
from ..streaming._sample_weights import checked_weights
from ..streaming._stream import Inputs
from ..streaming._targets import checked_targets
from . import _checks
from ._cholesky import CholeskyFactors
from ._decomposition import Decomposition
from ._dual_spectrum import DualSpectrum
from ._gram_state import GramState
from ._normal_equations import NormalEquations
from ._primal_spectrum import PrimalSpectrum
from ._run import Run
from ._sums import gram_of_stream, statistics
from ._targets import centred_units

# Features from which one factor for each regulariser costs less than all eigenvalues.
FACTORED_ONE, FACTORED_PATH = 1024, 4097


class Examples:
    """What a regression needs of its examples: the statistics or, of few examples, all features.

    `plus` adds examples.

    Args:
      state: statistics of the examples so far.
      few: their features, targets and weights, in place of a state.
    """

    def __init__(
        self,
        features: FeatureStream,
        spec: jax.ShapeDtypeStruct,
        one_output: bool,
        state: GramState | None = None,
        few: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None,
    ):
        self.features, self.spec, self.one_output = features, spec, one_output
        self.state, self.few = state, few

    def plus(
        self,
        x: Inputs | Batches,
        y: Float[np.ndarray, "n k"] | None,
        order: Int[np.ndarray, " m"] | None = None,
        run: Run | None = None,
        sample_weight: Float[np.ndarray, " n"] | None = None,
    ) -> Examples:
        """With `x[order]`, `y[order]` and their weights, or with batches. Batches, and what a
        checkpoint is made of, are always statistics.
        """
        if run is not None or self.state is not None or isinstance(x, Batches):
            return self._with(self._statistics(x, y, order, run, sample_weight))
        assert y is not None
        held = 0 if self.few is None else len(self.few[0])
        n, p = len(y) if order is None else len(order), self.spec.shape[1]
        if self.few is None and n > p:
            return self._with(self._statistics(x, y, order, None, sample_weight))
        z, w = self.features.all_of(x, order), sample_weight
        if order is not None:
            y, w = y[order], None if w is None else w[order]
        if self.few is not None:
            z, y = np.concatenate([self.few[0], z]), np.concatenate([self.few[1], y])
            w = None if w is None or self.few[2] is None else np.concatenate([self.few[2], w])
        both = Examples(self.features, self.spec, self.one_output, None, (z, y, w))
        if held + n <= p:
            return both
        return Examples(self.features, self.spec, self.one_output, both._summed())

    def _statistics(self, x, y, order, run, sample_weight) -> GramState:
        settings = self.one_output, self.spec, order, run, sample_weight
        return statistics(self.features, x, y, *settings)

    def _summed(self) -> GramState | None:
        """The statistics so far, if there are examples."""
        if self.few is None:
            return self.state
        z, y, w = self.few
        rows = self.features.rows(len(z))
        parts = (
            Part(a, b, part, y[a:b], None if w is None else w[a:b])
            for a, b, part in batches_of(z, rows)
        )
        units = centred_units(y, promoted(self.spec.dtype, jnp.float32))
        options = (y.shape[1], rows, self.spec, self.one_output, units, len(z))
        return gram_of_stream(parts, *options, weighted=w is not None)

    def _with(self, more: GramState) -> Examples:
        before = self._summed()
        state = more if before is None else before.merge(more)
        return Examples(self.features, self.spec, self.one_output, state)

    @property
    def n_examples(self) -> int:
        if self.state is not None:
            return int(self.state.n_examples)
        if self.few is None:
            return 0
        z, _, w = self.few
        return len(z) if w is None else int(np.sum(w > 0))

    def decomposition(self, fit_intercept: bool, whole: bool, path: int) -> Decomposition:
        """As `decomposed`; of few examples the eigendecomposition of ZZᵀ."""
        if self.state is not None:
            return decomposed(self.state, fit_intercept, whole, path)
        assert self.few is not None
        z, y, w = self.few
        return DualSpectrum(z, y, fit_intercept, w)


def decomposed(state: GramState, fit_intercept: bool, whole: bool, path: int) -> Decomposition:
    """Of a primal regression: by what costs less for a path of so many regularisers.

    Args:
      whole: the eigendecomposition is needed anyway, for leave-one-out or λ = 0.
    """
    equations = NormalEquations.of(state, fit_intercept)
    fewest = FACTORED_PATH if path > 1 else FACTORED_ONE
    if whole or len(equations.gram) < fewest:
        return PrimalSpectrum(equations)
    return CholeskyFactors(equations)


class Data(NamedTuple):
    """Arrays or batches that were checked.

    Attributes:
      y: targets as (n, k); None: batches hold them.
      one_output: whether these were (n,).
      spec: shape and dtype of a batch of features.
      sample_weight: (n,), or None: there are none, or batches hold them.
    """

    x: Any
    y: Float[np.ndarray, "n k"] | None
    one_output: bool
    spec: jax.ShapeDtypeStruct
    sample_weight: Float[np.ndarray, " n"] | None = None


def checked_arrays(features: FeatureStream, x: Any, y: Any, sample_weight: Any = None) -> Data:
    _checks.check_feature_map(features.feature_map)
    if is_batches(x):
        raise TypeError(
            f"x is a {type(x).__name__} of batches, which hold the targets too, as pairs (x, y):"
            f" leave y out; got y of type {type(y).__name__}"
        )
    x = checked_examples(x)
    y, one_output = checked_targets(y, len(x))
    spec = features.spec(x)
    _checks.check_range(max(abs(float(y.min())), abs(float(y.max()))), spec.dtype)
    weights = None if sample_weight is None else checked_weights(sample_weight, len(x))
    return Data(x, y, one_output, spec, weights)


def checked_batches(
    features: FeatureStream, x: Batches, run: Run | None, sample_weight: Any = None
) -> Data:
    """Reads the first one.

    Args:
      run: what is done already.
    """
    _checks.check_feature_map(features.feature_map)
    if sample_weight is not None:
        raise ValueError(
            "sample_weight is of arrays x and y: give batches (x, y, sample_weight) in place of it"
        )
    kind = x.opened(features.rows(None), None if run is None else run.done).kind
    return Data(x, None, kind.one_output, features.spec(x))
