"""From a decomposition to scores, a choice and weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from ..numerics._precision import on_device
from ..streaming._feature_stream import FeatureStream
from ._decomposition import Decomposition
from ._selection import Selector
from ._solution import Fit, RidgeSolution

_EXTENSIONS = 8  # of a path of regularisers at most


class Regression:
    """The regressions of one decomposition, for every `diag_reg`."""

    def __init__(self, decomposition: Decomposition, diag_regs: Sequence[float], absolute: bool):
        self.decomposition = decomposition
        self.diag_regs = list(diag_regs)
        self._scale = 1.0 if absolute else decomposition.mean_square_norm

    def _fit(self, diag_reg: float, penalty: float, residual: float) -> Fit:
        found = self.decomposition
        known = found.condition(penalty), found.rank(penalty), residual, found.report(penalty)
        return Fit(diag_reg, penalty, *known)

    def scores(
        self, selector: Selector, features: FeatureStream, extend: bool = False
    ) -> Float[np.ndarray, " m"]:
        """One for each of `diag_regs`, some of them finite.

        With `extend`, while the best is the smallest or the largest of them the path goes on there
        by its own ratio, `_EXTENSIONS` times at most: not to values that need the whole spectrum
        where others need a factor.
        """
        scores = self._scores(selector, self.diag_regs, features)
        if not np.any(np.isfinite(scores)):
            raise ValueError(
                f"every score is infinite for diag_reg={self.diag_regs}: the"
                " regression interpolates its examples, so none can be left out; give larger values"
            )
        for _ in range(_EXTENSIONS * extend):
            further = _beyond(self.diag_regs, self._best(scores))
            if further is None:
                return scores
            place, diag_reg = further
            if not self._stands_out(diag_reg, features):
                warnings.warn(
                    f"diag_reg={self.diag_regs[self._best(scores)]:.3g} has the best score and is"
                    f" the smallest of its path, which does not go on to {diag_reg:.3g}: that does"
                    " not stand out of the rounding of ZᵀZ. If smaller values matter, give them"
                    " yourself, or use float64 features",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return scores
            new = self._scores(selector, [diag_reg], features)
            scores = np.insert(scores, place, new)
            self.diag_regs.insert(place, diag_reg)
        if extend and _beyond(self.diag_regs, self._best(scores)):
            warnings.warn(
                f"diag_reg={self.diag_regs[self._best(scores)]:.3g} has the best score of"
                f" {len(scores)} values and is at the end of their path, which was extended"
                f" {_EXTENSIONS} times: the data do not choose a value on this side",
                RuntimeWarning,
                stacklevel=3,
            )
        return scores

    def _stands_out(self, diag_reg: float, features: FeatureStream) -> bool:
        found = float(self.decomposition.stands_out(diag_reg * self._scale))
        return bool(features.devices.common(np.array([found]))[0])

    def _best(self, scores: Float[np.ndarray, " m"]) -> int:
        """Of equal scores, which counts of wrong classes have, that of the largest regulariser."""
        equal = np.flatnonzero(scores == np.nanmin(scores))
        return int(equal[np.argmax(np.asarray(self.diag_regs)[equal])])

    def _scores(
        self, selector: Selector, diag_regs: list[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        penalties = [d * self._scale for d in diag_regs]
        scores = selector.scores(self.decomposition, penalties, features)
        return features.devices.common(np.asarray(scores, np.float64))

    def solution(
        self,
        features: FeatureStream,
        scores: Float[np.ndarray, " m"] | None,
        *,
        is_path: bool,
        one_output: bool,
    ) -> RidgeSolution:
        """Weights of the path, and of the choice by `scores` (of this or another regression)."""
        decomposition = self.decomposition
        penalties = [d * self._scale for d in self.diag_regs]
        weights = list(map(decomposition.weights, penalties))
        residuals = decomposition.residuals(penalties, weights)
        fits = tuple(map(self._fit, self.diag_regs, penalties, residuals))
        best = chosen = (None if is_path else 0) if scores is None else self._best(scores)

        def all_and_best(arrays: list[np.ndarray]) -> tuple[Array | None, Array | None]:
            arrays = [a[..., 0] if one_output else a for a in arrays]
            return (
                on_device(np.stack(arrays), decomposition.dtype) if is_path else None,
                None if best is None else on_device(arrays[best], decomposition.dtype),
            )

        path_weights, best_weights = all_and_best(weights)
        path_intercept = best_intercept = None
        if decomposition.fit_intercept:
            path_intercept, best_intercept = all_and_best(
                list(map(decomposition.intercept, weights))
            )
        if chosen is not None:
            _warn_if_deficient(fits[chosen], decomposition)
        _warn_of_large_mean(decomposition)
        return RidgeSolution(
            feature_map=features.feature_map,
            weights=best_weights,
            path_weights=path_weights,
            intercept=best_intercept,
            path_intercept=path_intercept,
            scores=scores,
            diag_reg=tuple(f.diag_reg for f in fits) if chosen is None else fits[chosen].diag_reg,
            n_examples=decomposition.n_examples,
            fits=fits,
            chosen=chosen,
            get=features.get,
            batch_size=features.batch_size,
        )


def _beyond(path: list[float], best: int) -> tuple[int, float] | None:
    """Where the path goes on and with which value, if its best is at an end of it."""
    values = sorted(path)
    if path[best] not in (values[0], values[-1]):
        return None
    end, inner = (values[0], values[1]) if path[best] == values[0] else (values[-1], values[-2])
    return best + (best > 0), end * end / inner


def _warn_of_large_mean(decomposition: Decomposition) -> None:
    if decomposition.mean_to_spread > 1 and not decomposition.fit_intercept:
        warnings.warn(
            "the mean of the targets outweighs their spread, "
            f"{decomposition.mean_to_spread:.3g} times, and is shrunk with everything else: pass "
            "fit_intercept=True, or subtract the mean from y and add it to predictions",
            RuntimeWarning,
            stacklevel=4,
        )


def _warn_if_deficient(fit: Fit, decomposition: Decomposition) -> None:
    what = decomposition.deficiency(fit.penalty)
    if what:
        warnings.warn(
            f"numerically rank-deficient at diag_reg={fit.diag_reg:g} (λ = {fit.penalty:.3g}): "
            f"{what}. If they matter, use a larger diag_reg or float64 features",
            RuntimeWarning,
            stacklevel=4,
        )
