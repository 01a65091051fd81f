"""Errors, speeds and exact kernels of the comparison of methods, at its smallest."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from entering import entering

import ntk_sketch as ns
from experiments.cifar10 import data
from experiments.cifar10.data._tfds import Unavailable
from experiments.kernel_approximation import __main__ as entry
from experiments.kernel_approximation import (
    _case,
    _measure,
    _variants,
    dual_kernels,
    exact_time,
    scaling,
    study,
    truncation,
)
from experiments.kernel_approximation._exact import (
    DamagedFile,
    exact_kernels,
    fingerprint,
)
from experiments.kernel_approximation._methods import METHODS
from experiments.kernel_approximation._run import table
from ntk_sketch import stax
from ntk_sketch.methods._sampling import surveyed

FOLDER = Path(entry.__file__).parent


@pytest.fixture
def no_cifar10(monkeypatch):
    def unreachable(say):
        raise Unavailable("no network")

    found = functools.partial(data.find, environment={}, tfds=unreachable)
    monkeypatch.setattr(data, "find", found)


@pytest.fixture
def small():
    model = stax.serial(
        stax.Conv(1, (3, 3), padding="SAME"), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1)
    )
    x = np.random.default_rng(0).standard_normal((7, 4, 4, 2)).astype(np.float32)
    return model, x


def test_the_digits_end_to_end(no_cifar10, tmp_path, capsys):
    size = "--images 4 --widths 8 --seeds 2 --train 50 --sample 10 --batch-sizes 4 --repetitions 2"
    words = [*size.split(), "--methods", "randomfeatures", "--out", str(tmp_path)]
    assert entry.main(words) == 0
    printed = capsys.readouterr()
    assert "NO CIFAR-10: no network" in printed.err
    assert "10/10" in printed.err  # pairs of the exact kernel
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert record["data"]["dataset"] == "digits"
    assert record["exact_kernel"]["pairs_computed_now"] == 10
    (row,) = record["results"]
    assert (row["method"], row["width"], row["batch_size"]) == ("RandomFeatures", 8, 4)
    assert row["n_features"] == {"nngp": 8, "ntk": 16}
    assert len(row["images_per_second_all"]) == 2
    # Two projections of 3x3 patches of 8 features at the second convolution, 8x8 pixels, and more.
    assert row["flops_per_image"] > 2 * 64 * 9 * 8 * (8 + 2 * 8)
    ratio = row["flops_per_second"] / row["large_product_flops_per_second"]
    assert row["share_of_large_product"] == pytest.approx(ratio)
    assert 0 < ratio < 1
    # At least the directions of two convolutions: 3x3 patches of 8 features, for both kernels.
    assert 2 * 9 * 8 * 8 * 4 < row["memory_bytes"]["program"] < row["memory_bytes"]["peak_rss"]
    for kernel in ("nngp", "ntk"):
        relative = row["errors"][kernel]["relative"]
        first, second = relative["keys"]
        assert first != second
        assert relative["mean"] == pytest.approx((first + second) / 2)
        assert relative["std"] == pytest.approx(abs(first - second) / 2**0.5)
        assert 0.001 < relative["mean"] < 1
        assert np.isfinite(row["errors"][kernel]["centred"]["keys"]).all()
    assert f"{row['errors']['ntk']['relative']['mean']:.4f}±" in printed.out
    assert len(list(tmp_path.glob("*.png"))) == 1

    # The second time the exact kernel comes from its file.
    assert entry.main(words) == 0
    again = json.loads(path.read_text())
    assert again["exact_kernel"]["pairs_computed_now"] == 0
    assert again["exact_kernel"]["hash"] == record["exact_kernel"]["hash"]
    np.testing.assert_allclose(
        again["results"][0]["errors"]["ntk"]["relative"]["keys"],
        row["errors"]["ntk"]["relative"]["keys"],
        rtol=1e-4,
    )


def test_errors_from_their_definition():
    rng = np.random.default_rng(1)
    n = 5
    exact, close = rng.standard_normal((2, n, n))

    def norm(kernel):
        return sum(kernel[i, j] ** 2 for i in range(n) for j in range(n)) ** 0.5

    def centred(kernel):
        mean = sum(kernel[i, j] for i in range(n) for j in range(n)) / n**2
        rows = [sum(kernel[i, j] for j in range(n)) / n for i in range(n)]
        columns = [sum(kernel[i, j] for i in range(n)) / n for j in range(n)]
        out = [[kernel[i, j] - rows[i] - columns[j] + mean for j in range(n)] for i in range(n)]
        return np.array(out)

    expected = norm(close - exact) / norm(exact)
    assert _measure.relative_error(close, exact) == pytest.approx(expected, rel=1e-12)
    expected = norm(centred(close) - centred(exact)) / norm(centred(exact))
    assert _measure.centred_error(close, exact) == pytest.approx(expected, rel=1e-12)
    assert _measure.centred_error(exact + 3, exact) < 1e-12


def test_grams_do_not_depend_on_the_batches(small):
    model, x = small
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(6), key=jax.random.key(0))
    expected = feature_map.kernel_fn(x)
    for batch_size in (2, 7, 10):
        for name, gram in _measure.grams(feature_map, x, batch_size).items():
            np.testing.assert_allclose(gram, getattr(expected, name), rtol=1e-5)
    assert _measure.feature_counts(feature_map) == {"nngp": 6, "ntk": 12}


def test_timings_take_turns():
    order = []
    calls = {name: functools.partial(order.append, name) for name in "abc"}
    seconds = _measure.interleaved_seconds(calls, 2)
    assert "".join(order) == "abcabc"
    assert [len(of_call) for of_call in seconds.values()] == [2, 2, 2]


def test_exact_kernels_are_those_of_neural_tangents(small, tmp_path):
    model, x = small
    rows = []
    path = tmp_path / "exact.npz"
    grams = exact_kernels(model[2], x, path, progress=rows.append)
    assert rows == list(range(1, len(x) + 1))
    for name, gram in grams.items():
        np.testing.assert_allclose(gram, model[2](x, None, name), rtol=1e-4)
        np.testing.assert_array_equal(gram, gram.T)

    def never(*args):
        raise AssertionError("a stored kernel was computed again")

    for name, gram in exact_kernels(never, x, path).items():
        np.testing.assert_array_equal(gram, grams[name])


@pytest.mark.parametrize("finished", [1, 5])
def test_an_interrupted_kernel_goes_on_where_it_was(small, tmp_path, finished):
    model, x = small
    path = tmp_path / "exact.npz"

    def interrupt(row):
        if row == finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exact_kernels(model[2], x, path, progress=interrupt)
    assert [entry.name for entry in tmp_path.iterdir()] == ["exact.npz"]
    rows = []
    grams = exact_kernels(model[2], x, path, progress=rows.append)
    assert rows == list(range(finished + 1, len(x) + 1))
    whole = exact_kernels(model[2], x, tmp_path / "whole.npz")
    for name, gram in grams.items():
        np.testing.assert_array_equal(gram, whole[name])


def test_a_failing_write_keeps_the_old_file(small, tmp_path, monkeypatch):
    model, x = small
    path = tmp_path / "exact.npz"
    savez = np.savez

    def full_disk(file, **arrays):
        if arrays["rows"] < 3:
            return savez(file, **arrays)
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        exact_kernels(model[2], x, path)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["exact.npz"]
    rows = []
    exact_kernels(model[2], x, path, progress=rows.append)
    assert rows[0] == 3


def test_damaged_files_are_named(small, tmp_path):
    model, x = small
    path = tmp_path / "exact.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedFile, match=r"exact\.npz cannot be read.*Delete it"):
        exact_kernels(model[2], x, path)
    path.unlink()
    exact_kernels(model[2], x[:3], path)
    with pytest.raises(DamagedFile, match="not for 7 images"):
        exact_kernels(model[2], x, path)


def test_the_fingerprint_tells_apart_what_matters():
    x = np.zeros((2, 3), np.uint8)
    first = fingerprint({"W_std": 1.0}, x)
    assert first == fingerprint({"W_std": 1.0}, x.copy())
    others = [fingerprint({"W_std": 2.0}, x), fingerprint({"W_std": 1.0}, x + 1)]
    others += [fingerprint({"W_std": 1.0}, x[:1]), fingerprint({"W_std": 1.0}, x.astype(np.int8))]
    assert len({first, *others}) == 5


def test_nonsense_ends_with_code_2(no_cifar10, tmp_path, capsys):
    for words, message in (
        ("--images 1", "at least 2 needed"),
        ("--methods Nope", "unknown name 'Nope'; known: Nystroem"),
        ("--layers 6", "known: 5, 7, 10"),
        ("--train 20 --sample 21", "more than the 20 training images"),
    ):
        with pytest.raises(SystemExit) as stop:
            entry.main(words.split())
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert entry.main(f"--images 501 --out {tmp_path}".split()) == 2
    assert "the 8x8 digits of scikit-learn has 500 test images" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_readme_shows_the_records():
    """Every record in results/ has its table in README.md, to the digits that it prints."""
    readme = re.sub(r"[ |]+", " ", (FOLDER / "README.md").read_text())
    records = sorted((FOLDER / "results").glob("cifar10-*.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text())
        assert path.name in readme
        assert {row["method"] for row in record["results"]} <= set(METHODS)
        for line in table(record["results"]).splitlines()[1:]:
            assert re.sub(r" +", " ", line) in readme


def test_the_readme_shows_the_dual_kernels():
    readme = (FOLDER / "README.md").read_text()
    (path,) = (FOLDER / "results").glob("study-*.json")
    assert study.table(json.loads(path.read_text())["results"]) in readme
    (path,) = (FOLDER / "results").glob("dual-kernels-*.json")
    assert dual_kernels.table(json.loads(path.read_text())["results"]) in readme
    assert path.name in readme


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


def small_case(monkeypatch):
    monkeypatch.setattr(_case, "TRAIN", 100)
    monkeypatch.setattr(_case, "TEST", 50)
    monkeypatch.setattr(_case, "IMAGES", 4)


def test_study_with_its_smallest_setting(no_cifar10, tmp_path, monkeypatch, capsys):
    small_case(monkeypatch)
    words = ["--methods", "Nystroem-half-residual-but-last", "--width", "6", "--keys", "1"]
    assert study.main([*words, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    rows = json.loads(path.read_text())["results"]
    [row] = rows
    assert row["method"] == "Nystroem-half-residual-but-last"
    assert 0 < row["relative"]["mean"] < row["centred"]["mean"] < 1
    assert 0.2 < row["accuracy"]["mean"] <= 1  # chance is 0.1, with a deviation of 0.04
    assert row["images_per_second"] > 0
    assert study.table(rows) in capsys.readouterr().out
    with pytest.raises(SystemExit):
        study.main(["--methods", "Nystroem-of-my-own"])
    assert "Nystroem-of-my-own" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [_variants.IndependentDirections, _variants.SobolDirections])
def test_directions_of_variants(kind):
    """`E[w wᵀ] = I`, `E[s sᵀ] = I`, and neither knows of the other."""
    method = kind(4, residual=0.5)
    rngs = map(np.random.default_rng, range(64))
    drawn = [np.concatenate(method.directions(3, 2, 64, rng)) for rng in rngs]
    moments = np.stack([ws @ ws.T / 64 for ws in drawn])
    error = 4 * moments.std(0, ddof=1) / 8
    assert np.all(np.abs(moments.mean(0) - np.eye(5)) <= error)
    assert method.directions(3, None, 2, np.random.default_rng(0))[1] is None


def test_landmarks_by_the_scores_of_the_ntk():
    """They are among the positions offered, each once, and those of large NTK come first."""
    x = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    x[:8] *= 30
    [(dual, features)] = entering(stax.serial(stax.Dense(1), stax.Relu()), x)
    for kind in (_variants.NTKLandmarks, _variants.LandmarksOfBoth):
        rng, offered = np.random.default_rng(0), np.arange(4, 40)
        survey = dataclasses.replace(surveyed(dual, features), usable=offered)
        chosen = kind(10).choose(dual, features, survey, 10, rng)
        assert len(set(chosen)) == 10
        assert np.isin(chosen, offered).all()
        assert np.isin(np.arange(4, 8), chosen).sum() >= 3
    kernel = _variants._ntk(dual, features, np.arange(40))
    exact = stax.serial(stax.Dense(1), stax.Relu())[2](x, None, "ntk")
    np.testing.assert_allclose(kernel, exact, rtol=2e-5, atol=1e-4 * np.max(exact))


def test_truncation_with_its_smallest_setting(no_cifar10, tmp_path, monkeypatch, capsys):
    small_case(monkeypatch)
    monkeypatch.setattr(truncation, "KEPT", (2, 5))
    assert truncation.main(["--width", "6", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    rows = json.loads(path.read_text())["results"]
    assert [row["kept"] for row in rows] == [2, 5, 12]
    assert rows[0]["energy"] < rows[1]["energy"] < rows[2]["energy"]
    assert rows[2]["energy"] == pytest.approx(1)
    assert rows[2]["relative"] < rows[0]["relative"]
    assert truncation.table(rows) in capsys.readouterr().out


def test_dual_kernels_with_its_smallest_setting(tmp_path, monkeypatch, capsys):
    chosen = {name: dual_kernels.NONLINEARITIES[name] for name in ("Relu", "Sin")}
    monkeypatch.setattr(dual_kernels, "NONLINEARITIES", chosen)
    words = f"--points 30 --dimension 3 --norms 0.5 2 --widths 256 32 --seeds 3 --out {tmp_path}"
    assert dual_kernels.main(words.split()) == 0
    (path,) = tmp_path.glob("*.json")
    assert path.with_suffix(".png").exists()
    rows = json.loads(path.read_text())["results"]
    assert [(row["nonlinearity"], row["norm"]) for row in rows] == [
        (name, norm) for name in chosen for norm in (0.5, 2.0)
    ]
    for row in rows:
        assert (np.diff(row["series"]) <= 1e-15).all()
        few, many = row["monte_carlo"]["mean"]
        assert 0.1 < many / few < 0.8  # 8^(-1/2) is 0.35
    relu, relu_again, sine, _ = rows
    np.testing.assert_allclose(relu["series"], relu_again["series"], atol=1e-14)
    # sin's kernel is e^{-r²} sinh(r² ρ): of degree 1, but for r⁶ρ³/6 and so on.
    u = np.random.default_rng(0).standard_normal((30, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    c = u @ u.T
    exact = np.sinh(0.25 * c)
    rest = exact - 0.25 * c
    np.fill_diagonal(rest, 0)
    expected = np.linalg.norm(rest) / np.linalg.norm(exact)
    assert sine["series"][0] == pytest.approx(expected, rel=1e-6)
    assert f"| Sin | 0.5 | {sine['series'][3]:.1e} |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        dual_kernels.main(["--points", "1"])
    assert "two points in two dimensions" in capsys.readouterr().err
