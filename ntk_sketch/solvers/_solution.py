"""A fitted regression, and how it comes from a decomposition."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._arguments import checked_examples
from ..numerics._precision import on_device
from ..streaming._stream import (
    FeatureMapLike,
    FeatureStream,
    Inputs,
    batch_rows,
    batches,
    feature_spec,
    kernel_features,
)
from ._selection import Selector
from ._spectrum import Spectrum
from ._sums import project


class Fit(NamedTuple):
    """What is known of one regression: its λ and how well it is determined."""

    diag_reg: float
    penalty: float
    condition: float
    rank: int


class RidgeSolution(eqx.Module):
    """Ridge regression weights with the feature map they belong to.

    Attributes:
      feature_map: x → features.
      weights: W, (p, outputs), or (p,) for targets of shape (n,); predictions are `z @ weights`.
        None on a path without selection.
      intercept: (outputs,), or () for targets of shape (n,); None without one.
      diag_reg: as the user gave it: the chosen number, or all of a path without selection.
      scores: one per `diag_reg` in the order given: the estimate of the mean squared error per
        example and output that `select` asked for (GCV, leave-one-out, or error on the validation
        examples), in the units of y². None without selection.
      n_examples: n.
    """

    feature_map: FeatureMapLike
    weights: Float[Array, "p ..."] | None
    path_weights: Float[Array, "m p ..."] | None
    intercept: Float[Array, ...] | None
    path_intercept: Float[Array, "m ..."] | None
    scores: Float[np.ndarray, " m"] | None
    diag_reg: float | tuple[float, ...] = eqx.field(static=True)
    n_examples: int = eqx.field(static=True)
    fits: tuple[Fit, ...] = eqx.field(static=True)
    chosen: int | None = eqx.field(static=True)
    get: str = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)

    def __hash__(self) -> int:
        raise TypeError(
            "a solution holds arrays and has no hash, so that jax.jit(solution.predict) cannot take"
            " it. Use equinox.filter_jit(solution.predict), or"
            " jax.jit(lambda x: solution.predict(x))"
        )

    @property
    def path(self) -> tuple[RidgeSolution, ...]:
        """One solution for each `diag_reg` of a sequence, in its order; () for a single number."""
        if self.path_weights is None:
            return ()
        return tuple(
            RidgeSolution(
                feature_map=self.feature_map,
                weights=self.path_weights[i],
                path_weights=None,
                intercept=None if self.path_intercept is None else self.path_intercept[i],
                path_intercept=None,
                scores=None,
                diag_reg=fit.diag_reg,
                n_examples=self.n_examples,
                fits=(fit,),
                chosen=0,
                get=self.get,
                batch_size=self.batch_size,
            )
            for i, fit in enumerate(self.fits)
        )

    @property
    def penalty(self) -> float:
        """λ itself: `diag_reg`, times the mean squared feature norm unless it is absolute."""
        return self._fit.penalty

    @property
    def condition(self) -> float:
        """(largest eigenvalue + λ) / (smallest that is used + λ) of the Gram matrix."""
        return self._fit.condition

    @property
    def rank(self) -> int:
        """Directions used, of min(n, p): fewer where eigenvalue + λ is below rounding error."""
        return self._fit.rank

    @property
    def _fit(self) -> Fit:
        if self.chosen is None:
            raise ValueError(
                f"this is a path of {len(self.fits)} regularisers, none of them selected: use "
                "solution.path[i], or fit with select='gcv', select='loo' or "
                "select=(x_val, y_val)"
            )
        return self.fits[self.chosen]

    def predict(self, x: Inputs) -> Float[Array, "n ..."]:
        """`features(x) @ weights + intercept`, (n, outputs), or (n,) for targets of shape (n,).

        Streams x in batches, so x may be larger than device memory. Inside `eqx.filter_jit`, `grad`
        or `vmap`, where x is traced, all of x is one batch and values are not looked at.

        Cost: the features, and 2 n p k FLOPs.

        Raises:
          TypeError: x is not floating point.
          ValueError: a path without selection; x is empty, not finite, or not of the shape that
            the feature map takes.
        """
        _ = self._fit
        assert self.weights is not None
        x = checked_examples(x)
        rows = batch_rows(self.feature_map, x.shape[0], self.batch_size)
        spec = feature_spec(self.feature_map, x, self.get, rows)
        if spec.shape[1] != self.weights.shape[0]:
            raise ValueError(
                f"examples of shape {tuple(x.shape[1:])} have {spec.shape[1]} features but the "
                f"weights are for {self.weights.shape[0]}; needed: examples shaped like the "
                "training examples"
            )
        if isinstance(x, Tracer) or isinstance(self.weights, Tracer):
            mean = project(kernel_features(self.feature_map(x), self.get), self.weights)
            if self.intercept is None:
                return mean
            return mean + jnp.broadcast_to(self.intercept, mean.shape)
        parts = batches(self.feature_map, x, get=self.get, batch_size=rows)
        means = [np.asarray(project(z, self.weights))[: stop - start] for start, stop, z in parts]
        mean = np.concatenate(means)
        if self.intercept is not None:
            mean = mean + np.asarray(self.intercept)
        return jax.device_put(mean)


def solution_from(
    feature_map: FeatureMapLike,
    spectrum: Spectrum,
    diag_regs: list[float],
    *,
    is_path: bool,
    absolute: bool,
    selector: Selector | None,
    get: str,
    batch_size: int | None,
    one_output: bool,
) -> RidgeSolution:
    """Scores, choice and weights from a decomposition."""
    scale = 1.0 if absolute else spectrum.mean_square_norm
    fits = tuple(
        Fit(value, value * scale, spectrum.condition(value * scale), spectrum.rank(value * scale))
        for value in diag_regs
    )
    scores, chosen = None, None if is_path else 0
    if selector is not None:
        features = FeatureStream(feature_map, get, batch_size)
        scores = selector.scores(spectrum, [fit.penalty for fit in fits], features)
        if not np.any(np.isfinite(scores)):
            raise ValueError(
                f"every score is infinite for diag_reg={diag_regs}: the regression interpolates "
                "its examples, so none can be left out; give larger values"
            )
        chosen = int(np.argmin(scores))

    wanted = fits if is_path or chosen is None else (fits[chosen],)
    weights = [spectrum.weights(fit.penalty) for fit in wanted]
    intercepts = [spectrum.intercept(w) for w in weights]

    def all_and_best(arrays: list[np.ndarray]) -> tuple[Array | None, Array | None]:
        arrays = [a[..., 0] if one_output else a for a in arrays]
        return (
            on_device(np.stack(arrays), spectrum.dtype) if is_path else None,
            None if best is None else on_device(arrays[best], spectrum.dtype),
        )

    best = chosen if is_path else 0
    path_weights, best_weights = all_and_best(weights)
    path_intercept, best_intercept = (
        all_and_best(intercepts) if spectrum.fit_intercept else (None, None)
    )
    if chosen is not None:
        _warn_if_deficient(fits[chosen], spectrum)
    if spectrum.mean_to_spread > 1 and not spectrum.fit_intercept:
        warnings.warn(
            "the mean of the targets outweighs their spread, "
            f"{spectrum.mean_to_spread:.3g} times, and is shrunk with everything else: pass "
            "fit_intercept=True, or subtract the mean from y and add it to predictions",
            RuntimeWarning,
            stacklevel=3,
        )
    return RidgeSolution(
        feature_map=feature_map,
        weights=best_weights,
        path_weights=path_weights,
        intercept=best_intercept,
        path_intercept=path_intercept,
        scores=scores,
        diag_reg=tuple(diag_regs) if chosen is None else diag_regs[chosen],
        n_examples=spectrum.n_examples,
        fits=fits,
        chosen=chosen,
        get=get,
        batch_size=batch_size,
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
