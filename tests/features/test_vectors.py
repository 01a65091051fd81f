"""Vectors of positions behind any patch operator."""

import dataclasses

import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.features._hidden import Affine, HiddenFeatures
from ntk_sketch.features._vectors import Vectors
from ntk_sketch.features._windows import Windows
from ntk_sketch.numerics._precision import matmul


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Position s and its mirror image, for every other s: no windows."""

    size = 2

    def output_space(self, space):
        return (-(-space[0] // 2),)

    def patches(self, x):
        return jnp.concatenate([x, x[:, ::-1]], axis=-1)[:, ::2]

    def patches_at(self, x, index):
        return self.patches(x)[index]

    def project(self, x, matrix, precision="full"):
        return matmul(self.patches(x), matrix, precision)


OPERATORS = {
    "pairs": Pairs(),
    "windows": Windows((3,), (2,), "SAME"),
    "circular windows": Windows((2,), (1,), "CIRCULAR"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_projections_are_those_of_formed_vectors(name):
    """Of two scaled blocks and a constant; at all positions and at some."""
    operator, rng = OPERATORS[name], np.random.default_rng(0)
    blocks = [jnp.asarray(rng.normal(size=(4, 5, c)), jnp.float32) for c in (3, 2)]
    vectors = Vectors(((blocks[0], 2.0), (blocks[1], 0.5)), 0.3, operator)
    formed = np.concatenate(
        [2.0 * operator.patches(blocks[0]), 0.5 * operator.patches(blocks[1])], axis=-1
    )
    formed = np.concatenate([formed, np.full((*formed.shape[:-1], 1), 0.3)], axis=-1)
    assert vectors.dimension == formed.shape[-1]
    assert vectors.space == formed.shape[1:-1]
    np.testing.assert_allclose(np.concatenate(vectors.blocks_formed(), axis=-1), formed, rtol=1e-6)
    matrix = rng.normal(size=(vectors.dimension, 6)).astype(np.float32)
    np.testing.assert_allclose(vectors.project(matrix), formed @ matrix, rtol=1e-4, atol=1e-5)
    index = np.array([0, 3, 1]), np.array([1, 2, 0])
    np.testing.assert_allclose(vectors.at(index), formed[index], rtol=1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_both_kernels_at_once(name):
    """φ is among the blocks of ψ behind an affine layer: one pass for both sets of columns."""
    operator, rng = OPERATORS[name], np.random.default_rng(1)
    phi, psi = (jnp.asarray(rng.normal(size=(3, 5, c)), jnp.float32) for c in (4, 2))
    affine = Affine(1.5, 0.1, 0.7, 0.2, operator)
    features = HiddenFeatures((phi,), (psi,), pending=affine)
    w = rng.normal(size=(features.nngp_vectors().dimension, 3)).astype(np.float32)
    s = rng.normal(size=(features.ntk_vectors().dimension, 2)).astype(np.float32)
    formed = features.concrete()
    assert formed.space == features.space == operator.output_space((5,))
    for found, matrix, blocks in zip(
        features.project(w, s), (w, s), (formed.nngp, formed.ntk), strict=True
    ):
        expected = np.concatenate(blocks, axis=-1) @ matrix
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
