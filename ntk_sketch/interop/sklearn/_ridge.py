"""The base class of regressor and classifier: ridge regression on features of rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ..._arguments import checked_choice, checked_integer
from ...maps import FeatureMap
from ...solvers import GCV, GramState, LeaveOneOut, RidgeSolution, accumulate, solve
from ...solvers._checks import checked_diag_reg
from ...streaming import stream
from ._estimator import NetworkEstimator, digits, on_host
from ._learning import RELEVANCES, Rescaled, relevance_root
from ._posterior import Posterior, Sample
from ._recent import Recent
from ._rows import Rows, digest_of

#: Candidates for `alpha`.
_PATH = tuple(float(a) for a in np.logspace(-7, 0, 15))

_GRADIENTS = 2048  # largest number of rows whose gradients are averaged for feature learning
_SAMPLE = 512  # largest number of rows from which the scale of predictive variances is estimated
_FEWEST = 32  # least number of rows that are not landmarks, from which an error is estimated

recent = Recent()


class Made(NamedTuple):
    feature_map: FeatureMap
    state: GramState


class RidgeEstimator(NetworkEstimator):
    """Base class of both estimators; `NTKRegressor` documents its parameters and attributes."""

    def __init__(
        self,
        n_components: int | None = None,
        *,
        alpha: Any = "gcv",
        fit_intercept: bool = True,
        feature_learning: int = 0,
        relevance: str = "diagonal",
        depth: int = 2,
        activation: Any = "relu",
        W_std: float = 2**0.5,
        b_std: float | None = 1.0,
        kernel: str = "ntk",
        method: Any = "nystroem",
        model: Any = None,
        image_shape: tuple[int, int, int] | None = None,
        batch_size: int | None = None,
        random_state: Any = None,
    ):
        super().__init__(
            n_components,
            depth=depth,
            activation=activation,
            W_std=W_std,
            b_std=b_std,
            kernel=kernel,
            method=method,
            model=model,
            image_shape=image_shape,
            batch_size=batch_size,
            random_state=random_state,
        )
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.feature_learning = feature_learning
        self.relevance = relevance

    def _fit(
        self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None, *, go_on: bool = False
    ) -> None:
        """Fits the rows.

        Args:
          targets: (n,) or (n, k), float64.
          go_on: whether to add to the statistics of earlier rows, if there are any.
        """
        if go_on and hasattr(self, "statistics_"):
            if isinstance(self.alpha, str) and self.alpha == "loo":
                raise ValueError(
                    "alpha='loo' needs all rows at once, which partial_fit does not keep: use"
                    " alpha='gcv', a sequence or a number"
                )
            more = self._sums(self.feature_map_, rows, targets, weights)
            with digits(self._dtype):
                made = Made(self.feature_map_, on_host(self.statistics_.merge(more)))
        else:
            self._dtype = rows.dtype
            made = self._begun(rows, targets, weights)
        self.feature_map_, self.statistics_ = made
        self._solve(rows, targets, weights)
        penalty, sample = self.solution_.penalty, self._sample_of(rows, targets, weights)
        self._posterior = Posterior(self.statistics_, penalty, self.fit_intercept, sample)

    def _begun(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> Made:
        rounds = checked_integer(self.feature_learning, "feature_learning", least=0)
        if rounds:
            rescaled = self._learned(rounds, rows, targets, weights)
            return self._made(rows, targets, weights, rescaled)
        key = self._key(rows, targets, weights)
        return recent.get(key, lambda: self._made(rows, targets, weights))

    def _learned(
        self, rounds: int, rows: Rows, targets: np.ndarray, weights: np.ndarray | None
    ) -> Rescaled | None:
        """The rescaling found by rounds of feature learning; None if no round helps.

        Rounds end when the error on held-out rows no longer falls.
        """
        checked_choice(self.relevance, "relevance", RELEVANCES)
        if self.image_shape is not None:
            raise ValueError("feature_learning is of columns: not available with image_shape")
        order = check_random_state(self.random_state).permutation(len(rows))
        held, fitted = np.split(order, [max(1, len(rows) // 5)])
        own = None if weights is None else weights[fitted]
        part, held_rows = Rows(rows.table[fitted]), Rows(rows.table[held])
        least, best, rescaled = np.inf, None, None
        for done in range(rounds + 1):
            self.feature_map_, self.statistics_ = self._made(part, targets[fitted], own, rescaled)
            self._solve(part, targets[fitted], own)
            with digits(self._dtype):
                found = np.asarray(self.solution_.predict(held_rows.inputs(), progress=False))
                square = (found - targets[held]).reshape(len(held), -1) ** 2
                error = np.average(
                    square.mean(axis=1), weights=None if weights is None else weights[held]
                )
                if error >= least:
                    break
                least, best = error, rescaled
                if done < rounds:
                    sample = part[: min(len(part), _GRADIENTS)]
                    rescaled = Rescaled(relevance_root(self.solution_, sample, self.relevance))
        return best

    def _made(
        self,
        rows: Rows,
        targets: np.ndarray,
        weights: np.ndarray | None,
        rescaled: Rescaled | None = None,
    ) -> Made:
        seen = rows if weights is None else Rows(rows.table[np.flatnonzero(weights)])
        feature_map = self._map_of(seen, rescaled)
        return Made(feature_map, self._sums(feature_map, rows, targets, weights))

    def _sums(
        self,
        feature_map: FeatureMap,
        rows: Rows,
        targets: np.ndarray,
        weights: np.ndarray | None,
    ) -> GramState:
        options = {"get": self.kernel, "batch_size": self.batch_size, "progress": False}
        with digits(self._dtype):
            x, y, sample_weight = rows.examples(targets.astype(self._dtype), weights)
            found = accumulate(feature_map, x, y, sample_weight=sample_weight, **options)
            return on_host(found)

    def _solve(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> None:
        options: dict[str, Any] = {"fit_intercept": self.fit_intercept, "get": self.kernel}
        options |= {"batch_size": self.batch_size, "progress": False}
        if isinstance(self.alpha, str):
            checked_choice(self.alpha, "alpha", ("gcv", "loo"))
            options["diag_reg"] = _PATH
        else:
            checked_diag_reg(self.alpha, "alpha")
            options["diag_reg"] = self.alpha
        if np.ndim(options["diag_reg"]):
            options["select"] = self._selector(rows, targets, weights)
        with digits(self._dtype):
            solution = solve(self.feature_map_, self.statistics_, **options)
            self.solution_: RidgeSolution = on_host(solution)
        self.alpha_ = solution.diag_reg

    def _selector(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> Any:
        """The criterion that chooses `alpha`.

        GCV leaves landmarks out, because their features reproduce the exact kernel. If nearly all
        rows are landmarks, it takes all rows.
        """
        targets = targets.astype(self._dtype)
        if isinstance(self.alpha, str) and self.alpha == "loo":
            x, y, sample_weight = rows.examples(targets, weights)
            return LeaveOneOut(x, y, sample_weight=sample_weight)
        landmarks = self._landmarks(rows)
        if not landmarks.any() or len(rows) - landmarks.sum() < _FEWEST:
            return GCV()
        own = None if weights is None else weights[landmarks]
        return GCV(rows[landmarks], targets[landmarks], own)

    def _landmarks(self, rows: Rows) -> Bool[np.ndarray, " n"]:
        return np.concatenate([self.feature_map_.is_landmark(x) for x in rows.chunks()])

    def _key(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> Hashable:
        """A key of all that the statistics depend on; None if the random state is no integer."""
        if not isinstance(self.random_state, int | np.integer):
            return None
        plan = self._plan(rows)
        of_targets = digest_of(targets) if weights is None else digest_of(targets, weights)
        settings = (self.kernel, int(self.random_state), self.batch_size, plan.preprocess)
        return (rows.digest(), of_targets, plan.model.specification, plan.method, *settings)

    def _means(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        with digits(self._dtype):
            found = self.solution_.predict(rows.of(self._dtype).inputs(), progress=False)
            return np.asarray(found).astype(rows.dtype, copy=False)

    def _spreads(self, X: Any) -> Float[np.ndarray, "n k"]:
        """Standard deviations of observations."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False).of(self._dtype)
        parts = self._features(rows)
        return np.sqrt(np.concatenate([self._posterior.variances(*part) for part in parts]))

    def _sample_of(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> Sample:
        """A sample of rows that are not landmarks, or of all rows if nearly all are landmarks."""
        weights = np.ones(len(rows)) if weights is None else weights
        index = np.flatnonzero(~self._landmarks(rows) & (weights > 0))
        if len(index) < _FEWEST:
            index = np.flatnonzero(weights > 0)
        chosen = index[np.linspace(0, len(index) - 1, min(len(index), _SAMPLE)).astype(int)]
        z, missing = map(np.concatenate, zip(*self._features(Rows(rows[chosen])), strict=True))
        y = targets[chosen]
        return Sample(z, missing, y.reshape(len(y), -1), weights[chosen])

    def _features(self, rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of rows and the diagonal of the residual kernel, batch by batch."""
        options = {"get": self.kernel, "batch_size": self.batch_size, "progress": False}
        with digits(self._dtype):
            for start, stop, z in stream(self.feature_map_, rows.inputs(), **options):
                z, diagonals = np.asarray(z), self.feature_map_.diagonals(rows[start:stop])
                whole = np.asarray(getattr(diagonals, self.kernel)).astype(np.float64)
                yield z, np.maximum(whole - np.sum(z.astype(np.float64) ** 2, axis=1), 0.0)


def weights_of(sample_weight: Any, rows: Rows) -> np.ndarray | None:
    """Checked weights (n,)."""
    if sample_weight is None:
        return None
    options = {"dtype": np.float64, "ensure_non_negative": True}
    return _check_sample_weight(sample_weight, rows.table, **options)
