"""Finite networks beside features, at their smallest."""

import json
import time

import jax
import numpy as np
import pytest

pytest.importorskip("flax")

from experiments.cifar10 import baselines, figure
from experiments.cifar10._nets import NETS
from experiments.cifar10._training import augmented, one_cycle


@pytest.fixture(autouse=True)
def loose():
    """Flax and optax add axes and mix dtypes as they please."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize(
    ("words", "accuracy"),
    [
        ("--steps 60", 0.5),
        ("--seconds 0.1", 0.0),
        pytest.param("--empirical 64", 0.3, marks=pytest.mark.slow),
    ],
)
def test_the_digits_end_to_end(tmp_path, words, accuracy):
    size = "--digits --train 300 --test 100 --nets patches --width 8 --batch-size 50 --seed 1"
    start = time.perf_counter()
    assert baselines.main(f"{size} {words} --out {tmp_path}".split()) == 0
    took = time.perf_counter() - start
    (path,) = tmp_path.glob("digits-finite-*.json")
    record = json.loads(path.read_text())
    assert record["results"]["accuracy"] >= accuracy  # 0.1 by guessing
    assert (record["resolved"]["train"], record["resolved"]["test"]) == (300, 100)
    assert record["phases"]["total_seconds"] <= took
    epochs = {"--steps 60": 10, "--seconds 0.1": 1 / 6}
    assert record["results"].get("epochs") == epochs.get(words)


@pytest.mark.parametrize("name", NETS)
def test_nets_take_images_of_both_sizes(name):
    for shape in ((32, 32, 3), (8, 8, 1)):
        model = NETS[name].made(shape, 8, 10, 0)
        model.eval()
        assert jax.eval_shape(model, np.zeros((2, *shape), np.float32)).shape == (2, 10)
    widths = [NETS[name].width(seconds) for seconds in (1, 60, 300, 1e4)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_augmented_images():
    """Against loops over images and pixels."""
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 2)).astype(np.float32)
    flip = np.array([True, False, True, False])
    starts = np.array([[0, 0], [2, 2], [4, 1], [3, 0]], np.int32)
    found = np.asarray(augmented(images, flip, starts))
    for number in range(4):
        for row in range(16):
            for column in range(16):
                i, j = (start - 2 for start in starts[number])  # a border of 16 / 8
                i, j = (
                    p if 0 <= p < 16 else (-p if p < 0 else 30 - p) for p in (row + i, column + j)
                )
                j = 15 - j if flip[number] else j
                np.testing.assert_array_equal(found[number, row, column], images[number, i, j])


def test_the_learning_rate_has_one_cycle():
    rates = [one_cycle(share) for share in np.linspace(0, 1, 11)]
    assert rates[0] == rates[-1] == 0
    assert rates[2] == max(rates) == 1


def test_finite_networks_are_in_the_figure(tmp_path):
    record = {
        "resolved": {"train": 50_000, "test": 10_000, "width": [16], "what": "trained resnet"},
        "settings": {"nets": ["resnet"]},
        "environment": {"device": "cpu"},
        "phases": {"total_seconds": 60.0},
        "results": {"accuracy": 0.5},
    }
    (tmp_path / "cifar10-finite-resnet16.json").write_text(json.dumps(record))
    found = figure.points(tmp_path)
    assert found == {"trained resnet, cpu": [(60.0, 0.5, "16")]}
    assert "| 60 | **0.5000** | trained resnet, cpu | 16 |" in figure.table(found)
