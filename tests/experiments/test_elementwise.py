"""The comparison of low-rank factors of f(A Bᵀ), at its smallest."""

import json

import pytest

from experiments.cifar10.data import ENVIRONMENT_VARIABLE
from experiments.kernel_approximation import elementwise


def test_the_smallest_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(elementwise, "DEGREES", (1, 3))
    monkeypatch.setattr(elementwise, "WIDTHS", (16,))
    assert elementwise.main(f"--points 40 --seeds 2 --out {tmp_path}".split()) == 0
    (path,) = tmp_path.glob("*.json")
    assert path.with_suffix(".png").exists()
    rows = json.loads(path.read_text())["results"]
    assert [(row["function"], row["degree"]) for row in rows] == [
        (name, degree)
        for name in ("Gaussian kernel", "exp(2t)", "sigmoid(4t)", "max(t, 0)")
        for degree in (1, 3)
    ]
    for row in rows:
        assert ("Fourier features" in row) == (row["function"] == "Gaussian kernel")
        assert ("Taylor" in row) == (row["function"] in ("Gaussian kernel", "exp(2t)"))
        assert 0 < row["elementwise"]["mean"] < 1
    # Ten inputs: 1 + 10 monomials are exact, the sketch of the cubes is not.
    assert [row["rank"]["mean"] for row in rows[:2]] == [11, 43]
    assert rows[0]["elementwise"]["mean"] == pytest.approx(rows[0]["expected"]["mean"], rel=0.3)
    assert elementwise.table(rows) in capsys.readouterr().out


def test_missing_data_end_with_code_2(tmp_path, capsys):
    assert elementwise.main(["--data-dir", str(tmp_path)]) == 2
    assert "protein.npz" in capsys.readouterr().err
