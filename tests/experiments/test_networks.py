"""The comparison on fully connected nets, at its smallest, and its spectral measure."""

import json

import numpy as np
import pytest

from experiments._common.data import ENVIRONMENT_VARIABLE
from experiments.kernel_approximation import networks
from ntk_sketch.diagnostics import spectral_error


@pytest.fixture
def no_folder(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def test_no_kernel_of_a_rank_has_a_smaller_spectral_error():
    rng = np.random.default_rng(5)
    exact = np.diag([5.0, 2.0, 1.0, 0.5])
    penalty = 0.1 * 8.5 / 4
    for rank, left in enumerate([5.0, 2.0, 1.0, 0.5]):
        least = networks.least_spectral_error(np.diag(exact), rank, 0.1)
        assert least == pytest.approx(left / (left + penalty), rel=1e-12)
        close = np.where(np.arange(4) < rank, exact, 0)
        assert spectral_error(close, exact, 0.1) == pytest.approx(least, rel=1e-12)
        for _ in range(20):
            root = np.sqrt(exact) + 0.3 * rng.standard_normal((4, 4))
            close = root[:, :rank] @ root[:, :rank].T
            assert spectral_error(close, exact, 0.1) >= least * (1 - 1e-12)
    assert networks.least_spectral_error(np.diag(exact), 4, 0.1) == 0


def test_the_exact_kernels_of_one_hidden_layer():
    x = np.random.default_rng(4).standard_normal((4, 3)).astype(np.float32)
    x[3] = x[2] * (1 + 1e-6)
    found = networks.exact_kernels(networks.network(1), x)
    for i in range(4):
        for j in range(4):
            a, b = x[i].astype(np.float64), x[j].astype(np.float64)
            c, q, q_other = (2 * u @ v / 3 + 0.01 for u, v in ((a, b), (a, a), (b, b)))
            angle = np.arccos(min(c / np.sqrt(q * q_other), 1))
            dual = np.sqrt(q * q_other) * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
            nngp = 2 * dual / (2 * np.pi) + 0.01
            ntk = nngp + 2 * c * (np.pi - angle) / (2 * np.pi)
            assert found["nngp"][i, j] == pytest.approx(nngp, rel=1e-7)
            assert found["ntk"][i, j] == pytest.approx(ntk, rel=1e-7)


def test_inputs_are_standardised_and_apart(no_folder):
    x, sample, dataset = networks.inputs(networks.Settings(examples=100, sample=200))
    assert (len(x), len(sample), dataset) == (100, 200, "scikit-learn diabetes")
    assert not {row.tobytes() for row in x} & {row.tobytes() for row in sample}
    x, sample, _ = networks.inputs(networks.Settings())
    assert (len(x), len(sample)) == (221, 221)
    np.testing.assert_allclose(sample.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(sample.std(axis=0), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_smallest_setting(no_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "TIMED", 64)
    words = "--depths 1 --widths 24 8 --seeds 2 --examples 20 --sample 16 --repetitions 2"
    methods = "--methods nystroem TensorSRHT-recipe RandomFeatures"
    assert networks.main([*words.split(), *methods.split(), "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    assert path.stem == "networks-scikit-learn-diabetes-20examples-2keys"
    for measure in ("relative", "spectral"):
        drawn = path.with_name(f"{path.stem}-{measure}.png")
        assert drawn.stat().st_size > 10_000
    rows = json.loads(path.read_text())["results"]
    assert [(row["depth"], row["method"], row["width"]) for row in rows] == [
        (1, method, width)
        for method in ("Nystroem", "TensorSRHT-recipe", "RandomFeatures")
        for width in (8, 24)
    ]
    printed = capsys.readouterr().out
    for word in ("relative", "spectral"):
        assert f"figure: {path.with_name(path.stem)}-{word}.png" in printed
    for row in rows:
        assert len(row["microseconds_per_example_all"]) == 2
        first, second = row["errors"]["ntk"]["spectral"]["keys"]
        if row["method"] == "Nystroem" and row["width"] == 24:  # all 16 of the sample, whatever key
            assert row["n_features"] == {"nngp": 17, "ntk": 33}
            np.testing.assert_allclose(first, second, rtol=1e-3)
        else:
            assert first != second
        ntk = row["errors"]["ntk"]["relative"]["mean"]
        assert 0.001 < ntk < (3 if row["method"] == "TensorSRHT-recipe" else 1)
        assert f"| 1 | {row['method']} | {row['width']} |" in printed
    # The last layer's φ' and ψ', and the head's bias.
    assert rows[-1]["n_features"] == {"nngp": 25, "ntk": 49}


def test_nonsense_ends_with_code_2(tmp_path, capsys):
    assert networks.main(["--data-dir", str(tmp_path)]) == 2
    assert "protein.npz" in capsys.readouterr().err
    np.savez(tmp_path / "protein.npz", x=np.ones((3, 2)), y=np.ones(3))
    assert networks.main(["--data-dir", str(tmp_path)]) == 2
    assert "protein has 3 rows; needed: 4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        networks.main(["--examples", "1"])
    assert "at least 2 needed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        networks.main(["--methods", "Nope"])
    assert "unknown name 'Nope'; known: Nystroem" in capsys.readouterr().err
