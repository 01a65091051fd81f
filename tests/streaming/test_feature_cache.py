"""Cached features equal computed ones; those of other examples or maps are refused."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.solvers import HoldOut, accumulate, ridge
from ntk_sketch.streaming import FeatureCache, _stored, stream
from ntk_sketch.streaming._row_formats import row_format

N = 150
VALUES = [1e-3, 1e-1]
KEY = jax.random.key(0)


class _Counted:
    """A map that counts the calls of its program."""

    def __init__(self, feature_map):
        self._map, self._seen = feature_map, []

    def __call__(self, x):
        jax.debug.callback(self._seen.append, x.shape[0])
        return self._map(x)

    def rows(self):
        """Since it was asked last."""
        jax.effects_barrier()
        seen, self._seen[:] = sum(map(int, self._seen)), []
        return seen


def _all(*args, **options):
    return np.concatenate([np.asarray(z) for *_, z in stream(*args, **options)])


@pytest.fixture
def map_and_data(make_map, make_data):
    x, y = make_data(N)
    return _Counted(make_map()), x, y


def test_any_examples_in_any_batches(map_and_data, tmp_path):
    """Once computed; the same bits in another order, batch size, or as batches of the user's."""
    feature_map, x, _ = map_and_data
    path = tmp_path / "z"
    exact = _all(feature_map, x, batch_size=32)
    feature_map.rows()
    np.testing.assert_array_equal(_all(feature_map, x, batch_size=32, cache=path), exact)
    assert feature_map.rows() == 160
    order = np.random.default_rng(0).permutation(N)[:70]
    np.testing.assert_array_equal(
        _all(feature_map, x, batch_size=50, order=order, cache=path), exact[order]
    )
    batches = lambda: (x[i : i + 40] for i in range(0, N, 40))  # noqa: E731
    np.testing.assert_array_equal(_all(feature_map, batches, batch_size=16, cache=path), exact)
    assert feature_map.rows() == 0
    assert os.listdir(tmp_path) == ["z"]
    with safe_open(path, framework="np") as file:  # another reader
        np.testing.assert_array_equal(file.get_tensor("features"), exact)


@pytest.mark.parametrize("dtype", ["bfloat16", "uint8"])
def test_rounded_as_promised(map_and_data, tmp_path, dtype):
    feature_map, x, _ = map_and_data
    exact = _all(feature_map, x)
    options = {"batch_size": 32, "cache": FeatureCache(tmp_path / "z", dtype)}
    first = _all(feature_map, x, **options)
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(_all(feature_map, x, order=order, **options), first[order])
    for start in range(0, N, 32):
        block = exact[start : start + 32]
        spread = np.broadcast_to(block.max(axis=0) - block.min(axis=0), block.shape)
        step = spread / 255 if dtype == "uint8" else 2**-7 * np.abs(block)
        assert np.all(np.abs(first[start : start + 32] - block) <= 0.501 * step + 1e-7)
    assert np.abs(first - exact).max() > 1e-4
    with safe_open(tmp_path / "z", framework="np") as file:
        assert len(file.get_tensor("keys")) == N


def test_constant_features_keep_their_number():
    """As those of dead directions of ReLU."""
    z = np.stack([np.zeros(5), np.full(5, 0.3), np.arange(5)], axis=1).astype(np.float32)
    levels = row_format(3, "uint8", 8)
    found = levels.decoded(levels.encoded(z), np.arange(5))
    np.testing.assert_array_equal(found[:, :2], z[:, :2])


def test_files_are_whole_or_not_there(map_and_data, tmp_path, monkeypatch):
    feature_map, x, _ = map_and_data
    path = tmp_path / "z"
    parts = stream(feature_map, x, batch_size=32, cache=path)
    next(parts)
    parts.close()  # as an interrupt does
    assert os.listdir(tmp_path) == []

    def full(self, z):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(_stored.Writer, "add", full)
        with pytest.raises(OSError, match=rf"cannot write {path}: No space left") as caught:
            _all(feature_map, x, batch_size=32, cache=path)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []
    _all(feature_map, x, batch_size=32, cache=path)
    whole = path.read_bytes()
    for damaged, message in [
        (whole[:-9], "was cut off or altered"),
        (whole[:100], "is no cache of features"),
        (b"my notes", "is no cache of features"),
        (whole.replace(b'\\"version\\": 1', b'\\"version\\": 2'), "has version 2; .* reads"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            stream(feature_map, x, batch_size=32, cache=path)


def test_refused(map_and_data, make_map, tmp_path):
    feature_map, x, _ = map_and_data
    path = tmp_path / "z"
    _all(feature_map, x[:100], cache=path)
    with pytest.raises(ValueError, match=r"example 128 .*is not among the 100 whose features"):
        _all(feature_map, np.concatenate([x[:100], x[:28], x[120:]]), cache=path)
    with pytest.raises(ValueError, match=r"example 0 .*is not among the 100 whose features"):
        _all(feature_map, np.concatenate([x + i for i in (1, 2, 3)]), cache=path, batch_size=450)
    for call, message in [
        (lambda: stream(feature_map, x, cache=path, get="nngp"), "kernel: ntk there, nngp here"),
        (lambda: stream(make_map(6, 21), x, cache=path), "features: 20 there, 21 here"),
        (lambda: stream(feature_map, x, cache=path, dtype="uint8"), "float32 there, uint8 here"),
        (lambda: FeatureCache(tmp_path), "is a folder"),
        (lambda: FeatureCache(tmp_path / "not" / "z"), "its folder .* does not exist"),
        (lambda: FeatureCache(path, "int4"), "dtype must be one of float32, bfloat16, uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call in (
        lambda: stream(feature_map, x, dtype="uint8"),
        lambda: stream(feature_map, x, cache=FeatureCache(path), dtype="uint8"),
        lambda: ridge(feature_map, x, x, keep_features=3),
    ):
        with pytest.raises(TypeError, match="needed: a path and perhaps a dtype"):
            call()


def test_the_fingerprint_of_the_map(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    one, other = (
        ns.feature_map(model, x, ns.RandomFeatures(4), key=jax.random.key(i)) for i in (0, 1)
    )
    first = _all(one, x, cache=tmp_path / "z")
    np.testing.assert_array_equal(_all(one, x, cache=tmp_path / "z"), first)
    with pytest.raises(ValueError, match=r"is of other features .feature map: .* there, .* here"):
        stream(other, x, cache=tmp_path / "z")


@pytest.mark.parametrize("select", ["loo", "gcv", HoldOut(0.3, key=KEY)], ids=["loo", "gcv", "out"])
@pytest.mark.parametrize("kind", ["dual", "arrays", "batches"])
def test_regressions_read_it(map_and_data, tmp_path, select, kind):
    """The solution of features that are computed, at one pass of them for all calls."""
    feature_map, x, y = map_and_data
    data = (x, y)
    if kind == "dual":
        data = (x[:18], y[:18])
    elif kind == "batches":
        data = (lambda: ((x[i : i + 40], y[i : i + 40]) for i in range(0, N, 40)),)
    refit = isinstance(select, HoldOut)
    options = {"diag_reg": VALUES, "select": select, "batch_size": 32, "refit": refit}
    expected = ridge(feature_map, *data, **options)
    feature_map.rows()
    for weighted in (False, True):  # and with weights, which are no matter to features
        ones = {"sample_weight": np.ones(len(x[:18] if kind == "dual" else x))}
        more = ones if weighted and kind != "batches" else {}
        found = ridge(feature_map, *data, keep_features=tmp_path / "z", **more, **options)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.weights, expected.weights)
    assert feature_map.rows() == (32 if kind == "dual" else 160)


def test_a_run_that_goes_on_does_not_write_part_of_it(map_and_data, tmp_path):
    """Its first pass has not all features; the second one has, and writes them."""
    feature_map, x, y = map_and_data
    options = {"batch_size": 8, "checkpoint": tmp_path / "run"}
    accumulate(feature_map, x, y, **options)
    expected = ridge(feature_map, x, y, batch_size=8, select="loo")
    feature_map.rows()
    for _ in range(2):
        found = ridge(feature_map, x, y, select="loo", keep_features=tmp_path / "z", **options)
        np.testing.assert_array_equal(found.scores, expected.scores)
    assert feature_map.rows() == 152


@pytest.mark.usefixtures("x64")
def test_float64(make_map, make_data, tmp_path):
    feature_map, (x, _) = make_map(6, 20, np.float64), make_data(20, np.float64)
    exact = _all(feature_map, x)
    for _ in range(2):
        found = _all(feature_map, jnp.asarray(x), cache=tmp_path / "z")
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, exact)
    x[3, 0] += 1e-12  # the same in float32
    with pytest.raises(ValueError, match=r"example 3 .*is not among the 20"):
        _all(feature_map, x, cache=tmp_path / "z")
