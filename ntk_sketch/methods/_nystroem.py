"""Nyström features: landmarks from the sample, and random features of what they miss."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np

from .._features import Features
from .._precision import Precision, checked_precision
from .._typing import Array, PRNGKey
from ..activations import DualActivation
from ._calibration import calibrated
from ._directions import orthogonal_directions
from ._landmarks import LandmarkExpansion, expansion, landmarks_at
from ._method import Method, checked_width
from ._sampling import SAMPLINGS, Sampling, generator, sample_positions, usable_positions

#: Share of the width that is random features, in all nonlinearities but the last.
DEFAULT_RESIDUAL = 0.5


class Nystroem(Method):
    width: int | tuple[int, ...] = eqx.field(static=True)
    residual: float | None = eqx.field(static=True)
    sampling: Sampling = eqx.field(static=True)
    calibrate: bool = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    looks_at_data = True

    def __init__(
        self,
        width: int | Sequence[int],
        residual: float | None = None,
        sampling: Sampling = "leverage",
        calibrate: bool = True,
        precision: Precision = "float32",
    ):
        self.width = checked_width(width)
        if residual is not None and not 0 <= residual < 1:
            raise ValueError(
                f"residual is the share of the width that is random features, 0 <= residual < 1 or"
                f" None; got {residual!r}."
            )
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}.")
        self.residual = None if residual is None else float(residual)
        self.sampling = sampling
        self.calibrate = bool(calibrate)
        self.precision = checked_precision(precision)

    def expand(
        self, dual: DualActivation, features: Features, *, last: bool, key: PRNGKey
    ) -> LandmarkExpansion:
        key_landmarks, key_residual, key_fit = jax.random.split(key, 3)
        space = features.nngp_vectors().space
        positions = usable_positions(features)
        landmarks, residual = self.shares(dual, len(positions), last)
        chosen = positions
        if landmarks < len(positions):
            rng = generator(key_landmarks)
            chosen = sample_positions(dual, features, positions, landmarks, self.sampling, rng)
        index = np.unravel_index(chosen, (features.nngp[0].shape[0], *space))
        z, w, s = landmarks_at(dual, features, index), None, None
        if residual:
            w, s = residual_directions(z.z, z.z_ntk, residual, key=key_residual)
        drawn = expansion(z, dual, w, s, self.precision)
        if not self.calibrate:
            return drawn
        others = np.setdiff1d(positions, chosen)
        return calibrated(drawn, dual, features, others, generator(key_fit))

    def shares(self, dual: DualActivation, positions: int, last: bool) -> tuple[int, int]:
        """Numbers of landmarks and of residual features where the sample has so many positions."""
        width = self.width
        assert isinstance(width, int)  # a schedule was cut up layer by layer
        if width > positions:
            raise ValueError(
                f"Nystroem(width={width}) at {dual.name}: the sample has only P = {positions}"
                " usable positions there (variance above 0, duplicates counted once), and each can"
                " be a landmark once. Give feature_map a larger sample, or this nonlinearity a"
                f" width of at most {positions}, by a schedule Nystroem(width=(..., {positions},"
                " ...)) or stax.with_method."
            )
        if width == positions:
            return width, 0
        share = self.residual
        if share is None:
            share = 0.0 if last else DEFAULT_RESIDUAL
        residual = math.floor(share * width)
        return width - residual, residual


def residual_directions(
    z: Array, z_ntk: Array | None, count: int, *, key: PRNGKey
) -> tuple[Array, Array | None]:
    """Gaussian-like directions `w` (d, count) and `s` (d_ψ, count), `E[w wᵀ] = I`."""
    key_w, key_s = jax.random.split(key)
    w = orthogonal_directions(key_w, z.shape[0], count, z.dtype, chi_norms=True)
    if z_ntk is None:
        return w, None
    s = orthogonal_directions(key_s, z_ntk.shape[0], count, z.dtype, chi_norms=False)
    return w, s
