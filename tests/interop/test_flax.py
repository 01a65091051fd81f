"""Feature maps as modules of Flax."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax")
from flax import linen, nnx

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.interop.flax import FeatureModule

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def loose():
    """Flax adds axes and mixes dtypes as it pleases."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def feature_map(x):
    model = stax.serial(stax.Dense(1, 1.3, 0.2), stax.Erf(), stax.Dense(1))
    return ns.feature_map(model, x, ns.Nystroem(6), key=KEY)


@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_features_are_those_of_the_map(feature_map, x, get):
    expected = getattr(feature_map(x), get)
    for trainable in (False, True):
        module = FeatureModule(feature_map, get, trainable=trainable)
        np.testing.assert_array_equal(module(x), expected)
        np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(module, x), expected, rtol=1e-5)
        again = map(np.asarray, jax.tree.leaves(module.feature_map))
        for one, other in zip(again, jax.tree.leaves(feature_map), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-7)  # numbers of NumPy become JAX's
    with pytest.raises(ValueError, match="get"):
        FeatureModule(feature_map, "both")


def test_frozen_unless_asked(feature_map):
    frozen, trained = FeatureModule(feature_map), FeatureModule(feature_map, trainable=True)
    arrays = [leaf for leaf in jax.tree.leaves(feature_map) if eqx.is_inexact_array(leaf)]
    assert not jax.tree.leaves(nnx.state(frozen, nnx.Param))
    assert len(jax.tree.leaves(nnx.state(trained, nnx.Param))) == len(arrays) > 2


def test_gradients_are_those_of_the_map(feature_map, x):
    def loss(z):
        return jnp.sum(jnp.sin(z))

    found = nnx.grad(lambda module: loss(module(x)))(FeatureModule(feature_map, trainable=True))
    expected = eqx.filter_grad(lambda feature_map: loss(feature_map(x).ntk))(feature_map)
    found = [np.asarray(leaf) for leaf in jax.tree.leaves(found)]
    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(expected, eqx.is_array))]
    assert any(np.any(leaf) for leaf in expected)
    order = [leaf.shape for leaf in expected]
    assert sorted(order) == sorted(leaf.shape for leaf in found)
    total, other = (sum(np.sum(np.abs(leaf)) for leaf in leaves) for leaves in (found, expected))
    np.testing.assert_allclose(total, other, rtol=1e-4)


def test_a_state_goes_to_another_module(feature_map, x):
    """As a checkpoint does it: arrays of one map in a module that was made of another."""
    model = stax.serial(stax.Dense(1, 1.3, 0.2), stax.Erf(), stax.Dense(1))
    other = ns.feature_map(model, x, ns.Nystroem(6), key=jax.random.key(1))
    module = FeatureModule(other)
    assert np.any(np.asarray(module(x)) != np.asarray(feature_map(x).ntk))
    nnx.update(module, nnx.state(FeatureModule(feature_map)))
    np.testing.assert_array_equal(module(x), feature_map(x).ntk)


def test_linen(feature_map, x):
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            z = nnx.bridge.to_linen(FeatureModule, feature_map)(x)
            return linen.Dense(2)(z)

    variables = Net().init(KEY, x)
    assert Net().apply(variables, x).shape == (12, 2)
    assert set(variables["params"]) == {"Dense_0"}  # features are frozen
