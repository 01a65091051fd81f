"""Users' batches: any iterable and any sizes, read by a thread; errors name the batch."""

import threading
import time
import traceback

import jax
import numpy as np
import pytest

from ntk_sketch.solvers import ridge
from ntk_sketch.streaming import _prefetch, stream
from ntk_sketch.streaming._batches import Batches, is_batches

SIZES = [1, 13, 40, 3, 64, 29]
N = sum(SIZES)


def cut(*arrays, sizes=SIZES):
    """Tuples of parts of the arrays."""
    ends = np.cumsum(sizes)
    for stop, size in zip(ends, sizes, strict=True):
        yield tuple(a[stop - size : stop] for a in arrays)


def gathered(batches):
    starts, stops, z = zip(*batches, strict=True)
    assert (0, *stops[:-1]) == starts
    return np.concatenate(z)


def threads():
    return [t for t in threading.enumerate() if t.name == "ntk_sketch batches"]


def wait_for_threads():
    for _ in range(100):
        if not threads():
            return
        time.sleep(0.02)
    raise AssertionError(threads())


@pytest.fixture(autouse=True)
def threads_end():
    yield
    wait_for_threads()


# ---- what may be given ---------------------------------------------------------------------------


class Tensor:
    """As a tensor on the CPU: no array of NumPy, but one by `__array__`."""

    def __init__(self, values):
        self._values = values
        self.shape = values.shape

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._values, dtype)

    def __len__(self):
        return len(self._values)


class Loader:
    """As `torch.utils.data.DataLoader`: lists of tensors, and no `__next__` of its own."""

    def __init__(self, *arrays, shuffle_seed=None):
        self.arrays, self.seed, self.passes = arrays, shuffle_seed, 0

    def __iter__(self):
        self.passes += 1
        arrays = self.arrays
        if self.seed is not None:  # every pass in another order
            order = np.random.default_rng(self.seed + self.passes).permutation(len(arrays[0]))
            arrays = [a[order] for a in arrays]
        for parts in cut(*arrays):
            yield [Tensor(part) for part in parts]

    def __len__(self):
        return len(SIZES)


class Dataset:
    """As `tf.data.Dataset`: tuples of tensors, from an iterator with a method of its own."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __iter__(self):
        return iter([tuple(map(Tensor, parts)) for parts in cut(*self.arrays)])


def of_tensorflow(x, y):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(32).prefetch(1)


def of_torch(x, y):
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return torch.utils.data.DataLoader(dataset, batch_size=32)


def of_grain(x, y):
    grain = pytest.importorskip("grain")
    pairs = list(zip(x, y, strict=True))
    return grain.MapDataset.source(pairs).to_iter_dataset().batch(32)


def of_arrow(x, y):
    """The line that `ridge` documents."""
    pa = pytest.importorskip("pyarrow")
    dataset = pytest.importorskip("pyarrow.dataset")
    names = [f"x{i}" for i in range(x.shape[1])]
    table = pa.table({**dict(zip(names, x.T, strict=True)), "y": y[:, 0]})
    data = dataset.dataset(table.combine_chunks())

    return lambda: (
        (np.stack([b[c] for c in names], axis=1), np.stack([b["y"]] * 3, axis=1))
        for b in data.to_batches(batch_size=40)
    )


SOURCES = {
    "list of tuples": lambda x, y: list(cut(x, y)),
    "list of lists": lambda x, y: list(map(list, cut(x, y))),
    "generator function": lambda x, y: lambda: cut(x, y),
    "loader": Loader,
    "dataset": Dataset,
    "tuples of JAX": lambda x, y: lambda: (tuple(map(jax.device_put, b)) for b in cut(x, y)),
    "nested lists": lambda x, y: lambda: ((a.tolist(), b.tolist()) for a, b in cut(x, y)),
    "tensorflow": of_tensorflow,
    "torch": of_torch,
    "grain": of_grain,
    "pyarrow": of_arrow,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_the_same_regression_from_any_iterable(make_map, make_data, source):
    feature_map, (x, y) = make_map(), make_data(N)
    if source is of_arrow:
        y = y[:, [0, 0, 0]]
    expected = ridge(feature_map, x, y, fit_intercept=True)
    found = ridge(feature_map, source(x, y), fit_intercept=True)
    assert found.n_examples == N
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.intercept, expected.intercept, rtol=1e-6, atol=1e-6)
    if source is SOURCES["nested lists"]:
        return  # a pair of them is not told from one of two rows
    predicted = found.predict(source(x, y))  # of pairs, whose y is not looked at
    np.testing.assert_allclose(predicted, found.predict(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", [SIZES, [N], [1] * N, [0, 100, 0, 50, 0]])
@pytest.mark.parametrize("batch_size", [1, 16, 64, 1000, None])
def test_blocks_are_those_of_one_array(make_map, make_data, sizes, batch_size):
    """Cut at the same rows, so equal bit for bit."""
    feature_map, x = make_map(), make_data(N)[0]
    sizes = [1, *sizes[1:]] if sizes[0] == 0 else sizes  # the first one says what examples are
    x = x[: sum(sizes)]
    seen = []
    ours = stream(
        feature_map,
        lambda: (b for (b,) in cut(x, sizes=sizes)),
        batch_size=batch_size,
        progress=seen.append,
    )
    theirs = list(stream(feature_map, x, batch_size=batch_size))
    for one, other in zip(ours, theirs, strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one[2], other[2])
    assert sum(seen) == len(x)


@pytest.mark.parametrize(("sizes", "rows"), [(SIZES, 16), ([64] * 8, 64)])
def test_a_buffer_may_be_used_again(make_map, make_data, sizes, rows):
    """Also where it could be given to JAX as it is: a whole block, aligned to cache lines."""
    feature_map, x = make_map(), make_data(sum(sizes))[0]

    def batches():
        memory = np.empty(64 * 6 * 4 + 64, np.uint8)
        aligned = -memory.ctypes.data % 64
        buffer = memory[aligned : aligned + 64 * 6 * 4].view(np.float32).reshape(64, 6)
        for (part,) in cut(x, sizes=sizes):
            buffer[: len(part)] = part
            yield buffer[: len(part)]
            buffer[:] = np.nan

    z = gathered(stream(feature_map, batches, batch_size=rows))
    np.testing.assert_array_equal(z, gathered(stream(feature_map, x, batch_size=rows)))


def test_what_is_batches():
    x = np.ones((4, 3))
    for yes in ([(x, x)], [[x]], lambda: None, iter([x]), Loader(x), {1}):
        assert is_batches(yes)
    for no in (x, jax.device_put(x), [x, x], x.tolist(), (x, x), "x", {"x": x}, None, Batches, []):
        assert not is_batches(no)
    for no in ([[np.float32(1), np.float32(2)]], Tensor(x), 3.0):
        assert not is_batches(no)


def test_float64_is_that_of_the_caller(make_map, make_data, x64):
    feature_map, x = make_map(dtype=np.float64), make_data(N, np.float64)[0]
    seen = []

    def batches():
        seen.append(jax.config.jax_enable_x64)  # also in code of the user
        yield from (b for (b,) in cut(x))

    z = gathered(stream(feature_map, batches, batch_size=16))
    assert z.dtype == np.float64
    np.testing.assert_array_equal(z, gathered(stream(feature_map, x, batch_size=16)))
    assert seen == [True]


# ---- the thread ----------------------------------------------------------------------------------


def test_the_next_batches_are_read_meanwhile_and_not_more(make_map, make_data):
    """Three blocks of the stream's, two in the queue, one that is made, one that is used."""
    x, read = make_data(4000)[0], []

    def batches():
        for i in range(0, len(x), 10):
            read.append(i)
            yield x[i : i + 10]

    batches_of_features = stream(make_map(), batches, batch_size=10)
    next(batches_of_features)
    time.sleep(0.3)
    ahead = len(read)
    time.sleep(0.2)
    assert len(read) == ahead  # it waits
    assert 4 <= ahead <= 12
    batches_of_features.close()
    wait_for_threads()
    assert len(read) <= ahead + 2


def test_reading_and_computing_take_the_same_time(make_map):
    """Each batch takes 30 ms to read and 30 ms to use: together less than the sum."""

    def items():
        for i in range(12):
            time.sleep(0.03)
            yield i

    start = time.perf_counter()
    for _ in _prefetch.prefetched(items()):
        time.sleep(0.03)
    assert time.perf_counter() - start < 0.03 * 12 * 1.6


def test_the_generator_of_the_user_is_closed(make_map, make_data):
    x, closed = make_data(N)[0], []

    def batches():
        try:
            while True:
                yield x
        finally:
            closed.append(threading.current_thread().name)

    parts = stream(make_map(), batches, batch_size=16)
    next(parts)
    parts.close()
    wait_for_threads()
    assert closed == ["ntk_sketch batches"]


def test_an_error_of_the_iterable_is_its_own(make_map, make_data):
    """After all batches before, with its traceback and the number of the batch."""
    x, done = make_data(N)[0], []

    class DiskError(Exception):
        pass

    def read_from_disk():
        raise DiskError("sector 12")

    def batches():
        for number, (part,) in enumerate(cut(x)):
            if number == 4:
                read_from_disk()
            yield part

    def run():
        for _, stop, _ in stream(make_map(), batches, batch_size=8):
            done.append(stop)

    with pytest.raises(DiskError, match="sector 12") as caught:
        run()
    assert done == [8, 16, 24, 32, 40, 48, 56]  # 57 examples came before
    assert any("for batch 4" in note for note in caught.value.__notes__)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "read_from_disk" in frames


def test_an_error_before_the_first_batch(make_map):
    def batches():
        raise OSError("no such bucket")
        yield

    with pytest.raises(OSError, match="no such bucket") as caught:
        stream(make_map(), batches)
    assert "for batch 0" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        stream(make_map(), lambda index: index)
    assert "for batch 0" in caught.value.__notes__[0]


# ---- refused, with the number of the batch -------------------------------------------------------

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
Y = X[:, :2].copy()
NAN = X.copy()
NAN[2, 3] = np.nan

REFUSED = {
    "nothing": ([], ValueError, "gives nothing; needed: at least one batch"),
    "another width": (
        [(X, Y), (X[:, :4], Y)],
        ValueError,
        r"in batch 1, examples 12 to 23: x has examples of shape \(4,\), those .* before \(6,\)",
    ),
    "another rank": ([(X, Y), (X[:, None], Y)], ValueError, r"in batch 1, .*shape \(1, 6\)"),
    "another dtype": ([(X, Y), (X.astype(float), Y)], ValueError, "batch 1, .*float64.*float32"),
    "NaN": ([(X, Y), (NAN, Y)], ValueError, r"in batch 1, .*x is not finite .* row 2"),
    "NaN in y": ([(X, Y), (X, NAN)], ValueError, "in batch 1, examples 12 to 23: y is not finite"),
    "overflow": ([(X, Y), (X * 1e20, Y)], ValueError, "in batch 1, .*squares overflow float32"),
    "no pair": ([(X, Y), X], TypeError, r"in batch 1, .*is a ndarray; needed: a pair \(x, y\)"),
    "four": ([(X, Y, Y, Y)], TypeError, r"in batch 0, .*is a tuple of 4; needed: a pair"),
    "dict": ([{"x": X, "y": Y}], TypeError, r"is a dict of 2; .*lambda: \(\(b\[.x.\], b\[.y.\]\)"),
    "lengths": ([(X, Y), (X, Y[:5])], ValueError, "in batch 1, .*12 examples but 5 rows of y"),
    "labels": ([(X, np.arange(12))], TypeError, r"in batch 0, .*int64.*y = jax.nn.one_hot"),
    "names": ([(X, np.array(["a"] * 12))], TypeError, "in batch 0, .*Names of classes"),
    "pixels": ([(X.astype(np.uint8), Y)], TypeError, r"in batch 0, .*\.astype\(np.float32\) / 255"),
    "other outputs": (
        [(X, Y), (X, Y[:, :1])],
        ValueError,
        r"in batch 1, .*y has shape \(m, 1\), in the batches before \(m, 2\)",
    ),
    "(n,) and (n, 1)": ([(X, Y[:, 0]), (X, Y[:, :1])], ValueError, r"\(m, 1\), .*before \(m,\)"),
    "one example": ([(X[0], Y)], ValueError, r"in batch 0, .*One example is x\[None\]"),
    "text": ([("x", Y)], TypeError, "in batch 0, .*x must be one array .*str"),
    "no targets": ([(X, None)], TypeError, "in batch 0, .*y must be one array .* got NoneType"),
    "huge targets": ([(X, Y), (X, 1e39 * Y.astype(float))], ValueError, "range of float32"),
}


@pytest.mark.parametrize(("batches", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(make_map, batches, error, message):
    with pytest.raises(error, match=message):
        ridge(make_map(), lambda: iter(batches))


def test_targets_given_twice(make_map):
    with pytest.raises(TypeError, match=r"x is a Loader of batches.*leave y out"):
        ridge(make_map(), Loader(X, Y), Y)


def test_order_is_one_of_an_array(make_map):
    with pytest.raises(ValueError, match="order"):
        stream(make_map(), Loader(X), order=np.arange(3))


def test_an_iterator_is_read_once(make_map):
    """Also one that a function returns again and again."""
    iterator = cut(np.concatenate([X] * 13)[:N], np.concatenate([Y] * 13)[:N])
    assert ridge(make_map(), iterator).n_examples == N
    with pytest.raises(ValueError, match=r"gives nothing.*used up before"):
        ridge(make_map(), iterator)


def test_columns_that_float32_cannot_tell_apart(make_map):
    x = X.astype(np.float64)
    x[:, 3] = 1.7e9 + 100 * np.arange(12)
    message = r"column 3 of x varies from 1700000000 to 1700001100.*Standardise"
    for order in (np.arange(12), np.arange(12)[::-1]):  # the largest in the last or first batch
        with pytest.warns(RuntimeWarning, match=message) as caught:
            ridge(make_map(), [(x[rows], Y[rows]) for rows in (order[:5], order[5:])])
        assert [w.filename for w in caught if "column 3" in str(w.message)] == [__file__]
