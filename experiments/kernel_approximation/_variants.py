"""Variants of Nyström features for a study: other landmarks, other residual directions."""

import dataclasses

import numpy as np
from jax import numpy as jnp
from scipy.stats import norm, qmc

import ntk_sketch as ns
from ntk_sketch.methods._landmarks import set_diagonal
from ntk_sketch.methods._sampling import generator, ridge_leverage_scores, weighted_sample

POOL = 4096  # positions among which landmarks are chosen, as in the package


class IndependentDirections(ns.Nystroem):
    """Residual features along independent Gaussian directions, not orthogonal ones."""

    def directions(self, z, z_ntk, count, *, key):
        rng = generator(key)
        w = rng.standard_normal((len(z), count))
        s = None if z_ntk is None else jnp.asarray(rng.standard_normal((len(z_ntk), count)))
        return jnp.asarray(w, z.dtype), None if s is None else s.astype(z.dtype)


class SobolDirections(ns.Nystroem):
    """Residual features along scrambled Sobol points, each coordinate mapped to a Gaussian one
    (quasi-Monte Carlo features: Yang, Sindhwani, Avron and Mahoney 2014); `w` and `s` make one
    point.
    """

    def directions(self, z, z_ntk, count, *, key):
        d = len(z) + (0 if z_ntk is None else len(z_ntk))
        points = qmc.Sobol(d, rng=generator(key)).random(count)
        points = norm.ppf(np.clip(points, 1e-7, 1 - 1e-7)).T
        w, s = points[: len(z)], points[len(z) :]
        return jnp.asarray(w, z.dtype), None if z_ntk is None else jnp.asarray(s, z.dtype)


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
    covariance = set_diagonal(z @ z.T, independent)
    _, derivative = dual(covariance, q[:, None], q[None, :])
    kernel = set_diagonal(derivative * (z_ntk @ z_ntk.T), jnp.diagonal(derivative) * ntk)
    return np.asarray(kernel, np.float64)
