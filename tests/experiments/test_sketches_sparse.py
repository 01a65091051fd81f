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


def test_the_readme_shows_both_records():
    """Every row of its table: sizes, times, their ratio, and errors where there are some."""
    readme = (FOLDER / "README.md").read_text()
    results = {}
    for kind in ("speed", "sparse"):
        (path,) = (FOLDER / "results").glob(f"{kind}-*.json")
        assert path.name in readme
        results[kind] = json.loads(path.read_text())["results"]

    def shown(sizes: str, ours: float, other: float, digits: int, errors: str) -> None:
        times = f"{1e3 * ours:.{digits}f} | {1e3 * other:.{digits}f} | {other / ours:.1f}"
        assert f"| {sizes} | {times} | {errors} |" in readme

    found = results["speed"]["srht"]
    medians = [found[name]["median_s"] for name in ("SRHT", "GaussianSketch")]
    shown("d = 16,384, m = 1,024, batch 1,024", *medians, 1, "- | -")
    for row in results["speed"]["fourier"]:
        both = row["PolynomialSketch"], row["Fourier"]
        errors = " | ".join(f"{of['error'][15]:.3f}" for of in both)
        sizes = f"d = {row['dimension']:,}, m = {row['width']}, l = 16"
        shown(sizes, both[0]["median_s"], both[1]["median_s"], 1, errors)
    for row in results["sparse"]["sparse"]:
        if row["width"] == 512:
            power = "" if row["degree"] == 1 else f", l = {row['degree']}"
            times = row["median_s"]["csr"], row["median_s"]["dense"]
            shown(f"d = 20,000, 1 %, m = 512{power}", *times, 2, "- | -")
    for d, degree in ((50, 2), (784, 2), (784, 4), (4000, 2)):
        about = {"dimension": d, "width": 1024, "degree": degree}
        (row,) = (row for row in results["sparse"]["sklearn"] if about.items() <= row.items())
        both = row["TensorSketch"], row["PolynomialCountSketch"]
        errors = " | ".join(f"{of['error']:.4f}±{of['standard_error']:.4f}" for of in both)
        sizes = f"d = {d:,}, m = 1,024, l = {degree}"
        shown(sizes, both[0]["median_s"], both[1]["median_s"], 1, errors)
