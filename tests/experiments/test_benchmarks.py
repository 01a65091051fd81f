"""The benchmarks, each with its smallest setting."""

import functools
import json

import numpy as np
import pytest

from benchmarks import (
    cached_features,
    cold_start,
    decompositions,
    depth,
    empirical,
    evidence,
    exact_time,
    first_prediction,
    layers,
    log_determinant,
    position_pairs,
    prediction,
    scaling,
    subset,
)
from benchmarks import rows as many_rows
from experiments._common import data
from experiments._common.data._tfds import Unavailable
from ntk_sketch import stax


@pytest.fixture
def no_cifar10(monkeypatch):
    def unreachable(say):
        raise Unavailable("no network")

    found = functools.partial(data.find, environment={}, tfds=unreachable)
    monkeypatch.setattr(data, "find", found)


def written(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.slow
def test_depth(tmp_path, capsys):
    record = depth.run(depth.Settings(("RandomFeatures",), (2,), tmp_path))
    assert written(tmp_path, "depth")["results"] == record["results"]
    found = record["results"]["RandomFeatures"]["2"]
    assert all(found[step] > 0 for step in depth.STEPS)
    assert found["seconds"] == pytest.approx(sum(found[step] for step in depth.STEPS))
    assert "2: " in capsys.readouterr().out


def test_decompositions(tmp_path, capsys):
    assert decompositions.main(f"--sizes 40 --repetitions 2 --out {tmp_path}".split()) == 0
    found = written(tmp_path, "decompositions")["results"]["40"]
    by = [f"{n} by {form}" for form in decompositions.FORMS for n in ("one regulariser",)]
    assert set(found) > {"root", *by}
    assert all(len(one["seconds"]) == 2 for one in found.values())
    one, other = (found[name] for name in by)
    assert one["condition"] == pytest.approx(other["condition"], rel=0.05)
    assert 0 < max(one["residual"], other["residual"]) < 1e-12
    median = np.median(found["root"]["seconds"])
    assert f"p =     40: root {median:37.2f} s" in capsys.readouterr().out


def test_networks_of_layers(capsys):
    """Every layer of the table has one."""
    assert list(layers.NETS) == list(stax.supported())
    assert set(layers.METHODS) == set(stax.supported()["Relu"])
    with pytest.raises(SystemExit, match="2"):
        layers.main(["--layers", "Rely"])
    assert "Relu" in capsys.readouterr().err


@pytest.mark.slow
def test_layers(tmp_path, capsys):
    """Every cell that is no "no" has a number."""
    name = "Elementwise (given kernels alone)"
    assert layers.main([*f"--width 8 --out {tmp_path} --layers".split(), name]) == 0
    found = written(tmp_path, "layers")["results"]
    assert found[name].pop("Exact") < 1e-5
    assert {method for method, error in found[name].items() if error is None} == {
        method for method, cell in stax.supported()[name].items() if cell.startswith("no")
    }
    assert all(0 < error < 1 for error in found[name].values() if error is not None)
    assert name in capsys.readouterr().out


def test_layers_go_on_where_they_were_interrupted(tmp_path, monkeypatch):
    asked, broken = [], "Relu"

    def error(layer, method, width, seeds):
        if layer == broken:
            raise KeyboardInterrupt
        asked.append(layer)
        return 0.5

    monkeypatch.setattr(layers, "error", error)
    words = f"--width 8 --out {tmp_path} --layers Dense Relu Erf".split()
    assert layers.main(words) == 130
    broken = None
    assert layers.main(words) == 0
    assert list(dict.fromkeys(asked)) == ["Dense", "Relu", "Erf"]
    assert len(asked) == 3 * len(layers.METHODS)
    assert list(written(tmp_path, "layers")["results"]) == ["Dense", "Relu", "Erf"]
    assert layers.main(words) == 0  # a whole record is measured anew
    assert len(asked) == 6 * len(layers.METHODS)


def test_position_pairs(tmp_path, capsys, monkeypatch):
    """Keys in turn; the measurement is in `tests/stax/test_beyond_all_pairs.py`."""
    found = {0: (0.3, 0.2), 1: (0.4, 0.1)}
    monkeypatch.setattr(position_pairs, "errors", lambda name, method, width, seed: found[seed])
    assert position_pairs.main(f"--seeds 2 --nets pool --out {tmp_path}".split()) == 0
    own = {"estimated": [0.3, 0.4], "exact": [0.2, 0.1]}
    assert written(tmp_path, "position-pairs")["results"] == {
        "pool": {"Nystroem": own, "RandomFeatures": own}
    }
    assert "0.3000 0.4000   0.2000 0.1000" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        position_pairs.main(["--nets", "pol"])
    assert "quadratic attention" in capsys.readouterr().err


@pytest.mark.slow
def test_prediction(tmp_path, capsys):
    record = prediction.run(prediction.Settings(8, 3, tmp_path))
    assert written(tmp_path, "prediction") == record
    printed = capsys.readouterr().out
    for method in prediction.METHODS:
        for rows in prediction.ROWS:
            low, middle, high = record["results"][method][str(rows)]["milliseconds (quartiles)"]
            assert 0 < low <= middle <= high
            assert f"{method:16} {rows:>4} examples: {middle:.2f} ms" in printed


def test_log_determinant(tmp_path, capsys):
    """Exact values against a dense decomposition, and errors as large as they say."""
    settings = log_determinant.Settings(12, 150, 10, 100, ("chebyshev",), 2, tmp_path)
    for make in log_determinant.MATRICES.values():
        a, exact = make(settings)
        assert np.linalg.slogdet(a.toarray())[1] == pytest.approx(exact, rel=1e-10)
    record = log_determinant.run(settings)
    assert written(tmp_path, "log-determinant")["results"].keys() == log_determinant.MATRICES.keys()
    for found in record["results"].values():
        one = found["chebyshev"]
        errors, expected = one["relative_errors"], one["relative_standard_errors"]
        assert len(errors) == len(one["seconds"]) == 2
        assert all(e < 5 * s + 1e-3 for e, s in zip(errors, expected, strict=True))
    assert "random graph        150 rows, chebyshev: relative error" in capsys.readouterr().out


def test_evidence(tmp_path, capsys):
    """Against a decomposition where there is one; all directions are in the preconditioner."""
    words = f"--examples 60 20 --features 24 40 --keys 2 --out {tmp_path}"
    assert evidence.main(words.split()) == 0
    results = written(tmp_path, "evidence")["results"]
    assert list(results) == ["60 examples, 24 features", "20 examples, 40 features"]
    for found in results.values():
        assert np.shape(found["log_evidence"]) == (2, 2)
        np.testing.assert_allclose(found["log_evidence"], [found["exact"]] * 2, rtol=1e-5)
        assert len(found["seconds"]) == 2
    assert "60 examples, 24 features: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        evidence.main(["--examples", "60", "--features", "24", "40"])


@pytest.mark.slow
def test_first_prediction(tmp_path, capsys):
    words = f"--digits --width 8 16 --train 100 --repetitions 1 --out {tmp_path}"
    assert first_prediction.main(words.split()) == 0
    found = written(tmp_path, "first-prediction")["results"]
    assert found["median"] == pytest.approx(sum(found[s][0] for s in first_prediction.STEPS))
    low, middle, high = found["later, milliseconds (quartiles)"]
    assert 0 < low <= middle <= high < 1e3 * found["median"]
    assert f"later {middle:.1f} ms an image" in capsys.readouterr().out


def test_subset(tmp_path, capsys, monkeypatch):
    """The published algorithm picks the same items; DPPy is none of the requirements."""
    monkeypatch.setattr(subset, "dppy_sample", lambda z, k: None)
    words = f"--items 900 --features 12 --k 8 --sample 8 --repetitions 1 --out {tmp_path}"
    assert subset.main(words.split()) == 0
    results = written(tmp_path, "subset")["results"]
    for name in ("different norms", "unit norm"):
        found = results[f"greedy, {name}"]
        assert found["same_picks"] == 8
        assert found["log_determinant"] == pytest.approx(found["published_log_determinant"])
        assert found["with_slack"]["log_determinant"] <= found["log_determinant"] + 8 * 0.11
    greedy = results["greedy, unit norm"]["log_determinant"]
    assert results["random"]["log_determinant"] < greedy
    assert "8 of 8 picks the same" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        subset.main(["--features", "12", "--k", "13"])


def test_cold_start(tmp_path, monkeypatch):
    """Both checkouts in turn, after a run of each that writes bytecode; README's own code."""
    calls = []

    def timed(checkout, bytecode):
        assert bytecode.is_dir()
        calls.append(checkout)
        first = 50.0 if len(calls) <= 2 else 0.0
        return [first + 2.0, 3.0] if checkout == cold_start.ROOT else [first + 4.0, 5.0]

    monkeypatch.setattr(cold_start, "seconds", timed)
    record = cold_start.run(cold_start.Settings(tmp_path, 2, tmp_path))
    assert calls == [cold_start.ROOT, tmp_path] * 3
    assert written(tmp_path, "cold_start")["results"]["ratio"]["median"] == 0.5
    assert record["results"]["other"]["median"] == 4.0
    assert str(tmp_path) not in json.dumps(record["settings"])
    code = cold_start._TIMED.format(code=cold_start.example())
    compile(code, "cold start", "exec")
    assert "ns.ridge" in code


@pytest.mark.slow
def test_scaling_with_its_smallest_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "SIDES", (16, 32))
    words = f"--width 4 --repetitions 1 --images 20 40 --out {tmp_path}"
    assert scaling.main(words.split()) == 0
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text())["results"]
    assert set(results["seconds_by_images"]) == set(results["peak_rss_bytes"]) == {"20", "40"}
    times = results["seconds_by_side"]
    slope = np.log(times["32"] / times["16"]) / np.log(4)
    assert results["slope_by_pixels"] == pytest.approx(slope)
    assert f"against log pixels: {slope:.3f}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        scaling.main(["--images", "20", "30"])
    assert "two different multiples of 20" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_with_their_smallest_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(many_rows, "SAMPLE", 64)
    monkeypatch.setattr(many_rows, "CHUNK", 300)
    words = f"--rows 500 1000 --columns 4 --width 8 --data-dir {tmp_path} --out {tmp_path / 'out'}"
    words += " --processes 2"
    assert many_rows.main(words.split()) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # the file of rows is gone
    record = json.loads(path.read_text())
    assert str(tmp_path) not in json.dumps(record)
    printed = capsys.readouterr().out
    for n in (500, 1000):
        assert f"| {n:,} |" in printed
        found = record["results"][str(n)]
        assert found["rows_per_second"] == pytest.approx(n / found["seconds"])
        assert 0 < found["share_of_matrix_rate"] < 1
    assert "| processes |" in printed
    found = record["by_processes"]["2"]
    assert found["rows"] == 1000
    assert found["diag_reg"] == record["results"]["1000"]["diag_reg"]
    assert found["rows_per_second"] == pytest.approx(1000 / found["seconds"])
    with many_rows.anonymous_memory(0.01) as growth:
        held = np.ones(2**22)
    assert not growth or growth[0] >= held.nbytes


@pytest.mark.slow
def test_exact_time_with_its_smallest_setting(no_cifar10, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exact_time, "SAMPLE", 20)
    words = f"--width 4 --repetitions 1 --out {tmp_path}"
    assert exact_time.main(words.split()) == 0
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text())["results"]
    assert results["pairs"] == 50_000 * 50_001 // 2 + 50_000 * 10_000
    exact = results["exact_seconds_per_pair"] * results["pairs"]
    features = results["features_seconds_per_image"] * 60_000
    assert results["ratio"] == pytest.approx(exact / features)
    assert f"ratio: {results['ratio']:.4g}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        exact_time.main(["--width", "4", "5"])
    assert "one number, or 4" in capsys.readouterr().err


@pytest.mark.slow
def test_cached_features(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)  # scikit-learn's data stand in
    settings = cached_features.Settings(("protein",), 400, 64, (1e-2,), None, tmp_path)
    record = cached_features.run(settings)
    assert written(tmp_path, "cached-features")["results"] == record["results"]
    rows = record["results"]["rows"]
    assert [row["dtype"] for row in rows] == list(cached_features.DTYPES)
    assert [rows[0][what] for what in ("weights", "predictions", "rmse_change")] == [0, 0, 0]
    for row in rows[1:]:
        assert 1e-5 < row["weights"] < 0.3
        assert row["bytes"] < 0.6 * rows[0]["bytes"]
    assert "| uint8 |" in capsys.readouterr().out


@pytest.mark.slow
def test_empirical_with_its_smallest_setting(no_cifar10, tmp_path, capsys):
    words = f"--images 6 --width 16 --channels 2 --block 4 --out {tmp_path}"
    assert empirical.main(words.split()) == 0
    record = written(tmp_path, "empirical")
    results, resolved = record["results"], record["resolved"]
    assert 0 < results["error_over_bound"] < 1.5
    assert results["relative_error"] < 1
    assert resolved["n_features"] == 10 * 16
    of_all = results["memory_bytes"]["all images"]
    assert of_all["jacobian"] == 4 * 6 * 10 * resolved["parameters"]
    assert of_all["gradient"] > 2 * 4 * resolved["parameters"]
    assert f"relative error {results['relative_error']:.4f}" in capsys.readouterr().out
