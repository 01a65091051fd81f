"""The study of selection, at its smallest."""

import json
import math

import pytest

from experiments import selection
from experiments.selection import __main__ as study

assert selection


@pytest.mark.slow
def test_the_smallest_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)
    record = study.run(study.Settings(("protein",), rows=160, width=48, out=tmp_path))
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["results"] == record["results"]
    (result,) = record["results"].values()
    assert result["landmarks"] == 48
    assert result["train"] == 160
    for estimate in study.ESTIMATES:
        assert result[estimate]["regret"] >= 1
        assert math.isfinite(result[estimate]["ratio"])
    assert result["loo, others"]["ratio"] < result["loo, all"]["ratio"]
    assert study.table(record["results"]) in capsys.readouterr().out
