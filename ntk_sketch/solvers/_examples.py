"""What a regression needs of its examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_examples
from ..numerics._precision import promoted
from ..streaming._batch_checks import Kind
from ..streaming._batches import Batches, NoExampleError, is_batches
from ..streaming._computed import Part
from ..streaming._feature_map import check_feature_map
from ..streaming._feature_stream import FeatureStream, batches_of
from ..streaming._sample_weights import checked_weights
from ..streaming._stream import Inputs
from ..streaming._targets import checked_targets
from . import _checks
from ._decomposition import Decomposition
from ._dual_equations import DualEquations
from ._dual_factors import DualFactors
from ._dual_spectrum import DualSpectrum
from ._gram_state import GramState
from ._normal_equations import NormalEquations
from ._primal_factors import PrimalFactors
from ._primal_spectrum import PrimalSpectrum
from ._run import Run
from ._sums import gram_of_stream, statistics
from ._targets import centred_units

# Features, or examples, from which one factor for each regulariser costs less than all eigenvalues.
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
        one_output: bool,
        state: GramState | None = None,
        few: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None,
    ):
        self.features, self.one_output = features, one_output
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
        checkpoint is made of or several processes have, are always statistics.
        """
        if self.features.devices.processes is not None:
            return self._with(self._statistics(x, y, order, run, sample_weight))
        if run is not None or self.state is not None or isinstance(x, Batches):
            return self._with(self._statistics(x, y, order, run, sample_weight))
        assert y is not None
        held = 0 if self.few is None else len(self.few[0])
        n, p = len(y) if order is None else len(order), self.features.spec(x).shape[1]
        if self.few is None and n > p:
            return self._with(self._statistics(x, y, order, None, sample_weight))
        z, w = self.features.all_of(x, order), sample_weight
        if order is not None:
            y, w = y[order], None if w is None else w[order]
        if self.few is not None:
            z, y = np.concatenate([self.few[0], z]), np.concatenate([self.few[1], y])
            w = None if w is None or self.few[2] is None else np.concatenate([self.few[2], w])
        both = Examples(self.features, self.one_output, None, (z, y, w))
        if held + n <= p:
            return both
        return Examples(self.features, self.one_output, both._summed())

    def _statistics(self, x, y, order, run, sample_weight) -> GramState:
        return statistics(self.features, x, y, self.one_output, order, run, sample_weight)

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
        units = centred_units(y, promoted(z.dtype, jnp.float32))
        spec = jax.ShapeDtypeStruct(z.shape, z.dtype)
        options = (y.shape[1], rows, spec, self.one_output, units, len(z))
        how = {"weighted": w is not None, "devices": self.features.devices}
        return gram_of_stream(parts, *options, **how)

    def _with(self, more: GramState) -> Examples:
        before = self._summed()
        state = more if before is None else before.merge(more)
        return Examples(self.features, self.one_output, state)

    @property
    def n_examples(self) -> int:
        if self.state is not None:
            return int(self.state.n_examples)
        if self.few is None:
            return 0
        z, _, w = self.few
        return len(z) if w is None else int(np.sum(w > 0))

    def decomposition(self, fit_intercept: bool, whole: bool, path: int) -> Decomposition:
        """As `decomposed`; of few examples that of ZZᵀ."""
        if self.state is not None:
            return decomposed(self.state, fit_intercept, whole, path)
        assert self.few is not None
        z, y, w = self.few
        equations = DualEquations.of(z, y, fit_intercept, w)
        if _by_factors(equations.kernel, whole, path):
            return DualFactors(equations)
        return DualSpectrum(equations)


def decomposed(state: GramState, fit_intercept: bool, whole: bool, path: int) -> Decomposition:
    """Of a primal regression: by what costs less for a path of so many regularisers.

    Args:
      whole: the eigendecomposition is needed anyway, for leave-one-out or λ = 0.
    """
    equations = NormalEquations.of(state, fit_intercept)
    if _by_factors(equations.gram, whole, path):
        return PrimalFactors(equations)
    return PrimalSpectrum(equations)


def _by_factors(matrix: Inputs, whole: bool, path: int) -> bool:
    return not whole and len(matrix) >= (FACTORED_PATH if path > 1 else FACTORED_ONE)


class Data(NamedTuple):
    """Arrays or batches that were checked.

    Attributes:
      y: targets as (n, k); None: batches hold them.
      one_output: whether these were (n,).
      kind: of the examples; None: batches that hold none.
      sample_weight: (n,), or None: there are none, or batches hold them.
    """

    x: Any
    y: Float[np.ndarray, "n k"] | None
    kind: Kind | None
    sample_weight: Float[np.ndarray, " n"] | None = None

    @property
    def one_output(self) -> bool:
        """Whether targets were given as (n,)."""
        assert self.kind is not None
        return self.kind.one_output


def checked_arrays(features: FeatureStream, x: Any, y: Any, sample_weight: Any = None) -> Data:
    check_feature_map(features.feature_map)
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
    outputs = y.shape[1], one_output, weights is not None
    return Data(x, y, Kind(tuple(x.shape[1:]), np.dtype(x.dtype), *outputs), weights)


def checked_batches(
    features: FeatureStream, x: Batches, run: Run | None, sample_weight: Any = None
) -> Data:
    """Reads the first one.

    Args:
      run: what is done already.
    """
    check_feature_map(features.feature_map)
    if sample_weight is not None:
        raise ValueError(
            "sample_weight is of arrays x and y: give batches (x, y, sample_weight) in place of it"
        )
    try:
        kind = features.kind(x, None if run is None else run.done)
        features.spec(x)
    except NoExampleError:
        if features.devices.processes is None:
            raise
        kind = None
    return Data(x, None, kind)
