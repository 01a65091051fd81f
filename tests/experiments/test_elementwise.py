"""The comparison of low-rank factors of f(A Bᵀ), at its smallest."""

import json

import numpy as np
import pytest

from experiments._common.data import ENVIRONMENT_VARIABLE
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
        if row["degree"] == 1:  # nothing is sketched: one polynomial is the best
            best = row["elementwise"]["mean"]
            assert row["upper bound"]["mean"] == pytest.approx(best, rel=1e-3)
    # Ten inputs: 1 + 10 monomials are exact, the sketch of the cubes is not.
    assert [row["rank"]["mean"] for row in rows[:2]] == [11, 43]
    assert rows[0]["elementwise"]["mean"] == pytest.approx(rows[0]["expected"]["mean"], rel=0.3)
    assert elementwise.table(rows) in capsys.readouterr().out


def test_missing_data_end_with_code_2(tmp_path, capsys):
    assert elementwise.main(["--data-dir", str(tmp_path)]) == 2
    assert "protein.npz" in capsys.readouterr().err


@pytest.mark.parametrize("width", [4, 8])
def test_the_published_objective_is_least(width):
    """Its value, by loops over the pairs of rows, at the coefficients and close to them."""
    rng = np.random.default_rng(0)
    x, scale, degree = rng.standard_normal((9, 3)), rng.uniform(0.5, 1, 9), 3
    case = elementwise.Case(np.exp, x, scale)
    found = elementwise.upper_bound_coefficients(case, degree, width)
    largest = max(np.linalg.norm(row) for row in x)
    sketched = [j for j, monomials in enumerate([1, 3, 6, 10]) if monomials > width]

    def objective(c):
        total = 0.0
        for a, s_a in zip(x, scale, strict=True):
            for b, s_b in zip(x, scale, strict=True):
                t, weight = a @ b / largest**2, s_a**2 * s_b**2
                total += weight * (np.exp(a @ b) - sum(c[j] * t**j for j in range(4))) ** 2
                norms = (a @ a) * (b @ b) / largest**4
                for j in sketched:
                    total += weight * len(sketched) * (2 + 3**j) / width * norms**j * c[j] ** 2
        return total

    least = objective(found)
    for j in range(degree + 1):
        for step in (-1e-3, 1e-3):
            assert objective(found + step * (np.arange(degree + 1) == j)) > least
