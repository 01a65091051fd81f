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
      few: their features and targets, in place of a state.
    """

    def __init__(
        self,
        features: FeatureStream,
        spec: jax.ShapeDtypeStruct,
        one_output: bool,
        state: GramState | None = None,
        few: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.features, self.spec, self.one_output = features, spec, one_output
        self.state, self.few = state, few

    def plus(
        self,
        x: Inputs | Batches,
        y: Float[np.ndarray, "n k"] | None,
        order: Int[np.ndarray, " m"] | None = None,
        run: Run | None = None,
    ) -> Examples:
        """With `x[order]` and `y[order]`, or with batches of both. Batches, and what a checkpoint
        is made of, are always statistics.
        """
        if run is not None or self.state is not None or isinstance(x, Batches):
            return self._with(self._statistics(x, y, order, run))
        assert y is not None
        held = 0 if self.few is None else len(self.few[0])
        n, p = len(y) if order is None else len(order), self.spec.shape[1]
        if self.few is None and n > p:
            return self._with(self._statistics(x, y, order, None))
        z, y = self.features.all_of(x, order), y if order is None else y[order]
        if self.few is not None:
            z, y = np.concatenate([self.few[0], z]), np.concatenate([self.few[1], y])
        both = Examples(self.features, self.spec, self.one_output, None, (z, y))
        if held + n <= p:
            return both
        return Examples(self.features, self.spec, self.one_output, both._summed())

    def _statistics(self, x, y, order, run) -> GramState:
        return statistics(self.features, x, y, self.one_output, self.spec, order, run)

    def _summed(self) -> GramState | None:
        """The statistics so far, if there are examples."""
        if self.few is None:
            return self.state
        z, y = self.few
        rows = self.features.rows(len(z))
        parts = (Part(a, b, part, y[a:b]) for a, b, part in batches_of(z, rows))
        units = centred_units(y, promoted(self.spec.dtype, jnp.float32))
        options = (y.shape[1], rows, self.spec, self.one_output, units, len(z))
        return gram_of_stream(parts, *options)

    def _with(self, more: GramState) -> Examples:
        before = self._summed()
        state = more if before is None else before.merge(more)
        return Examples(self.features, self.spec, self.one_output, state)

    @property
    def n_examples(self) -> int:
        if self.state is not None:
            return int(self.state.n_examples)
        return 0 if self.few is None else len(self.few[0])

    def decomposition(self, fit_intercept: bool, whole: bool, path: int) -> Decomposition:
        """As `decomposed`; of few examples the eigendecomposition of ZZᵀ."""
        if self.state is not None:
            return decomposed(self.state, fit_intercept, whole, path)
        assert self.few is not None
        return DualSpectrum(*self.few, fit_intercept)


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
    """

    x: Any
    y: Float[np.ndarray, "n k"] | None
    one_output: bool
    spec: jax.ShapeDtypeStruct


def checked_arrays(features: FeatureStream, x: Any, y: Any) -> Data:
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
    return Data(x, y, one_output, spec)


def checked_batches(features: FeatureStream, x: Batches, run: Run | None) -> Data:
    """Reads the first one.

    Args:
      run: what is done already.
    """
    _checks.check_feature_map(features.feature_map)
    kind = x.opened(features.rows(None), None if run is None else run.done).kind
    return Data(x, None, kind.one_output, features.spec(x))
