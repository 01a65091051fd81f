"""The benchmarks, each with its smallest setting."""

import json

import pytest

from benchmarks import cold_start, depth, prediction


def written(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_depth(tmp_path, capsys):
    record = depth.run(["RandomFeatures"], [2], tmp_path)
    assert written(tmp_path, "depth") == record
    found = record["results"]["RandomFeatures"]["2"]
    assert all(found[step] > 0 for step in depth.STEPS)
    assert found["seconds"] == pytest.approx(sum(found[step] for step in depth.STEPS))
    assert "2: " in capsys.readouterr().out


def test_prediction(tmp_path, capsys):
    record = prediction.run(8, 3, tmp_path)
    assert written(tmp_path, "prediction") == record
    printed = capsys.readouterr().out
    for method in prediction.METHODS:
        for rows in prediction.ROWS:
            low, middle, high = record["results"][method][str(rows)]["milliseconds (quartiles)"]
            assert 0 < low <= middle <= high
            assert f"{method:16} {rows:>4} examples: {middle:.2f} ms" in printed


def test_cold_start(tmp_path, monkeypatch):
    """Both checkouts in turn; what is timed is README's own code."""
    calls = []

    def timed(checkout):
        calls.append(checkout)
        return [2.0, 3.0] if checkout == cold_start.ROOT else [4.0, 5.0]

    monkeypatch.setattr(cold_start, "seconds", timed)
    record = cold_start.run(tmp_path, 2, tmp_path)
    assert calls == [cold_start.ROOT, tmp_path] * 2
    assert written(tmp_path, "cold_start")["results"]["ratio"]["median"] == 0.5
    assert record["results"]["other"]["median"] == 4.0
    code = cold_start._TIMED.format(code=cold_start.example())
    compile(code, "cold start", "exec")
    assert "ns.ridge" in code
