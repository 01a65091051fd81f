"""Peak memory counted by hand."""

import equinox as eqx
import jax
import pytest
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.numerics._memory import peak_bytes

VECTOR = jax.ShapeDtypeStruct((1000,), jnp.float32)


def test_only_what_is_alive_counts():
    """Each of ten arrays dies as the next is made: two at a time."""

    def chain(x):
        for _ in range(10):
            x = jnp.sin(x)
        return x

    assert peak_bytes(chain, VECTOR) == 2 * 4000


def test_arrays_kept_to_the_end_add_up():
    def fan(x):
        return jnp.sin(x) + jnp.cos(x) * jnp.exp(x)

    # sin, cos and exp are alive together with the product of the last two.
    assert peak_bytes(fan, VECTOR) == 4 * 4000


def test_inside_of_jit_counts():
    inner = jax.jit(lambda x: jnp.sum(x[:, None] * x[None, :]))
    assert peak_bytes(lambda x: inner(x), VECTOR) == pytest.approx(4e6, rel=0.01)


def test_batch_size_follows_the_budget():
    model = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1))
    shape = jax.ShapeDtypeStruct((1, 8), jnp.float32)
    feature_map = ns.feature_map(model, shape, ns.RandomFeatures(256), key=jax.random.key(0))
    sizes = [feature_map.batch_size(budget) for budget in (1, 2**16, 2**18, 2**40)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[1] * 4 == sizes[2]
    assert sizes[3] == 4096
    assert 1 <= feature_map.batch_size() <= 4096


def test_batch_size_counts_examples_where_the_map_is_larger():
    """A second layer has arrays much larger than one example, and takes no more memory for each."""
    shape, key = jax.ShapeDtypeStruct((1, 8), jnp.float32), jax.random.key(0)
    layers = [stax.Dense(4), stax.Relu()]
    budget, width = 2**22, 256
    shallow, deep = (
        ns.feature_map(
            stax.serial(*layers * n, stax.Dense(1)), shape, ns.RandomFeatures(width), key=key
        )
        for n in (1, 2)
    )
    assert deep.batch_size(budget) == shallow.batch_size(budget) < 4096


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the default of a CPU")
def test_default_batch_size_grows_with_the_map():
    shape, key = jax.ShapeDtypeStruct((1, 8), jnp.float32), jax.random.key(0)
    model = stax.serial(*[stax.Dense(4), stax.Relu()] * 2, stax.Dense(1))
    for width, budget in ((64, 2**24), (1024, None), (2048, 2**27)):
        method = ns.RandomFeatures(width, orthogonal=False)
        feature_map = ns.feature_map(model, shape, method, key=key)
        arrays = sum(a.nbytes for a in jax.tree.leaves(feature_map) if eqx.is_array(a))
        assert (budget is None) == (2**24 < 4 * arrays < 2**27)
        assert feature_map.batch_size() == feature_map.batch_size(budget or 4 * arrays)


def test_an_output_that_nobody_reads_dies_at_once():
    """`top_k` gives values and positions, 4,000 bytes each; of two in a row the first's positions
    are gone before the second begins.
    """

    def twice(x):
        return jax.lax.top_k(jax.lax.top_k(x, 1000)[0], 1000)[0]

    assert peak_bytes(twice, VECTOR) == 3 * 4000
