"""Random directions: both ways of drawing them, in JAX and on the host, under one contract."""

import jax
import numpy as np
import pytest

from ntk_sketch.methods._directions import host_orthogonal_directions, orthogonal_directions

KEYS = 4000


def in_jax(seed, d, m, chi_norms):
    drawn = orthogonal_directions(jax.random.key(seed), d, m, np.float32, chi_norms=chi_norms)
    return np.asarray(drawn)


def on_host(seed, d, m, chi_norms):
    rng = np.random.default_rng(seed)
    return host_orthogonal_directions(rng, d, m, chi_norms=chi_norms)


def many_in_jax(d, m):
    keys = jax.random.split(jax.random.key(0), KEYS)
    draw = jax.vmap(lambda key: orthogonal_directions(key, d, m, np.float32, chi_norms=True))
    return np.asarray(draw(keys), np.float64)


def many_on_host(d, m):
    rng = np.random.default_rng(0)
    draws = [host_orthogonal_directions(rng, d, m, chi_norms=True) for _ in range(KEYS)]
    return np.array(draws)


@pytest.mark.parametrize("draw", [in_jax, on_host])
@pytest.mark.parametrize(("d", "m"), [(1, 3), (5, 3), (4, 4), (3, 8)])
def test_orthogonal_in_groups(draw, d, m):
    directions = draw(0, d, m, chi_norms=False)
    assert directions.shape == (d, m)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), d**0.5, rtol=1e-5)
    for start in range(0, m, min(d, m)):
        group = directions[:, start : start + min(d, m)]
        gram = group.T @ group
        np.testing.assert_allclose(gram, d * np.eye(len(gram)), rtol=0, atol=1e-3 * d)


@pytest.mark.parametrize("draw", [many_in_jax, many_on_host])
@pytest.mark.parametrize(("d", "m"), [(1, 2), (3, 3), (2, 5)])
def test_moments(draw, d, m):
    """Each column has those of a Gaussian vector up to the fourth, as its direction is uniform and
    its norm that of a Gaussian vector, drawn for itself.
    """
    w = draw(d, m)

    def within(draws, expected):
        errors = draws.std(axis=0) / KEYS**0.5
        assert np.all(np.abs(draws.mean(axis=0) - expected) <= 4.5 * errors)

    within(w, 0)
    within(np.einsum("kim,kjm->kmij", w, w), np.eye(d))
    within(w**4, 3)
    squares = np.sum(w**2, axis=1)
    within((squares - d) ** 2, 2 * d)  # the variance of χ²
    within((squares[:, 0] - d) * (squares[:, -1] - d), 0)
