"""A sample that a layer transforms in parts."""

import itertools

import jax
import numpy as np
import pytest
from counting import compiled
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.maps._ends import enter
from ntk_sketch.methods import RandomFeatures
from ntk_sketch.numerics._memory import array_bytes, peak_bytes
from ntk_sketch.stax import _sample


@pytest.mark.parametrize("examples_at_once", [1, 2, 5, 7, 9])
def test_every_example_once_and_in_order(examples_at_once, monkeypatch):
    x = np.random.default_rng(0).normal(size=(7, 6, 2)).astype(np.float32)
    rule, method = stax.serial(stax.Conv(1, (3,)), stax.Relu()).rule, RandomFeatures(3)
    offsets = rule.needs(((0,),), x.shape, method=method)
    features = enter(x, ntk=True, offsets=offsets)
    transform = rule.fit(features, method=method, offsets=((0,),), key=jax.random.key(0))
    shapes = _sample.shapes_after(transform, features)
    size = sum(map(array_bytes, jax.tree.leaves(shapes)))
    monkeypatch.setattr(_sample, "_PART_BYTES", size * examples_at_once / 7)
    parts = _sample.advance(transform, features, shapes)
    whole = transform(features)
    for part, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("examples_at_once", [2, 7])
def test_graphs_go_with_their_examples(examples_at_once, monkeypatch):
    """Parts are small enough for what is computed on the way, here matrices of pairs."""
    rng = np.random.default_rng(0)
    x, pattern = rng.normal(size=(7, 6, 2)).astype(np.float32), rng.uniform(size=(7, 6, 6))
    rule, method = stax.Aggregate().rule, RandomFeatures(3)
    graphs = {"pattern": jnp.asarray(pattern, np.float32)}
    features = enter(x, ntk=True, offsets=rule.needs(((0,),), x.shape, method=method, **graphs))
    transform = rule.fit(features, method=method, offsets=((0,),), key=jax.random.key(0), **graphs)
    shapes = _sample.shapes_after(transform, features, **graphs)
    sizes = []
    monkeypatch.setattr(
        _sample, "_call_jitted", lambda t, z, k: sizes.append(len(z.nngp[0])) or t(z, **k)
    )
    peak = peak_bytes(lambda z, k: transform(z, **k), features, graphs)
    assert peak > 2 * sum(map(array_bytes, jax.tree.leaves(shapes)))
    monkeypatch.setattr(_sample, "_PEAK_BYTES", peak * examples_at_once / 7)
    sizes.clear()
    parts = _sample.advance(transform, features, shapes, rule.per_example, **graphs)
    assert sizes[-1] == examples_at_once
    whole_at_once = _sample.advance(transform, features, shapes, **graphs)
    assert sizes[-1] == 7
    np.testing.assert_array_equal(whole_at_once.nngp[0], transform(features, **graphs).nngp[0])
    whole = transform(features, **graphs)
    for part, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)


def test_shapes_and_values_are_traced_together():
    traced = []

    def transform(features):
        traced.append(features)
        return features.map(lambda values: 2 * values)

    x = np.random.default_rng(0).normal(size=(7, 6, 2)).astype(np.float32)
    features = enter(x, ntk=True, offsets=((0,),))
    shapes = _sample.shapes_after(transform, features)
    for leaf, shape in zip(
        jax.tree.leaves(_sample.advance(transform, features, shapes)),
        jax.tree.leaves(shapes),
        strict=True,
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
    assert len(traced) == 1


def nested(depth):
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1), stax.Relu(), stax.Dense(1))
    for _ in range(depth):
        model = stax.serial(model)
    return model


def in_blocks(blocks):
    layers = [[stax.Dense(1), stax.Relu()] for _ in range(3)]
    if blocks:
        layers = [[stax.serial(*block)] for block in layers]
    return stax.serial(*itertools.chain(*layers), stax.Dense(1))


@pytest.mark.parametrize(
    ("make", "flat", "other"),
    [pytest.param(nested, 0, 3, marks=pytest.mark.slow), (in_blocks, False, True)],
)
def test_nested_nets_compile_as_many_programs(make, flat, other):
    """Entering a nested net is no program of its own, but for a split of the key; the sample is
    taken through its layers once.
    """
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

    def programs(model):
        jax.clear_caches()
        with compiled() as found:
            ns.feature_map(model, x, ns.Nystroem(4), key=jax.random.key(0))
        return found.count

    programs(make(flat))  # what happens once in a process
    assert programs(make(other)) <= programs(make(flat)) + 1
