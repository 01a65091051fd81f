"""Interrupted runs resume from their checkpoint and end in the same bits."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.numerics._threads import uninterrupted
from ntk_sketch.solvers import Checkpoint, HoldOut, LeaveOneOut, _run, _sums, accumulate, ridge
from ntk_sketch.storage import _file

TESTS = Path(__file__).parents[1]
N, ROWS = 9000, 64
KEY = jax.random.key(0)


@pytest.fixture(params=[True, False], ids=["sums on the host", "sums on the device"])
def on_host(request, monkeypatch):
    monkeypatch.setattr(_sums, "_on_host", lambda: request.param)
    return request.param


@pytest.fixture(params=["arrays", "batches"])
def given(request, make_data):
    """`given(n)`: the data of the first n examples."""
    x, y = make_data(N)

    def data(n=N, x=x, y=y):
        if request.param == "arrays":
            return x[:n], y[:n]
        return (lambda: ((x[i : min(i + 100, n)], y[i : i + 100]) for i in range(0, n, 100)),)

    return data


def options(path, **more):
    return {"batch_size": ROWS, "checkpoint": Checkpoint(path, seconds=0), **more}


def same(one, other):
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return all(np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))


class StopError(Exception):
    pass


def stop_after(n):
    """Progress that raises once so many examples are done; counts in `done`."""

    def progress(count):
        progress.done += count
        if progress.done >= n:
            raise StopError

    progress.done = 0
    return progress


class Counter:
    def __init__(self):
        self.calls = []

    def __call__(self, count):
        self.calls.append(count)


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_host")
def test_stopped_several_times(make_map, given, tmp_path):
    feature_map, path = make_map(), tmp_path / "run.safetensors"
    undisturbed = accumulate(feature_map, *given(), batch_size=ROWS)
    for stop in (1000, 3000, 3100, 8000):
        with pytest.raises(StopError) as caught:
            accumulate(feature_map, *given(), **options(path, progress=stop_after(stop)))
        if path.exists():
            about, _ = _file.read(path)
            assert not about["finished"]
            assert 0 <= stop - about["examples"] <= 2048 + 2 * ROWS
            assert f"first {about['examples']} examples are in" in caught.value.__notes__[-1]
    count = Counter()
    state = accumulate(feature_map, *given(), **options(path, progress=count))
    assert same(state, undisturbed)
    assert sum(count.calls) == N
    assert count.calls[0] >= 6000  # what was done is reported at once
    assert os.listdir(tmp_path) == ["run.safetensors"]


@pytest.mark.usefixtures("on_host")
def test_a_finished_run_returns_at_once(make_map, features_type, given, tmp_path):
    path = tmp_path / "run.safetensors"
    calls, inner = [], make_map()

    def feature_map(x):
        calls.append(x)  # when it is traced, for the shape or to be compiled
        return inner(x)

    first = accumulate(feature_map, *given(), **options(path))
    before, written = len(calls), path.stat().st_mtime_ns
    again = accumulate(feature_map, *given(), **options(path))
    assert same(first, again)
    assert len(calls) == before
    assert path.stat().st_mtime_ns == written


def test_a_plain_path(make_map, given, tmp_path):
    path = str(tmp_path / "run")
    first = accumulate(make_map(), *given(), checkpoint=path)
    assert same(first, accumulate(make_map(), *given(), checkpoint=path))
    assert _file.read(path)[0]["finished"]


def test_it_is_no_model(make_map, given, tmp_path):
    path = tmp_path / "run.safetensors"
    accumulate(make_map(), *given(200), checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.safetensors holds a .* no model: the call"):
        ns.load(path)


@pytest.mark.parametrize("select", [None, "gcv", "loo", HoldOut(0.2, key=KEY)])
def test_ridge_goes_on(make_map, given, select, tmp_path):
    path, values = tmp_path / "run", [1e-3, 0.1]
    how = {"diag_reg": values, "select": select, "fit_intercept": True}
    expected = ridge(make_map(), *given(), batch_size=ROWS, **how)
    with pytest.raises(StopError):
        ridge(make_map(), *given(), **how, **options(path, progress=stop_after(5000)))
    assert 2000 < _file.read(path)[0]["examples"] < 5000
    solution = ridge(make_map(), *given(), **how, **options(path))
    np.testing.assert_array_equal(solution.path_weights, expected.path_weights)
    if select is not None:
        np.testing.assert_array_equal(solution.scores, expected.scores)


def test_features_kept_by_a_run_that_goes_on(make_map, make_data, tmp_path):
    """Features kept as they go by are not those of examples that were done before."""
    x, y = make_data(N)
    select = LeaveOneOut(x, y, sample=200, key=KEY)
    how = {"diag_reg": [0.1, 1.0], "select": select}
    whole = ridge(make_map(), x, y, batch_size=ROWS, **how)
    path = tmp_path / "run"
    with pytest.raises(StopError):
        ridge(make_map(), x, y, **options(path, **how, progress=stop_after(N // 2)))
    how["keep_features"] = True
    resumed = ridge(make_map(), x, y, **options(path, **how))
    assert resumed.n_examples == N
    with pytest.raises(ValueError, match="leave out one of the two"):
        ridge(make_map(), x, y, **options(path, **how | {"select": "loo"}))
    np.testing.assert_allclose(resumed.scores, whole.scores, rtol=1e-6)


def test_gcv_sees_landmarks_that_were_done(make_data, tmp_path):
    """Of an iterator: their inputs go by once more."""
    x = make_data(3000)[0]
    y = np.tanh(x[:, :1])
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(model, x[:100], ns.Nystroem(40), key=KEY)
    how = {"diag_reg": [1e-3, 1.0], "select": "gcv"}
    pairs = lambda: ((x[i : i + 64], y[i : i + 64]) for i in range(0, 3000, 64))  # noqa: E731
    expected = ridge(feature_map, x, y, batch_size=ROWS, **how).scores
    path = tmp_path / "run"
    with pytest.raises(StopError):
        ridge(feature_map, pairs(), **how, **options(path, progress=stop_after(2900)))
    assert _file.read(path)[0]["examples"] == 2048  # all landmarks among them
    found = ridge(feature_map, pairs(), **how, **options(path)).scores
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_few_examples(make_map, make_data, tmp_path):
    """Primal with a checkpoint, though there are fewer than features."""
    x, y = make_data(12)
    plain = ridge(make_map(), x, y, diag_reg=0.1)
    for _ in range(2):
        found = ridge(make_map(), x, y, diag_reg=0.1, checkpoint=tmp_path / "run")
        np.testing.assert_allclose(found.predict(x), plain.predict(x), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64", "on_host")
def test_float64(make_map, make_data, tmp_path):
    x, y = make_data(N, np.float64)
    feature_map, path = make_map(dtype=np.float64), tmp_path / "run"
    undisturbed = accumulate(feature_map, x, y, batch_size=ROWS)
    with pytest.raises(StopError):
        accumulate(feature_map, x, y, **options(path, progress=stop_after(5000)))
    assert same(accumulate(feature_map, x, y, **options(path)), undisturbed)


# ---- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "sums"),
    [pytest.param("arrays", "host", marks=pytest.mark.slow), ("batches", "device")],
)
def test_killed_at_any_moment(kind, sums, tmp_path):
    """Three times by SIGKILL; nothing is lost but the time since the last write."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    script = Path(__file__).with_name("resumed_run.py")

    def start(path, result):
        command = [sys.executable, script, tmp_path / path, tmp_path / result, kind, sums]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"begins\n"
        return process

    assert start("undisturbed", "expected").wait() == 0
    rng, done = np.random.default_rng(0), [0]
    for kills in range(3):
        process = start("run", "result")
        if not kills:  # before there is anything
            time.sleep(rng.uniform(0, 0.3))
        else:
            for _ in range(1000):  # until it came further
                if (tmp_path / "run").exists() and progress_of(tmp_path / "run") > done[-1]:
                    break
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if (tmp_path / "run").exists():
            done.append(progress_of(tmp_path / "run"))
    assert 0 < done[-1] < 60_000, "not in the middle of the run"
    assert done == sorted(done)
    assert not (tmp_path / "result").exists()
    assert start("run", "result").wait() == 0
    one, other = (_file.read(tmp_path / name)[1] for name in ("expected", "result"))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def progress_of(path):
    return _file.read(path)[0]["examples"]


# ---- Ctrl-C --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_host")
def test_an_interrupt_keeps_all_whole_blocks(make_map, given, tmp_path):
    """Also what was not due to be written; and says how to go on, within a second."""
    feature_map, path = make_map(), tmp_path / "run"
    undisturbed = accumulate(feature_map, *given(), batch_size=ROWS)
    pressed = []

    def press(count, done=[0]):  # noqa: B006
        done[0] += count
        if done[0] >= 5000 and not pressed:
            pressed.append(time.perf_counter())
            signal.raise_signal(signal.SIGINT)

    checkpoint = Checkpoint(path, seconds=1e6)
    with pytest.raises(KeyboardInterrupt) as caught:
        accumulate(feature_map, *given(), batch_size=ROWS, checkpoint=checkpoint, progress=press)
    assert time.perf_counter() - pressed[0] < 1
    done = progress_of(path)
    assert done >= 5000 - 2048 - ROWS
    assert caught.value.__notes__ == [
        f"The statistics of the first {done} examples are in {path}: the same call on the same"
        " data goes on from there."
    ]
    assert same(accumulate(feature_map, *given(), **options(path)), undisturbed)


def test_an_interrupt_while_the_iterable_waits(make_map, make_data, tmp_path):
    """For a server that does not answer: the thread is left behind, and ends with the process."""
    (x, y), answer = make_data(5000), threading.Event()

    def batches():
        yield x, y
        answer.wait(30)

    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        begin = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            accumulate(make_map(), batches, **options(tmp_path / "run"))
        assert time.perf_counter() - begin < 0.5 + 1.0
        assert progress_of(tmp_path / "run") >= 2048
    finally:
        answer.set()


def test_a_block_is_not_interrupted():
    seen = []

    def run():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            seen.append("went on")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert seen == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with uninterrupted():
        pass


def test_in_a_thread_that_is_not_interrupted(make_map, make_data, tmp_path):
    """Where Python lets nobody handle signals."""
    states = []

    def run():
        states.append(accumulate(make_map(), *make_data(N), **options(tmp_path / "run")))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert int(states[0].n_examples) == progress_of(tmp_path / "run") == N


# ---- errors in the data --------------------------------------------------------------------------


def test_not_a_number_in_a_late_batch(make_map, make_data, tmp_path):
    """The checkpoint has what was before; mended data go on from there."""
    (x, y), path = make_data(N), tmp_path / "run"
    bad = x.copy()
    bad[7005, 2] = np.nan

    def of(x):
        return lambda: ((x[i : i + 10], y[i : i + 10]) for i in range(0, N, 10))

    undisturbed = accumulate(make_map(), of(x), batch_size=ROWS)

    checkpoint = Checkpoint(path, seconds=1e6)
    message = "in batch 700, examples 7000 to 7009: x is not finite"
    with pytest.raises(ValueError, match=message) as caught:
        accumulate(make_map(), of(bad), batch_size=ROWS, checkpoint=checkpoint)
    assert progress_of(path) == 6144  # three blocks of 2,048
    assert "first 6144 examples" in caught.value.__notes__[-1]
    assert same(accumulate(make_map(), of(x), **options(path)), undisturbed)


def test_an_error_in_the_sums_writes_nothing(make_map, make_data, monkeypatch, tmp_path):
    """A block may be half added then."""
    from ntk_sketch.solvers._running_sums import OnHost

    add, path = OnHost._add, tmp_path / "run"

    def failing(self, z, t, sample_weight):
        if self.n > 4000:
            self._sums.gram[:] = 1.0
            raise MemoryError
        add(self, z, t, sample_weight)

    monkeypatch.setattr(OnHost, "_add", failing)
    checkpoint = Checkpoint(path, seconds=1e6)
    with pytest.raises(MemoryError):
        accumulate(make_map(), *make_data(N), batch_size=ROWS, checkpoint=checkpoint)
    assert not path.exists()


def test_a_full_disk(make_map, make_data, monkeypatch, tmp_path):
    path, write = tmp_path / "run", _file.write
    undisturbed = accumulate(make_map(), *make_data(N), batch_size=ROWS)
    room = [2]

    def full(*arguments):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments)

    monkeypatch.setattr(_run._file, "write", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        accumulate(make_map(), *make_data(N), **options(path))
    assert caught.value.errno == errno.ENOSPC
    assert str(path) in str(caught.value)
    assert "last checkpoint there is of 4096 examples" in caught.value.__notes__[0]
    assert os.listdir(tmp_path) == ["run"]
    assert progress_of(path) == 4096
    assert room[0] == -1  # not tried again
    monkeypatch.undo()
    assert same(accumulate(make_map(), *make_data(N), **options(path)), undisturbed)


# ---- refused -------------------------------------------------------------------------------------


@pytest.fixture
def begun(make_map, make_data, tmp_path):
    """A checkpoint of 4,096 of 9,000 examples, and the call that goes on from it."""
    (x, y), path = make_data(N), tmp_path / "run"
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))

    def made(seed=0):
        method = ns.RandomFeatures(8)
        return ns.feature_map(model, x, method, key=jax.random.key(seed))

    def go_on(x=x, y=y, seed=0, **more):
        return accumulate(made(seed), x, y, **{**options(path), **more})

    with pytest.raises(StopError):
        go_on(progress=stop_after(5000))
    assert progress_of(path) == 4096
    return go_on, x, y, path


def changed(array, row):
    array = array.copy()
    array[row] += 1
    return array


REFUSED = {
    "another map": (lambda x, y: {"seed": 1}, "maps differ in what was drawn"),
    "another kernel": (lambda x, y: {"get": "nngp"}, "in the kernel that `get` names"),
    "another batch size": (lambda x, y: {"batch_size": 32}, r"\(batch_size\): 64 there, 32 here"),
    "other examples": (
        lambda x, y: {"x": changed(x, 130)},
        "examples 128 to 191 are not those of the run before: other data, or in another order",
    ),
    "other targets": (lambda x, y: {"y": changed(y, 0)}, "examples 0 to 63 are not those"),
    "another order": (lambda x, y: {"x": x[::-1], "y": y[::-1]}, "in another order"),
    "fewer": (lambda x, y: {"x": x[:-1], "y": y[:-1]}, "examples: 9000 there, 8999 here"),
    "one output": (lambda x, y: {"y": y[:, 0]}, "outputs: 3 there, None here"),
    "batches that end": (
        lambda x, y: {"x": [(x[:640], y[:640])], "y": None},
        "the data end after 10 blocks, and 64 were done before",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_checkpoint_of_something_else(begun, change, message):
    go_on, x, y, path = begun
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        go_on(**change(x, y))
    assert path.read_bytes() == before
    go_on()


def test_what_differs_after_what_is_done_is_no_matter(begun):
    go_on, x, *_ = begun
    go_on(x=changed(x, 4096))


def test_batches_go_on_from_arrays(begun):
    go_on, x, y, _ = begun
    pairs = [(x[i : i + 1000], y[i : i + 1000]) for i in range(0, N, 1000)]
    state = go_on(x=pairs, y=None)
    assert same(state, go_on())


def test_sums_of_another_device(begun, monkeypatch):
    go_on, *_ = begun
    on_host = _sums._on_host()
    monkeypatch.setattr(_sums, "_on_host", lambda: not on_host)
    with pytest.raises(ValueError, match="sums: on the host there, on the device here"):
        go_on()


def test_other_weights_than_before(make_map, make_data, tmp_path):
    feature_map, (x, y), weights = make_map(), make_data(300), np.ones(300)
    accumulate(feature_map, x, y, sample_weight=weights, **options(tmp_path / "run"))
    weights[130] = 2.0
    with pytest.raises(ValueError, match="examples 128 to 191 are not those of the run before"):
        accumulate(feature_map, x, y, sample_weight=weights, **options(tmp_path / "run"))


def test_more_examples_than_a_finished_run(make_map, make_data, tmp_path):
    (x, y), path = make_data(640), tmp_path / "run"
    accumulate(make_map(), [(x[:320], y[:320])], **options(path))
    with pytest.raises(ValueError, match=r"came to its end with example 319.*merge"):
        accumulate(make_map(), [(x, y)], **options(path))


def test_files_of_something_else(begun, tmp_path, monkeypatch):
    go_on, *_, path = begun
    good = path.read_bytes()
    newer = tmp_path / "newer"
    about, arrays = _file.read(path)
    del about["sha256"], about["version"], about["bytes"], about["dtypes"]
    for what, message in [
        (good[:-5], "is truncated"),
        (good[:-1] + bytes([good[-1] ^ 1]), "altered"),
        (b"my notes", "does not begin as a file"),
        ({**about, "checkpoint": 4}, "version 4 of a checkpoint; .* reads version 3: install"),
        ({**about, "kind": "GramState"}, "it holds a GramState, which is not overwritten"),
    ]:
        if isinstance(what, dict):
            _file.write(newer, what, arrays)
            what = newer.read_bytes()
        path.write_bytes(what)
        with pytest.raises(ValueError, match=f"{message}.*give another path or remove the file"):
            go_on()
        assert path.read_bytes() == what
    monkeypatch.setattr(_file, "VERSION", 0)
    path.write_bytes(good)
    with pytest.raises(ValueError, match=r"version 1 of the file format.*Install a newer"):
        go_on()


@pytest.mark.parametrize("seconds", [-1, float("nan"), "60", True, None])
def test_seconds(seconds, tmp_path):
    with pytest.raises(ValueError, match="needed: a number >= 0"):
        Checkpoint(tmp_path / "run", seconds=seconds)


def test_paths(make_map, tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        Checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"its folder .* does not exist"):
        Checkpoint(tmp_path / "none" / "run")
    with pytest.raises(TypeError, match=r"checkpoint=5; needed: a path, Checkpoint\(path"):
        accumulate(make_map(), np.ones((3, 6)), np.ones(3), checkpoint=5)
