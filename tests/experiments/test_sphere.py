"""The comparison on the sphere, at its smallest."""

import json

import pytest

from experiments.kernel_approximation import sphere


@pytest.mark.slow
def test_the_smallest_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sphere, "HIDDEN", (1,))
    monkeypatch.setattr(sphere, "COMPARED", ("Gegenbauer-network", "RandomFeatures"))
    words = f"--dimension 4 --points 30 --widths 64 16 --seeds 2 --out {tmp_path}"
    assert sphere.main(words.split()) == 0
    (path,) = tmp_path.glob("*.json")
    rows = json.loads(path.read_text())["results"]
    assert [(row["method"], row["width"]) for row in rows] == [
        (method, width) for method in sphere.COMPARED for width in (16, 64)
    ]
    errors = {(row["method"], row["width"]): row["mean"] for row in rows}
    assert rows[0]["mean"] == pytest.approx(sum(rows[0]["keys"]) / 2)
    assert errors["Gegenbauer-network", 64] < errors["RandomFeatures", 64]
    assert rows[1]["n_features"] <= 64
    assert rows[3]["n_features"] == 128
    assert sphere.table(rows) in capsys.readouterr().out
