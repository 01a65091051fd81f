"""Loaded objects equal the saved ones, in this process and in another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import saved_parts
from marks import others_slow
from saved_parts import METHODS, dense_map, image_map, inputs, rows
from small_map import SmallMap

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.numerics._precision import float64
from ntk_sketch.solvers import GramState, accumulate, solve

TESTS = Path(__file__).parents[1]
SAVING = "import sys, saved_parts; saved_parts.save_all(*sys.argv[1:])"
ANSWERING = "import sys, saved_parts; saved_parts.answer_all(*sys.argv[1:])"


def saved_and_loaded(value, folder):
    value.save(folder / "saved.safetensors")
    return ns.load(folder / "saved.safetensors")


def same(a, b):
    """Equal in structure, static fields, kinds of arrays and every bit."""
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    kinds = [isinstance(leaf, jax.Array) for leaf in leaves]
    assert kinds == [isinstance(leaf, jax.Array) for leaf in others]
    return bool(eqx.tree_equal(a, b))


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [
        pytest.param("image_maps", "float32", marks=pytest.mark.slow),
        pytest.param("dense_maps", "float32", marks=pytest.mark.slow),
        pytest.param("dense_maps", "float64", marks=pytest.mark.slow),
        ("solutions", "float32"),
        pytest.param("solutions", "float64", marks=pytest.mark.slow),
    ],
)
def test_answers_of_a_fresh_process_are_the_same_bit_for_bit(kinds, dtype, tmp_path):
    environment = dict(os.environ, JAX_ENABLE_X64=str(dtype == "float64"))
    environment["PYTHONPATH"] = f"{TESTS}{os.pathsep}{TESTS.parent}"
    for code, *arguments in ((SAVING, kinds, dtype), (ANSWERING,)):
        command = [sys.executable, "-c", code, tmp_path, *arguments]
        subprocess.run(command, env=environment, check=True)
    files = sorted(tmp_path.glob("*.expected.npz"))
    assert len(files) == {"image_maps": 9, "dense_maps": 2, "solutions": 5}[kinds]
    for path in files:
        name = path.name.removesuffix(".expected.npz")
        expected, found = np.load(path), np.load(tmp_path / f"{name}.found.npz")
        assert set(found) == set(expected), name
        for key, array in expected.items():
            assert found[key].dtype == array.dtype, (name, key)
            assert array.dtype in (dtype, bool) or key == "scores", (name, key)
            np.testing.assert_array_equal(found[key], array, err_msg=f"{name} {key}")


@pytest.mark.parametrize("name", others_slow(METHODS, "nystroem"))
def test_maps(name, tmp_path):
    feature_map = image_map(METHODS[name])
    loaded = saved_and_loaded(feature_map, tmp_path)
    assert type(loaded) is ns.FeatureMap
    assert same(loaded, feature_map)
    assert loaded.fingerprint == feature_map.fingerprint
    x = saved_parts.images()
    exact = feature_map.exact_kernel_fn(x, None, "ntk")
    np.testing.assert_array_equal(loaded.exact_kernel_fn(x, None, "ntk"), exact)


def test_functions_and_numbers_of_users(tmp_path):
    feature_map = image_map(METHODS["random"], preprocess=saved_parts.scaling())
    loaded = saved_and_loaded(
        feature_map.averaged([ns.maps.mirrored, saved_parts.turned]), tmp_path
    )
    assert loaded.views.transforms == (ns.maps.mirrored, saved_parts.turned)
    found, expected = loaded.views.preprocess, feature_map.views.preprocess
    assert jnp.array_equal(jax.random.key_data(found.key), jax.random.key_data(expected.key))
    assert found.key.dtype == expected.key.dtype
    for name in ("scale", "shift", "factor", "half"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert isinstance(ours, jax.Array) == isinstance(theirs, jax.Array), name
        assert isinstance(ours, np.generic) == isinstance(theirs, np.generic), name
        assert ours.dtype == theirs.dtype, name
        assert ours.shape == theirs.shape, name
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes(), name


def test_solutions(tmp_path):
    for name, solution, _ in saved_parts.solutions(np.float32):
        loaded = saved_and_loaded(solution, tmp_path)
        assert type(loaded) is ns.RidgeSolution
        assert same(loaded, solution), name
        assert (loaded.diag_reg, loaded.fits) == (solution.diag_reg, solution.fits), name


@pytest.mark.parametrize("dtype", others_slow(["float32", "float64"], "float32"))
def test_statistics(dtype, tmp_path):
    """They merge as what was not saved does, to the last bit, and with no other map's."""
    with float64() if dtype == "float64" else jax.numpy_dtype_promotion("strict"):
        feature_map, x, y = dense_map(dtype=dtype), rows(dtype), inputs(40, 2, dtype=dtype, seed=1)
        first, second = accumulate(feature_map, x[:7], y[:7]), accumulate(feature_map, x[7:], y[7:])
        loaded = saved_and_loaded(first, tmp_path)
        assert type(loaded) is GramState
        assert loaded.gram.high.dtype == dtype
        assert same(loaded, first)
        assert same(loaded.merge(second), first.merge(second))
        fitted = solve(feature_map, loaded.merge(second), diag_reg=0.1)
        np.testing.assert_array_equal(
            fitted.weights, solve(feature_map, first.merge(second), diag_reg=0.1).weights
        )
        other = accumulate(dense_map(METHODS["random"], dtype), x, y)
        if other.cross.high.shape != loaded.cross.high.shape:
            other = accumulate(dense_map(ns.Nystroem(4, residual=0.25), dtype), x, y)
        with pytest.raises(ValueError, match="feature maps differ in the method"):
            loaded.merge(other)


def test_statistics_without_a_map(tmp_path):
    state = GramState.init(3, None).update(np.eye(4, 3, dtype=np.float32), np.ones(4, np.float32))
    loaded = saved_and_loaded(state, tmp_path)
    assert same(loaded, state)
    assert loaded.one_output


def test_a_saved_map_takes_saved_statistics(tmp_path):
    feature_map = dense_map()
    state = saved_and_loaded(accumulate(feature_map, rows(), inputs(40, 2, seed=1)), tmp_path)
    solve(saved_and_loaded(feature_map, tmp_path), state)


# ------------------------------------------------------------------ what the file holds


def test_what_other_programs_find(tmp_path):
    """Any reader of safetensors has the arrays, and of JSON the rest."""
    feature_map = dense_map()
    feature_map.save(tmp_path / "map")
    with safetensors.safe_open(tmp_path / "map", framework="np") as tensors:
        about = json.loads(tensors.metadata()["ntk_sketch"])
        arrays = [tensors.get_tensor(str(i)) for i in range(len(tensors.keys()))]
    assert about["kind"] == "FeatureMap"
    assert about["version"] == 1
    assert about["ntk_sketch"] == ns.__version__
    assert about["jax"] == jax.__version__
    assert about["fingerprint"] == str(feature_map.fingerprint)
    assert about["specification"] == json.loads(json.dumps(feature_map.specification))
    for found, array in zip(arrays, feature_map.arrays, strict=True):
        np.testing.assert_array_equal(found, array)


def test_the_same_object_makes_the_same_file(tmp_path):
    for name in "ab":
        dense_map().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_classes_have_their_public_names(tmp_path):
    """A file outlives the private modules of a version."""
    dense_map().save(tmp_path / "map")
    content = (tmp_path / "map").read_bytes()
    for name in ("ntk_sketch:FeatureMap", "ntk_sketch:Nystroem", "ntk_sketch.stax:Dense"):
        assert name.encode() in content


# ------------------------------------------------------------------ refusals


def test_what_cannot_be_imported_again_is_named_when_saving(tmp_path):
    def local(x):
        return 2 * x

    for function in (local, lambda x: 2 * x):
        refused = dense_map(preprocess=function)
        with pytest.raises(TypeError, match=rf"{function.__name__}.*cannot be imported"):
            refused.save(tmp_path / "map")
    with pytest.raises(TypeError, match=r"<lambda>.*cannot be imported"):
        image_map(METHODS["random"]).averaged(lambda x: x[:, ::-1]).save(tmp_path / "map")
    layer = stax.ElementwiseNumerical(lambda x: x, 25)
    net = stax.serial(stax.Dense(4), layer, stax.Dense(1))
    in_layer = ns.feature_map(net, rows(), METHODS["random"], key=saved_parts.KEY)
    for refused in (in_layer, ns.ridge(in_layer, rows(), rows())):
        with pytest.raises(TypeError, match="cannot be imported") as error:
            refused.save(tmp_path / "map")
        assert any("ElementwiseNumerical" in note for note in error.value.__notes__)
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_no_module_names_the_remedy(tmp_path):
    class Scaler:
        def __call__(self, x):
            return x

    with pytest.raises(TypeError, match=r"Scaler.*equinox\.Module"):
        dense_map(preprocess=Scaler()).save(tmp_path / "map")


def test_a_function_of_the_running_script_is_warned_about(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_parts.turned, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "turned", saved_parts.turned, raising=False)
    both = image_map(METHODS["random"]).averaged(saved_parts.turned)
    with pytest.warns(RuntimeWarning, match="turned is defined in the script") as warned:
        both.save(tmp_path / "map")
    assert warned[0].filename == __file__


def test_a_map_of_a_user_is_refused_with_what_to_do(tmp_path):
    x = rows()
    solution = ns.ridge(SmallMap(np.ones((4, 3), np.float32)), x, x)
    with pytest.raises(TypeError, match=r"SmallMap.*preprocess=.*solution\.weights"):
        solution.save(tmp_path / "solution")
    assert list(tmp_path.iterdir()) == []


def test_saving_under_jit_is_refused(tmp_path):
    save = eqx.filter_jit(lambda feature_map: feature_map.save(tmp_path / "map"))
    with pytest.raises(TypeError, match="outside of functions under jit"):
        save(dense_map(METHODS["random"]))
