"""Exact kernels pair by pair, and resuming after an interruption."""

import numpy as np
import pytest

from ntk_sketch import stax
from ntk_sketch.diagnostics import DamagedFile, exact_kernels


@pytest.fixture
def small():
    model = stax.serial(
        stax.Conv(1, (3, 3), padding="SAME"), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1)
    )
    x = np.random.default_rng(0).standard_normal((7, 4, 4, 2)).astype(np.float32)
    return model, x


def test_exact_kernels_are_those_of_neural_tangents(small, tmp_path):
    model, x = small
    rows = []
    path = tmp_path / "exact.npz"
    grams = exact_kernels(model[2], x, path=path, progress=rows.append)
    assert rows == list(range(1, len(x) + 1))
    for name, gram in grams.items():
        np.testing.assert_allclose(gram, model[2](x, None, name), rtol=1e-4)
        np.testing.assert_array_equal(gram, gram.T)

    def never(*args):
        raise AssertionError("a stored kernel was computed again")

    for name, gram in exact_kernels(never, x, path=path).items():
        np.testing.assert_array_equal(gram, grams[name])


@pytest.mark.parametrize("finished", [1, 5])
def test_an_interrupted_kernel_goes_on_where_it_was(small, tmp_path, finished):
    model, x = small
    path = tmp_path / "exact.npz"

    def interrupt(row):
        if row == finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exact_kernels(model[2], x, path=path, progress=interrupt)
    assert [entry.name for entry in tmp_path.iterdir()] == ["exact.npz"]
    rows = []
    grams = exact_kernels(model[2], x, path=path, progress=rows.append)
    assert rows == list(range(finished + 1, len(x) + 1))
    whole = exact_kernels(model[2], x, path=tmp_path / "whole.npz")
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
        exact_kernels(model[2], x, path=path)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["exact.npz"]
    rows = []
    exact_kernels(model[2], x, path=path, progress=rows.append)
    assert rows[0] == 3


def test_damaged_files_are_named(small, tmp_path):
    model, x = small
    path = tmp_path / "exact.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedFile, match=r"exact\.npz cannot be read.*Delete it"):
        exact_kernels(model[2], x, path=path)
    path.unlink()
    exact_kernels(model[2], x[:3], path=path)
    with pytest.raises(DamagedFile, match="not for 7 examples"):
        exact_kernels(model[2], x, path=path)


def test_one_kernel_by_name(small):
    model, x = small
    assert list(exact_kernels(model[2], x, "ntk")) == ["ntk"]
    with pytest.raises(ValueError, match="get must be one of nngp, ntk, got 'cntk'"):
        exact_kernels(model[2], x, ("ntk", "cntk"))
