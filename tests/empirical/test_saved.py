"""Maps of finite networks in files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saved_parts import finite, inputs

import ntk_sketch as ns
from ntk_sketch.empirical import EmpiricalFeatureMap, empirical_feature_map


def made(mode, apply_fn=finite):
    first, last = (jnp.asarray(inputs(*shape)) for shape in ((3, 5), (5, 2)))
    params, shift = {"first": first, "last": [last]}, jnp.asarray(inputs(5, seed=1))
    how = {"key": jax.random.key(0), "x": inputs(4, 3), "mode": mode, "shift": shift}
    return empirical_feature_map(apply_fn, params, 8, squash=True, **how)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_what_is_loaded_is_what_was_saved(tmp_path, mode):
    feature_map, x = made(mode), inputs(30, 3)
    feature_map.save(tmp_path / "map.safetensors")
    loaded = ns.load(tmp_path / "map.safetensors")
    assert type(loaded) is EmpiricalFeatureMap
    assert eqx.tree_equal(loaded, feature_map)
    assert loaded.fingerprint == feature_map.fingerprint
    assert loaded.network.kwargs["squash"] is True
    np.testing.assert_array_equal(loaded(x).ntk, feature_map(x).ntk)
    solution = ns.ridge(feature_map, x, np.sin(x), diag_reg=0.1)
    solution.save(tmp_path / "solution.safetensors")
    loaded = ns.load(tmp_path / "solution.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), solution.predict(x))


def test_a_function_that_nobody_can_import_is_refused(tmp_path):
    feature_map = made("forward", lambda params, x, **kwargs: finite(params, x, **kwargs))
    with pytest.raises(TypeError, match="Define it at the top level of a module"):
        feature_map.save(tmp_path / "map.safetensors")
    assert not list(tmp_path.iterdir())
