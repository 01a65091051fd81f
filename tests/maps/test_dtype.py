"""Maps made in float64, used where JAX has 32 bits."""

import jax
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.maps import mirrored
from ntk_sketch.numerics._precision import x64

METHODS = {
    "random": ns.RandomFeatures(16),
    "nystroem": ns.Nystroem(4),
    "poly sketch": ns.PolySketch(3, 16),
    "exact": ns.Exact(),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", others_slow(METHODS, "nystroem"))
@pytest.mark.parametrize("averaged", [False, True])
def test_the_same_features_in_32_bits_without_a_warning(name, averaged):
    x = np.random.default_rng(0).normal(size=(6, 4, 4, 1))
    layers = (stax.Conv(1, (3, 3), W_std=1.4), stax.Relu(), stax.Flatten(), stax.Dense(1))
    options = {"key": jax.random.key(1), "get": ("nngp", "ntk")}
    with x64(True):
        made = ns.feature_map(stax.serial(*layers), x, METHODS[name], **options)
        made = jax.tree.map(lambda a: np.asarray(a) if isinstance(a, jax.Array) else a, made)
        feature_map = made.averaged(mirrored) if averaged else made
        expected, widths = feature_map(x), feature_map.n_features
    assert expected.ntk.dtype == np.float64
    with x64(False):
        feature_map = made.averaged(mirrored) if averaged else made
        assert feature_map.n_features == widths
        assert feature_map.batch_size() >= 1
        for given in (x, x.astype(np.float32)):
            found = feature_map(given)
            assert found.ntk.dtype == np.float32
            np.testing.assert_allclose(found.nngp, expected.nngp, rtol=0, atol=1e-4)
            np.testing.assert_allclose(found.ntk, expected.ntk, rtol=0, atol=1e-4)
