"""The measurement of sparse inputs and of scikit-learn's sketch, at its smallest."""

import json
from pathlib import Path

import pytest

from experiments.sketches import sparse

FOLDER = Path(sparse.__file__).parent
SMALLEST = (
    "--rows 5 --dimension 40 --percent 10 --degree 2 --widths 8 4 --dense-rows 6"
    " --dense-dimensions 4 --dense-degrees 2 --points 5 --seeds 2 --repetitions 1"
)


def test_the_smallest_run(tmp_path, capsys):
    assert sparse.main([*SMALLEST.split(), "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    assert path.with_suffix(".png").exists()
    results = json.loads(path.read_text())["results"]
    assert [(row["sketch"], row["width"]) for row in results["sparse"]] == [
        (name, width) for width in (4, 8) for name in ("CountSketch", "TensorSketch")
    ]
    for row in results["sparse"]:
        times = row["median_s"]
        assert row["csr_speedup"] == pytest.approx(times["dense"] / times["csr"])
    assert [row["width"] for row in results["sklearn"]] == [4, 8]
    for row in results["sklearn"]:
        for name in ("TensorSketch", "PolynomialCountSketch"):
            first, second = row[name]["errors"]
            assert 0 < first != second
            assert row[name]["error"] == pytest.approx((first + second) / 2)
            assert row[name]["standard_error"] == pytest.approx(abs(first - second) / 2)
    assert sparse.table(results) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"), [("--percent 101", "at most 100"), ("--seeds 1", "at least 2 needed")]
)
def test_settings_are_checked(words, message, capsys):
    with pytest.raises(SystemExit):
        sparse.main(words.split())
    assert message in capsys.readouterr().err


def test_the_readme_shows_the_record():
    readme = (FOLDER / "README.md").read_text()
    (path,) = (FOLDER / "results").glob("sparse-*.json")
    assert path.name in readme
    for part in sparse.table(json.loads(path.read_text())["results"]).split("\n\n"):
        assert part in readme
