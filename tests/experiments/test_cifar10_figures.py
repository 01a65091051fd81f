"""Figures and records of the CIFAR-10 job."""

import json
import sys

import numpy as np
import pytest

from experiments._common._phases import Phases
from experiments._common._record import command_line, environment, write_record
from experiments.cifar10._figures import accuracy_figure, confident_mistakes, mistakes_figure


def test_confident_mistakes_are_sorted_by_their_lead():
    outputs = np.array([[3.0, 0, 1], [0, 2, 1], [5, 4, 0], [0, 0, 9], [1, 0, 0]])
    labels = np.array([1, 1, 2, 0, 0])
    order, lead = confident_mistakes(outputs, labels, 2)
    assert order.tolist() == [3, 2]
    assert lead.tolist() == [9, 5]
    order, _ = confident_mistakes(outputs, labels, 10)
    assert order.tolist() == [3, 2, 0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wrong", [0, 5, 40])
def test_mistakes_figure(tmp_path, channels, wrong):
    labels = np.zeros(40, int)
    outputs = np.zeros((40, 10))
    outputs[np.arange(40), np.where(np.arange(40) < wrong, 1, 0)] = 1
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8, channels), np.uint8)
    path = tmp_path / "new" / "mistakes.png"
    classes = tuple("abcdefghij")
    mistakes_figure(path, images, outputs, labels, classes, "t")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("diag_reg", [[1e-3, 1e-2, 0.1], [0.0, 1e-3], [0.0]])
def test_accuracy_figure(tmp_path, diag_reg):
    path = tmp_path / "accuracy.png"
    of = {"diag_reg": diag_reg, "score": [None, 0.2, 0.1][: len(diag_reg)]}
    of["test_accuracy"] = np.linspace(0.3, 0.4, len(diag_reg)).tolist()
    accuracy_figure(path, {"diag_reg": diag_reg[-1], "path": of}, "gcv", "t")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_record_holds_the_settings_of_jax(monkeypatch):
    """Those that are given; without them its environment has no such entries."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_dump_to=/a/folder")
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    found = environment()
    assert found["XLA_FLAGS"] == "--xla_backend_optimization_level=0"
    assert "JAX_ENABLE_X64" not in found


def test_a_command_names_no_folders(monkeypatch):
    given = "job --data-dir /a/b --records /c/one.json /c/two.json --out /d --seed 3 x"
    monkeypatch.setattr(sys, "argv", given.split())
    expected = " --data-dir FOLDER --records one.json two.json --out FOLDER --seed 3 x"
    assert command_line().endswith(expected)


def test_a_record_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "record.json"
    write_record(path, {"environment": environment()})
    record = json.loads(path.read_text())
    assert record["environment"]["packages"]["jax"]
    for unfit in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_record(path, unfit)
    assert json.loads(path.read_text()) == record
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_phases_add_up_and_tell_peaks_apart():
    phases = Phases()
    with phases("large"):
        block = np.ones(2**24)  # 128 MiB
        del block
    with phases("small"):
        pass
    before = phases.seconds["small"]
    with pytest.raises(KeyError), phases("small"):
        {}["missing"]
    assert phases.seconds["small"] > before
    if phases.resets:
        assert phases.peak_rss["large"] - phases.peak_rss["small"] > 2**26
    record = phases.record()
    assert record["total_seconds"] == pytest.approx(sum(phases.seconds.values()), abs=1e-3)
    assert "small" in phases.table()
