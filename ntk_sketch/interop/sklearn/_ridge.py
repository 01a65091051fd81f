"""What the regressor and the classifier have in common: a regression on features of rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.utils.validation import check_is_fitted

from ..._arguments import checked_choice
from ...maps import FeatureMap
from ...solvers import GCV, GramState, LeaveOneOut, RidgeSolution, accumulate, solve
from ...streaming import stream
from ...streaming._computed import KERNELS
from ._estimator import NetworkEstimator, digits, on_host
from ._posterior import Posterior, Sample
from ._recent import Recent
from ._rows import Rows, digest_of

#: Candidates for `alpha`.
_PATH = tuple(float(a) for a in np.logspace(-7, 0, 15))

_SAMPLE = 512  # rows that the scale of predictive variances is found from
_FEWEST = 32  # rows that are no landmarks, from which an error is estimated

recent = Recent()


class Made(NamedTuple):
    feature_map: FeatureMap
    state: GramState


class RidgeEstimator(NetworkEstimator):
    """Parameters and attributes are documented at `NTKRegressor`."""

    def __init__(
        self,
        n_components: int = 1024,
        *,
        alpha: Any = "gcv",
        fit_intercept: bool = True,
        depth: int = 2,
        activation: Any = "relu",
        W_std: float = 2**0.5,
        b_std: float | None = 0.1,
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

    def _fit(
        self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None, *, go_on: bool = False
    ) -> None:
        """
        Args:
          targets: (n,) or (n, k), float64.
          go_on: with the statistics of the rows before.
        """
        if go_on and hasattr(self, "statistics_"):
            more = self._sums(self.feature_map_, rows, targets, weights)
            with digits(self._dtype):
                made = Made(self.feature_map_, on_host(self.statistics_.merge(more)))
        else:
            self._dtype = rows.dtype
            key = self._key(rows, targets, weights)
            made = recent.get(key, lambda: self._made(rows, targets, weights))
        self.feature_map_, self.statistics_ = made
        self._posterior: Posterior | None = None
        self._sample = self._sample_of(rows, targets)
        self._solve(rows, targets, weights)

    def _made(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> Made:
        seen = rows if weights is None else Rows(rows.table[np.flatnonzero(weights)])
        feature_map = self._map_of(seen)
        return Made(feature_map, self._sums(feature_map, rows, targets, weights))

    def _sums(
        self,
        feature_map: FeatureMap,
        rows: Rows,
        targets: np.ndarray,
        weights: np.ndarray | None,
    ) -> GramState:
        more = () if weights is None else (weights,)
        with digits(self._dtype):
            options = {"get": self.kernel, "batch_size": self.batch_size, "progress": False}
            examples = rows.examples(targets.astype(self._dtype), *more)
            if len(examples) > 1 and more:
                *examples, options["sample_weight"] = examples
            return on_host(accumulate(feature_map, *examples, **options))

    def _solve(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> None:
        options: dict[str, Any] = {"fit_intercept": self.fit_intercept, "get": self.kernel}
        options |= {"batch_size": self.batch_size, "progress": False}
        if isinstance(self.alpha, str):
            checked_choice(self.alpha, "alpha", ("gcv", "loo"))
            options["diag_reg"] = _PATH
        else:
            options["diag_reg"] = self.alpha
        if np.ndim(options["diag_reg"]):
            options["select"] = self._selector(rows, targets, weights)
        with digits(self._dtype):
            solution = solve(self.feature_map_, self.statistics_, **options)
            self.solution_: RidgeSolution = on_host(solution)
        self.alpha_ = solution.diag_reg

    def _selector(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> Any:
        """Scores of the rows that are no landmarks, or of all if nearly all of them are: features
        of as many rows as there are landmarks are those of the exact kernel."""
        if isinstance(self.alpha, str) and self.alpha == "loo":
            return LeaveOneOut(*rows.examples(targets.astype(self._dtype)))
        landmarks = self._landmarks(rows)
        if not landmarks.any() or len(rows) - landmarks.sum() < _FEWEST:
            return GCV()
        return GCV(rows[landmarks], targets[landmarks].astype(self._dtype))

    def _landmarks(self, rows: Rows) -> Bool[np.ndarray, " n"]:
        return np.concatenate([self.feature_map_.is_landmark(x) for x in rows.chunks()])

    def _key(self, rows: Rows, targets: np.ndarray, weights: np.ndarray | None) -> Hashable:
        """Of all that the statistics depend on; None where a random state goes on by itself."""
        if not isinstance(self.random_state, int | np.integer):
            return None
        plan = self._plan(rows.shape[1])
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
        if self._posterior is None:
            self._posterior = Posterior(
                self.statistics_, self.solution_.penalty, self.fit_intercept, self._sample
            )
        parts = self._features(rows)
        return np.sqrt(np.concatenate([self._posterior.variances(*part) for part in parts]))

    def _sample_of(self, rows: Rows, targets: np.ndarray) -> Sample:
        """Of rows that are no landmarks, or of all if nearly all of them are."""
        index = np.flatnonzero(~self._landmarks(rows))
        if len(index) < _FEWEST:
            index = np.arange(len(rows))
        chosen = index[np.linspace(0, len(index) - 1, min(len(index), _SAMPLE)).astype(int)]
        z, missing = map(np.concatenate, zip(*self._features(Rows(rows[chosen])), strict=True))
        y = targets[chosen]
        return Sample(z, missing, y.reshape(len(y), -1))

    def _features(self, rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of rows, batch by batch, and what they miss of the exact variances."""
        options = {"get": self.kernel, "batch_size": self.batch_size, "progress": False}
        with digits(self._dtype):
            for start, stop, z in stream(self.feature_map_, rows.inputs(), **options):
                z, diagonals = np.asarray(z), self.feature_map_.diagonals(rows[start:stop])
                whole = np.asarray(diagonals[KERNELS.index(self.kernel)]).astype(np.float64)
                yield z, np.maximum(whole - np.sum(z.astype(np.float64) ** 2, axis=1), 0.0)
