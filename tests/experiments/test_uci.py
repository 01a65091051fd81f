"""Reading regression data sets."""

import sys

import numpy as np
import pytest

from experiments._common import _uci
from experiments._common.data import DataError


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((5, 2)).astype(np.float32), "y": np.arange(5)}


@pytest.mark.parametrize("subfolder", [".", "uci_regression"])
@pytest.mark.parametrize("by_argument", [True, False])
def test_a_file_by_its_name(tmp_path, monkeypatch, arrays, subfolder, by_argument):
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    np.savez(folder / "small.npz", **arrays, test_mask=np.ones((5, 10), bool))
    monkeypatch.setenv("NTK_SKETCH_DATA", str(tmp_path / "absent" if by_argument else tmp_path))
    x, y, description = _uci.load("small", str(tmp_path) if by_argument else None)
    np.testing.assert_array_equal(x, arrays["x"])
    np.testing.assert_array_equal(y, arrays["y"])
    assert (x.dtype, y.dtype, description) == (np.float64, np.float64, "small")


def test_without_a_folder_there_is_a_stand_in_and_a_loud_line(monkeypatch, capsys):
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)
    x, y, description = _uci.load("protein")
    assert (x.shape, y.shape, x.dtype) == ((442, 10), (442,), np.float64)
    assert description == "scikit-learn diabetes"
    assert (
        "NO protein: this run uses scikit-learn's diabetes data INSTEAD" in capsys.readouterr().err
    )


def test_a_missing_file_is_named_with_those_that_exist(tmp_path, arrays):
    with pytest.raises(DataError, match=r"neither .*other\.npz.* exists\. Needed: .*y \(n,\)\.$"):
        _uci.load("other", str(tmp_path))
    np.savez(tmp_path / "small.npz", **arrays)
    with pytest.raises(DataError, match=r"there are small\.$"):
        _uci.load("other", str(tmp_path))


def test_damaged_files_are_named(tmp_path, arrays):
    path = tmp_path / "small.npz"

    def refused(message):
        with pytest.raises(DataError, match=rf"small\.npz {message}.*Needed: .*x \(n, d\)"):
            _uci.load("small", str(tmp_path))

    path.write_bytes(b"nothing")
    refused("cannot be read")
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("cannot be read")
    path.write_bytes(whole[:90] + bytes(40) + whole[130:])
    refused("cannot be read")
    with path.open("wb") as file:
        np.save(file, arrays["x"])
    refused("cannot be read")
    np.savez(path, x=arrays["x"])
    refused("cannot be read .*y")
    np.savez(path, x=arrays["x"], y=np.array([None] * 5))
    refused("cannot be read")
    np.savez(path, x=arrays["x"], y=arrays["y"][:4])
    refused(r"holds x \(5, 2\) and y \(4,\)")
    np.savez(path, x=arrays["x"] * np.nan, y=arrays["y"])
    refused("holds numbers that are not finite")


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.delenv("NTK_SKETCH_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install scikit-learn\. Give --data-dir or"):
        _uci.load("protein")
