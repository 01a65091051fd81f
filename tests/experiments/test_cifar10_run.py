"""The CIFAR-10 job from arguments to record and figures, at its smallest."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from experiments._common import data
from experiments._common._networks import (
    ACTIVATIONS,
    BLOCKS,
    activation,
    myrtle,
    network,
    patch_net,
)
from experiments._common._patches import fit_patches
from experiments._common.data._tfds import Unavailable
from experiments.cifar10 import RECIPES, _run
from experiments.cifar10 import __main__ as entry
from experiments.cifar10._settings import Settings
from ntk_sketch import stax

PHASES = {
    "reading",
    "preprocessing",
    "fitting the map",
    "regression",
    "predictions",
}


@pytest.fixture
def no_cifar10(monkeypatch):
    def unreachable(say):
        raise Unavailable("no network")

    found = functools.partial(data.find, environment={}, tfds=unreachable)
    monkeypatch.setattr(data, "find", found)


def record_of(folder):
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("arguments", "select"),
    [
        ("", "accuracy"),
        pytest.param("--recipe myrtle5", "gcv", marks=pytest.mark.slow),
        pytest.param("--rank 20 --select gcv", "gcv", marks=pytest.mark.slow),
    ],
)
def test_the_digits_end_to_end(no_cifar10, tmp_path, capsys, arguments, select):
    size = f"--train 400 --test 200 --width 32 --batch-size 50 --seed 1 --out {tmp_path} "
    assert entry.main((size + arguments).split()) == 0
    record = record_of(tmp_path)
    assert record["data"]["dataset"] == "digits"
    assert record["resolved"]["train"] == 400
    assert record["resolved"]["select"] == select
    assert record["settings"]["seed"] == 1
    assert record["environment"]["backend"] == jax.default_backend()
    results = record["results"]
    assert results["accuracy"] > 0.7  # chance: 0.1; five seeds gave 0.85 to 0.915
    path = results["path"]
    scores = np.array(path["score"], float)  # equal ones, of few digits, leave the largest value
    assert results["diag_reg"] == max(np.array(path["diag_reg"])[scores == np.nanmin(scores)])
    best = path["diag_reg"].index(results["diag_reg"])
    assert path["test_accuracy"][best] == results["accuracy"]
    assert set(record["phases"]["seconds"]) == PHASES
    assert set(record["phases"]["peak_rss_bytes"]) == PHASES
    assert len(list(tmp_path.glob("*.png"))) == 2
    printed = capsys.readouterr()
    assert f"test accuracy {results['accuracy']:.4f}" in printed.out
    assert f"chosen by {select} on" in printed.out
    assert "NO CIFAR-10: no network" in printed.err
    assert "examples/s" in printed.err


@pytest.mark.slow
def test_digits_by_name(tmp_path, monkeypatch, capsys):
    """The quick form of the job: asks for nothing that is not installed, wherever it runs."""
    monkeypatch.setattr(data, "find", None)
    size = f"--digits --train 100 --test 50 --width 8 --out {tmp_path}"
    assert entry.main(size.split()) == 0
    assert record_of(tmp_path)["data"]["dataset"] == "digits"
    assert "NO CIFAR-10" not in capsys.readouterr().err


def test_the_default_schedule_fits_small_images(no_cifar10):
    source = data.find(None)
    found = {
        name: _run._widths(Settings(recipe=name), {}, source, recipe.sizes["cpu"], flip=recipe.flip)
        for name, recipe in RECIPES.items()
    }
    assert found["myrtle5"] == (64, 64, 128, 256)  # 256 images of 2x2 positions, a quarter of them
    assert found["patches"] == (32, 256)
    assert len(found["myrtle7"]) == 6


@pytest.mark.slow
def test_flipped_digits_and_a_figure_that_fails(no_cifar10, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(_run, "accuracy_figure", broken)
    words = "--recipe myrtle5 --kernel nngp --flip --activation erf --b-std 0.1 "
    words += "--train 200 --test 200 --width 32"
    with pytest.raises(RuntimeError, match="no fonts"):
        entry.main([*words.split(), "--out", str(tmp_path)])
    record = record_of(tmp_path)
    assert record["resolved"]["kernel"] == "nngp"
    assert record["resolved"]["flip"]
    assert record["results"]["accuracy"] > 0.5


@pytest.mark.parametrize("select", others_slow(["validation", "loo", "accuracy"], "loo"))
def test_selection(no_cifar10, tmp_path, select):
    words = f"--select {select} --no-flip --train 200 --test 200 --width 16"
    assert entry.main([*words.split(), "--out", str(tmp_path)]) == 0
    record = record_of(tmp_path)
    assert record["settings"]["select"] == select
    assert not record["resolved"]["flip"]
    assert record["results"]["accuracy"] > 0.5


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_defaults_can_be_solved(backend):
    """A factor of p features takes 2 p³ / 3 FLOPs on the host for every value of `diag_reg`."""
    recipe, grid = RECIPES["patches"], Settings().grid
    p = grid**2 * recipe.sizes[backend].widths[-1]
    assert 2 / 3 * p**3 * len(recipe.diag_reg) <= 1e13


def test_patches_are_whitened():
    """Uncorrelated, of variance one but for the regulariser; constant images are patches too."""
    images = np.random.default_rng(0).normal(size=(50, 8, 8, 2)).astype(np.float32)
    images = images + np.roll(images, 1, axis=2) + np.float32([3, 5])
    whitened = fit_patches(images, reg=1e-6)
    patches = np.asarray(whitened(images)).reshape(-1, 18)
    values = np.linalg.eigvalsh(np.cov(patches.T))
    assert abs(values[0]) < 1e-3  # a patch lost its mean
    np.testing.assert_allclose(patches.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(values[1:], 1, atol=1e-3)
    assert np.isfinite(whitened(np.ones((2, 8, 8, 2), np.float32))).all()
    more = np.linalg.eigvalsh(
        np.cov(np.asarray(fit_patches(images, reg=1.0)(images)).reshape(-1, 18).T)
    )
    assert (more[1:] < 1).all()
    for size in (2, 9):
        with pytest.raises(ValueError, match=f"odd side.*got {size}"):
            fit_patches(images, size=size)


def test_the_patch_net_and_its_grid():
    """Features of the default recipe are the kernel, on few images with every position."""
    net = patch_net((8, 8, 4), grid=2)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    exact = net[2](x, None, "nngp")
    z = ns.feature_map(net, x, ns.Exact(), key=jax.random.key(0), get="nngp")(x).nngp
    np.testing.assert_allclose(z @ z.T, exact, rtol=1e-3)
    with pytest.raises(ValueError, match="a grid of 5x5 positions is finer than the 4x4"):
        patch_net((8, 8, 4), grid=5)


def test_more_images_than_there_are(no_cifar10, tmp_path, capsys):
    assert entry.main(f"--train 2000 --out {tmp_path}".split()) == 2
    assert "--train 2,000: the 8x8 digits of scikit-learn has 1,297" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_grid_finer_than_the_image(no_cifar10, tmp_path, capsys):
    assert entry.main(f"--grid 5 --out {tmp_path}".split()) == 2
    assert "a grid of 5x5 positions is finer than the 4x4" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_ends_with_code_2(tmp_path, capsys):
    assert entry.main(["--data-dir", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_the_command_ends_with_code_2_on_nonsense():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "experiments.cifar10", "--width", "0"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "at least 1 needed, got 0" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(data.ENVIRONMENT_VARIABLE not in os.environ, reason="needs CIFAR-10")
def test_a_few_real_images(tmp_path):
    size = "--train 300 --test 200 --width 16 --batch-size 10 --no-zca"
    assert entry.main([*size.split(), "--out", str(tmp_path)]) == 0
    record = record_of(tmp_path)
    assert record["data"]["dataset"] == "CIFAR-10"
    assert record["results"]["accuracy"] > 0.15  # chance: 0.1


@pytest.mark.parametrize("name", BLOCKS)
def test_myrtle_networks_have_their_layers(name):
    init_fn, _, kernel_fn = myrtle(name, (32, 32, 3), b_std=0.1)
    shape, params = init_fn(jax.random.key(0), (1, 32, 32, 3))
    assert shape == (1, 10)
    depth = int(name.removeprefix("myrtle"))
    assert len(jax.tree.leaves(params)) == 2 * depth  # weights and biases
    kernel = jax.eval_shape(kernel_fn, jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32))
    assert kernel.ntk.shape == (2, 2)


def test_myrtle5_is_the_published_network():
    layers = []
    for letter in "crcrpcrpcrp":  # two more p on 32x32 images
        layers.append(
            {
                "c": stax.Conv(1, (3, 3), W_std=2**0.5, padding="SAME"),
                "r": stax.Relu(),
                "p": stax.AvgPool((2, 2), strides=(2, 2)),
            }[letter]
        )
    expected = stax.serial(*layers, stax.Flatten(), stax.Dense(10, W_std=2**0.5))[2]
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    ours = myrtle("myrtle5", x.shape[1:])[2]
    for get in ("nngp", "ntk"):
        np.testing.assert_array_equal(ours(x, None, get), expected(x, None, get))


def test_wide_residual_network():
    """Convolutions: one, and three for each of three blocks with two nonlinearities."""
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    init_fn, _, kernel_fn = model = network("wideresnet10", x.shape[1:], b_std=0.1)
    shape, params = init_fn(jax.random.key(0), x.shape)
    assert shape == (2, 10)
    assert len(jax.tree.leaves(params)) == 2 * (1 + 3 * 3 + 1)
    assert model.rule.nonlinearities == 6
    assert jax.eval_shape(kernel_fn, x).ntk.shape == (2, 2)
    with pytest.raises(ValueError, match="divisible by four; got 30x30"):
        network("wideresnet10", (30, 30, 3))


@pytest.mark.parametrize("shape", [(28, 28, 1), (4, 4, 1), (16, 8, 1)])
def test_images_that_myrtle_networks_do_not_take(shape):
    with pytest.raises(ValueError, match="power of two, at least 8"):
        myrtle("myrtle5", shape)


@pytest.mark.parametrize("name", others_slow(ACTIVATIONS, "relu", "leakyrelu", "monomial"))
def test_every_nonlinearity_has_features(name):
    arguments = {"leakyrelu": ":0.1", "abrelu": ":-1,2", "polynomial": ":0,1,0.5"}
    arguments |= dict.fromkeys(("monomial", "rectifiedmonomial"), ":2")
    model = stax.serial(stax.Dense(1), activation(name + arguments.get(name, "")))
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    feature_map = ns.feature_map(model, x, ns.Nystroem(3), key=jax.random.key(0))
    assert np.isfinite(np.asarray(feature_map(x).ntk)).all()
    with pytest.raises(ValueError, match="known: abrelu, abs"):
        activation(name + "x")
