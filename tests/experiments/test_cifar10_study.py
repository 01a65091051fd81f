"""The study of the patch net, at its smallest."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.cifar10 import study

SIZE = ["--train", "60", "--test", "30", "--seeds"]


@pytest.fixture
def small(monkeypatch):
    """Every variant with a few landmarks."""

    def of(variant):
        maps = (
            dataclasses.replace(m, widths=(4,) * len(m.widths), sample=16) for m in variant.maps
        )
        return dataclasses.replace(variant, maps=tuple(maps))

    small = {name: of(variant) for name, variant in study.VARIANTS.items()}
    monkeypatch.setattr(study, "VARIANTS", small)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "variants"),
    [
        pytest.param(2, {"32-512": 36, "grid 2x2": 16}, marks=pytest.mark.slow),
        (1, {"two 32-256 side by side": 72, "mean of two 32-512": 72}),
        pytest.param(
            1, {"mirror averaging": 36, "three layers 32-64-512": 36}, marks=pytest.mark.slow
        ),
        pytest.param(1, {"a pass of crops": 36, "two passes of crops": 36}, marks=pytest.mark.slow),
    ],
)
def test_a_record_with_every_key(small, images, tmp_path, capsys, keys, variants):
    words = [*SIZE, str(keys), "--data-dir", str(images), "--out", str(tmp_path)]
    words += ["--variants", *variants]
    assert study.main(words) == 0
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text())["results"]
    assert {name: result["features"] for name, result in results.items()} == variants
    for result in results.values():
        assert len(result["accuracy"]["keys"]) == keys
        # at least the products of the second nonlinearity, nine inputs of four channels each
        assert result["flops"] >= 2 * 36 * result["features"]
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in variants)


def test_an_unknown_variant_ends_at_once(capsys):
    assert study.main(["--variants", "bigger"]) == 2
    assert "'bigger'" in capsys.readouterr().err


def test_crops_are_windows_of_images_with_a_mirrored_border():
    x = np.random.default_rng(0).random((40, 16, 16, 3))
    found = study.shifted(x, np.random.default_rng(1))
    assert found.shape == x.shape
    rows = np.abs(np.arange(-2, 18))
    rows = np.where(rows > 15, 30 - rows, rows)
    starts = []
    for image, crop in zip(x, found, strict=True):
        whole = image[rows][:, rows]
        windows = [(i, j) for i in range(5) for j in range(5)]
        [start] = [
            at
            for at in windows
            if np.array_equal(whole[at[0] : at[0] + 16, at[1] : at[1] + 16], crop)
        ]
        starts.append(start)
    assert {i for i, _ in starts} == {j for _, j in starts} == set(range(5))


def test_the_table_compares_equal_keys():
    def of(keys):
        accuracy = {"mean": sum(keys) / 2, "std": 0.1, "keys": keys}
        return {"accuracy": accuracy, "features": 9, "flops": 3_000_000, "seconds": [1.0, 2.0]}

    rows = study.table({"base": of([0.1, 0.3]), "other": of([0.2, 0.5])}).splitlines()
    assert rows[2].split(" | ")[2] == "+0.0"
    assert rows[3].split(" | ")[2:] == ["+15.0", "9", "3", "1 + 2 |"]
