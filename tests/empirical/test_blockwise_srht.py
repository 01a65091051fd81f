"""The Hadamard transform in blocks: rows, an exact limit, mean and variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.empirical._blockwise_srht import BlockwiseSRHT

D, BLOCK = 13, 4  # four blocks, of which the last is a single number


def sketch(key, width, largest_block=BLOCK):
    return BlockwiseSRHT(D, width, key=key, largest_block=largest_block)


@pytest.mark.parametrize("largest_block", [4, 2**15])
def test_all_rows_are_an_isometry(float64, largest_block):
    made = sketch(jax.random.key(0), 100, largest_block)
    rows = np.stack([made.numbers, made.places])
    assert made.m == 16 == len(np.unique(rows, axis=1).T)
    matrix = jax.vmap(made)(jnp.eye(D)).T
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(D), atol=1e-14)


def test_rows_are_those_of_one_hadamard_matrix():
    """In integers, from the definition `(-1)^popcount(row & column)`."""
    made = sketch(jax.random.key(1), 9)
    matrix = np.asarray(jax.vmap(made)(jnp.eye(D))).T * 9**0.5
    rows = np.asarray(made.numbers) * BLOCK + np.asarray(made.places)
    hadamard = [[(-1) ** (int(r) & c).bit_count() for c in range(D)] for r in rows]
    signs = matrix[0] / hadamard[0]
    np.testing.assert_allclose(np.abs(signs), 1, rtol=1e-6)
    np.testing.assert_allclose(matrix, hadamard * signs, rtol=1e-6)


@pytest.mark.parametrize("width", [3, 6])
def test_mean_and_variance(width):
    """Unbiased, and no worse than independent rows, by what the docstring says."""
    x, y = np.random.default_rng(0).normal(size=(2, D)).astype("f4")
    keys = jax.random.split(jax.random.key(2), 8_000)

    @jax.jit
    @jax.vmap
    def products(key):
        made = sketch(key, width)
        return jnp.vdot(made(jnp.asarray(x)), made(jnp.asarray(y)))

    found = np.asarray(products(keys), np.float64)
    standard_error = found.std() / len(keys) ** 0.5
    assert abs(found.mean() - x @ y) < 4 * standard_error
    x, y = x.astype("f8"), y.astype("f8")
    independent = ((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * np.sum(x**2 * y**2)) / width
    cross = (np.outer(x, y) + np.outer(y, x)) ** 2 / 2  # of ordered pairs of coordinates
    block = np.arange(D) // BLOCK
    same_block = block[:, None] == block
    within = np.sum(cross[same_block & ~np.eye(D, dtype=bool)])
    between = np.sum(cross[~same_block])
    place = np.arange(width) % BLOCK
    n_same = int(np.sum(place[:, None] == place)) - width
    n_other = width * (width - 1) - n_same
    covariances = -n_other * within / (BLOCK - 1) + n_same * (within - between / (4 - 1))
    variance = independent + covariances / width**2
    squares = (found - found.mean()) ** 2
    assert abs(squares.mean() - variance) < 4 * squares.std() / len(keys) ** 0.5
    assert 0.1 * independent < variance < independent
