"""Variants of Nyström features for a study: other landmarks, other residual directions."""

import dataclasses

import numpy as np
from jax import numpy as jnp
from scipy.stats import norm, qmc

import ntk_sketch as ns
from ntk_sketch.methods._landmarks import with_diagonal
from ntk_sketch.methods._sampling import ridge_leverage_scores, weighted_sample

POOL = 4096  # positions among which landmarks are chosen, as in the package


class IndependentDirections(ns.Nystroem):
    """Residual features along independent Gaussian directions, not orthogonal ones."""

    def directions(self, d, d_ntk, count, rng):
        w = rng.standard_normal((d, count))
        return w, None if d_ntk is None else rng.standard_normal((d_ntk, count))


class SobolDirections(ns.Nystroem):
    """Residual features along scrambled Sobol points, each coordinate mapped to a Gaussian one
    (quasi-Monte Carlo features: Yang, Sindhwani, Avron and Mahoney 2014); `w` and `s` make one
    point.
    """

    def directions(self, d, d_ntk, count, rng):
        points = qmc.Sobol(d + (d_ntk or 0), rng=rng).random(count)
        points = norm.ppf(np.clip(points, 1e-7, 1 - 1e-7)).T
        return points[:d], None if d_ntk is None else points[d:]


class NTKLandmarks(ns.Nystroem):
    """Landmarks by the leverage scores of the NTK, `k_σ' ⊙ <ψ, ψ>`, not of `k_σ`."""

    def choose(self, dual, features, survey, count, rng):
        pool = rng.permutation(survey.usable)[: max(POOL, 16 * count)]
        kernel = _ntk(dual, features, pool)
        scores = ridge_leverage_scores(
            lambda rows, columns: kernel[np.ix_(rows, columns)], np.diagonal(kernel), count, rng
        )
        return weighted_sample(pool, scores, count, rng)


class LandmarksOfBoth(NTKLandmarks):
    """Half of the landmarks by the leverage scores of either kernel."""

    def choose(self, dual, features, survey, count, rng):
        half = ns.Nystroem.choose(self, dual, features, survey, count // 2, rng)
        left = dataclasses.replace(survey, usable=np.setdiff1d(survey.usable, half))
        return np.concatenate([half, super().choose(dual, features, left, count - len(half), rng)])


def _ntk(dual, features, pool: np.ndarray) -> np.ndarray:
    """The NTK of the positions `pool` behind the nonlinearity, its diagonal exact."""
    index = np.unravel_index(pool, (len(features.nngp[0]), *features.nngp_vectors().space))
    q, independent, ntk = (values[index] for values in features.variances.diagonals())
    z, z_ntk = features.nngp_vectors().at(index), features.ntk_vectors().at(index)
    covariance = with_diagonal(z @ z.T, independent)
    _, derivative = dual(covariance, q[:, None], q[None, :])
    kernel = with_diagonal(derivative * (z_ntk @ z_ntk.T), jnp.diagonal(derivative) * ntk)
    return np.asarray(kernel, np.float64)
