"""Vectors of positions after any patch operator."""

import dataclasses

import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.features._hidden import Affine, HiddenFeatures, of_examples
from ntk_sketch.features._rooted import Rooted
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


# ------------------------------------------------------------------ roots


def rooted(rng, m, r, *space):
    return Rooted(
        jnp.asarray(rng.normal(size=(3, *space, m)), jnp.float32),
        jnp.asarray(rng.normal(size=(m, r)), jnp.float32),
    )


#: A root that is nearly square costs least in the filters, one of small rank before them.
RANKS = {"nearly full": (20, 19), "full": (4, 4), "small": (40, 2)}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", OPERATORS)
def test_roots_in_filters(name, rank):
    """Projections of rooted blocks are those of their vectors, whichever way costs less."""
    operator, rng = OPERATORS[name], np.random.default_rng(2)
    phi, psi = (rooted(rng, *RANKS[rank], 5) for _ in range(2))
    affine = Affine(1.5, 0.1, 0.7, 0.2, operator)
    features = HiddenFeatures((phi,), (psi,), pending=affine)
    w = rng.normal(size=(features.nngp_vectors().dimension, 30)).astype(np.float32)
    s = rng.normal(size=(features.ntk_vectors().dimension, 20)).astype(np.float32)
    expected = [
        np.concatenate(blocks, axis=-1) @ matrix
        for blocks, matrix in zip(
            (features.concrete().nngp, features.concrete().ntk), (w, s), strict=True
        )
    ]
    raw = features.raw(30, 20)
    assert (raw.nngp[0] is phi.values) == (rank != "small")
    for both in (
        features.project(w, s),
        raw.project(*features.fold(w, s)),
        raw.project(*features.fold(w, s, np)),
    ):
        for found, right in zip(both, expected, strict=True):
            np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())
    index = np.array([0, 2, 1]), np.array([1, 2, 0])
    formed = np.concatenate(features.concrete().nngp, axis=-1)
    np.testing.assert_allclose(features.nngp_vectors().at(index), formed[index], rtol=1e-4)


def test_roots_stay_where_positions_are_mixed():
    """A pool, a scale and a part of the examples act on values; examples share the root."""
    block = rooted(np.random.default_rng(3), 6, 5, 4)
    features = HiddenFeatures((block,), None)
    halved = features.map(lambda x: x[:, ::2] / 2)
    assert halved.nngp[0].root is block.root
    np.testing.assert_allclose(
        halved.concrete().nngp[0], block.formed()[:, ::2] / 2, rtol=1e-4, atol=1e-5
    )
    part = of_examples(lambda x: x[1:], features)
    assert part.nngp[0].root is block.root
    np.testing.assert_allclose(part.concrete().nngp[0], block.formed()[1:], rtol=1e-5)


def test_lower_precision_never_multiplies_roots():
    """Roots magnify the rounding of kernel values: what is rounded is the vectors."""
    rng = np.random.default_rng(4)
    root = np.diag(np.array([1.0, 1e4], np.float32)) @ np.array([[1, 1], [-1, 1]], np.float32)
    block = Rooted(jnp.asarray(rng.normal(size=(50, 2)) * [1, 1e-4], jnp.float32), root)
    features = HiddenFeatures((block,), None)
    w = np.eye(2, dtype=np.float32)[:, :1]
    found, _ = features.project(w, None, "bfloat16")
    right = np.asarray(block.formed(), np.float64) @ w
    assert np.abs(np.asarray(found, float) - right).max() < 2**-8 * np.abs(right).max()
