"""Accuracy against seconds, from records."""

import json

import pytest

from experiments.cifar10 import figure


def test_stored_records_are_drawn(tmp_path):
    path = tmp_path / "figure.png"
    found = figure.run(figure.Settings(out=path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert all(0.5 < accuracy < 1 < seconds for v in found.values() for seconds, accuracy, _ in v)
    assert any(series.startswith("patches") for series in found)


def test_records_of_a_part_of_the_images_stay_out(tmp_path):
    for number, train in enumerate((50_000, 15_000)):
        record = {
            "resolved": {"train": train, "test": 10_000, "width": [4, 8]},
            "settings": {"architecture": "myrtle5"},
            "environment": {"device": "cpu"},
            "phases": {"total_seconds": 3.0},
            "results": {"accuracy": 0.5},
        }
        (tmp_path / f"cifar10-{number}.json").write_text(json.dumps(record))
    assert figure.points(tmp_path) == {"myrtle5, cpu": [(3.0, 0.5, "4-8")]}


def test_no_record_ends_with_a_remedy(tmp_path, capsys):
    assert figure.main(["--records", str(tmp_path)]) == 2
    assert "python -m experiments.cifar10" in capsys.readouterr().err


@pytest.mark.parametrize("accuracy", figure.PUBLISHED.values())
def test_published_accuracies_are_shares(accuracy):
    assert 0 < accuracy < 1
