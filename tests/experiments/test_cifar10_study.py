"""The study of the patch net, at its smallest."""

import dataclasses
import json

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
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in variants)


def test_an_unknown_variant_ends_at_once(capsys):
    assert study.main(["--variants", "bigger"]) == 2
    assert "'bigger'" in capsys.readouterr().err


def test_the_table_compares_equal_keys():
    def of(keys):
        accuracy = {"mean": sum(keys) / 2, "std": 0.1, "keys": keys}
        return {"accuracy": accuracy, "features": 9, "seconds": [1.0, 2.0]}

    rows = study.table({"base": of([0.1, 0.3]), "other": of([0.2, 0.5])}).splitlines()
    assert rows[2].split(" | ")[2] == "+0.0"
    assert rows[3].split(" | ")[2] == "+15.0"
