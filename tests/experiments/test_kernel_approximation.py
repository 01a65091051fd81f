"""Errors, speeds and exact kernels of the comparison of methods, at its smallest."""

import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from experiments._common import _measure, data
from experiments._common.data._tfds import Unavailable
from experiments.kernel_approximation import __main__ as entry
from experiments.kernel_approximation import dual_kernels
from experiments.kernel_approximation._fingerprint import fingerprint
from ntk_sketch import stax

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


@pytest.mark.slow
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
    assert "10/10" not in capsys.readouterr().err
    assert again["exact_kernel"]["hash"] == record["exact_kernel"]["hash"]
    np.testing.assert_allclose(
        again["results"][0]["errors"]["ntk"]["relative"]["keys"],
        row["errors"]["ntk"]["relative"]["keys"],
        rtol=1e-4,
    )


def test_grams_do_not_depend_on_the_batches(small):
    model, x = small
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(6), key=jax.random.key(0))
    expected = feature_map.kernel_fn(x)
    for batch_size in (2, 7, 10):
        for name, gram in _measure.grams(feature_map, x, batch_size).items():
            np.testing.assert_allclose(gram, getattr(expected, name), rtol=1e-5)


def test_timings_take_turns():
    order = []
    calls = {name: functools.partial(order.append, name) for name in "abc"}
    seconds = _measure.interleaved_seconds(calls, 2)
    assert "".join(order) == "abcabc"
    assert [len(of_call) for of_call in seconds.values()] == [2, 2, 2]


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
        ("--architecture myrtle6", "known: myrtle5, myrtle7, myrtle10, wideresnet10"),
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
    """All are named; the table is that of its record, to the digits that it prints."""
    readme = re.sub(r"[ |]+", " ", (FOLDER / "README.md").read_text())
    results = FOLDER / "results"
    assert all(path.name in readme for path in results.iterdir() if path.suffix == ".json")
    record = json.loads((results / "cifar10-myrtle5-relu-24images-3keys.json").read_text())
    for line in entry.table(record["results"]).splitlines()[1:]:
        assert re.sub(r" +", " ", line) in readme


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
    assert "at least 2 needed" in capsys.readouterr().err
