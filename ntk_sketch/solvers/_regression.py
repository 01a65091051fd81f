"""From a decomposition to scores, a choice and weights."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Array, Float

from ..numerics._precision import on_device
from ..streaming._feature_stream import FeatureStream
from ._selection import Selector
from ._solution import Fit, RidgeSolution
from ._spectrum import Spectrum


class Regression:
    """The regressions of one decomposition, for every `diag_reg`."""

    def __init__(self, spectrum: Spectrum, diag_regs: list[float], absolute: bool):
        scale = 1.0 if absolute else spectrum.mean_square_norm
        self.spectrum = spectrum
        self.fits = tuple(
            Fit(d, d * scale, spectrum.condition(d * scale), spectrum.rank(d * scale))
            for d in diag_regs
        )

    def scores(self, selector: Selector, features: FeatureStream) -> Float[np.ndarray, " m"]:
        """One for each `diag_reg`, some of them finite."""
        scores = selector.scores(self.spectrum, [fit.penalty for fit in self.fits], features)
        if not np.any(np.isfinite(scores)):
            raise ValueError(
                f"every score is infinite for diag_reg={[fit.diag_reg for fit in self.fits]}: the"
                " regression interpolates its examples, so none can be left out; give larger values"
            )
        return scores

    def solution(
        self,
        features: FeatureStream,
        scores: Float[np.ndarray, " m"] | None,
        *,
        is_path: bool,
        one_output: bool,
    ) -> RidgeSolution:
        """Weights of the path, and of the choice by `scores` (of this or another regression)."""
        spectrum, fits = self.spectrum, self.fits
        chosen = (None if is_path else 0) if scores is None else int(np.argmin(scores))
        wanted = fits if is_path or chosen is None else (fits[chosen],)
        best = chosen if is_path else 0

        def all_and_best(arrays: list[np.ndarray]) -> tuple[Array | None, Array | None]:
            arrays = [a[..., 0] if one_output else a for a in arrays]
            return (
                on_device(np.stack(arrays), spectrum.dtype) if is_path else None,
                None if best is None else on_device(arrays[best], spectrum.dtype),
            )

        weights = [spectrum.weights(fit.penalty) for fit in wanted]
        path_weights, best_weights = all_and_best(weights)
        path_intercept = best_intercept = None
        if spectrum.fit_intercept:
            path_intercept, best_intercept = all_and_best(list(map(spectrum.intercept, weights)))
        if chosen is not None:
            _warn_if_deficient(fits[chosen], spectrum)
        _warn_of_large_mean(spectrum)
        return RidgeSolution(
            feature_map=features.feature_map,
            weights=best_weights,
            path_weights=path_weights,
            intercept=best_intercept,
            path_intercept=path_intercept,
            scores=scores,
            diag_reg=tuple(f.diag_reg for f in fits) if chosen is None else fits[chosen].diag_reg,
            n_examples=spectrum.n_examples,
            fits=fits,
            chosen=chosen,
            get=features.get,
            batch_size=features.batch_size,
        )


def _warn_of_large_mean(spectrum: Spectrum) -> None:
    if spectrum.mean_to_spread > 1 and not spectrum.fit_intercept:
        warnings.warn(
            "the mean of the targets outweighs their spread, "
            f"{spectrum.mean_to_spread:.3g} times, and is shrunk with everything else: pass "
            "fit_intercept=True, or subtract the mean from y and add it to predictions",
            RuntimeWarning,
            stacklevel=4,
        )


def _warn_if_deficient(fit: Fit, spectrum: Spectrum) -> None:
    size = len(spectrum.values)
    if fit.rank < size:
        error = spectrum.floor if fit.penalty > 0 else spectrum.cut
        warnings.warn(
            f"numerically rank-deficient at diag_reg={fit.diag_reg:g} (λ = {fit.penalty:.3g}): "
            f"{size - fit.rank} of {size} eigenvalues of the Gram matrix, with λ added, are below "
            f"its rounding error of {error:.3g} and their directions are dropped; the condition "
            f"number of the others is {fit.condition:.3g} and the largest eigenvalue "
            f"{spectrum.values[-1]:.3g}. If they matter, use a larger diag_reg or float64 features",
            RuntimeWarning,
            stacklevel=4,
        )
