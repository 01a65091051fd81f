"""Which images to label, at its smallest."""

import json

import numpy as np
import pytest

from experiments.cifar10 import labels


@pytest.mark.slow
def test_the_digits_end_to_end(tmp_path):
    words = "--digits --labels 40 --pool 200 --test 100 --width 8 --keys 2"
    assert labels.main(f"{words} --out {tmp_path}".split()) == 0
    (path,) = tmp_path.glob("digits-labels40of200-width8.json")
    results = json.loads(path.read_text())["results"]
    assert list(results) == list(labels.CHOICES)
    for name, found in results.items():
        assert len(found["keys"]) == (1 if name in labels.ONCE else 2)
        assert found["mean"] == np.mean(found["keys"]) > 0.5  # 0.1 by guessing


@pytest.mark.parametrize("name", labels.CHOICES)
def test_choices(name):
    """So many different items; of copies, diverse choices take one each."""
    z = np.repeat(np.random.default_rng(0).normal(size=(6, 8)), [1, 1, 1, 1, 1, 20], axis=0)
    chosen = labels.CHOICES[name](z, 6, labels.jax.random.key(0))
    assert len(set(chosen.tolist())) == 6
    assert (len({min(i, 5) for i in chosen.tolist()}) == 6) == (name != "random")


def test_more_labels_than_images(capsys):
    assert labels.main(["--digits", "--labels", "200", "--pool", "200"]) == 2
    assert "--labels 200: " in capsys.readouterr().err
