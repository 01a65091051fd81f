"""Every place that CIFAR-10 can come from, with files of a few images."""

import io
import lzma
import os
import pickle
import struct
import sys
import textwrap
from typing import ClassVar

import numpy as np
import pytest

from experiments._common.data import ENVIRONMENT_VARIABLE, DataError, _tfds_child, find, open_path
from experiments._common.data._tfds import Deadlines, Unavailable, open_tfds

N_FILE = 6  # images in each synthetic file


def images(seed, count=N_FILE):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, 10, count, np.uint8)


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, which is how the official files are."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, data):
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    dispatch[bytes] = save_bytes


def python_2_pickle(batch):
    buffer = io.BytesIO()
    Python2Pickler(buffer, 2).dump(batch)
    return buffer.getvalue().replace(b"numpy._core", b"numpy.core")  # the module's name in NumPy 1


def write_python(folder, dumps=python_2_pickle, keys=(b"data", b"labels")):
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        x, y = images(k)
        batch = dict(zip(keys, (x.reshape(len(x), -1), y.tolist()), strict=True))
        (folder / name).write_bytes(dumps(batch))


def write_binary(folder):
    for k, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        x, y = images(k)
        (folder / name).write_bytes(np.c_[y, x.reshape(len(x), -1)].tobytes())


def pack(x):
    """Packs uint8 (n, 3, 32, 32), pixel by pixel as `unpack` documents it."""
    red, green, blue = x.astype(int).transpose(1, 0, 2, 3)
    planes = np.stack([green, (red - green + 128) & 255, (blue - green + 128) & 255])
    out = np.zeros(planes.shape, np.uint8)
    for plane, image, i, j in np.ndindex(*planes.shape):
        p = planes[plane, image]
        if i and j:
            a, b, c = p[i, j - 1], p[i - 1, j], p[i - 1, j - 1]
            guess = sorted((a, b, a + b - c))[1]  # the median edge predictor is a median
        elif i or j:
            guess = p[i, j - 1] if j else p[i - 1, j]
        else:
            guess = 128
        residual = (p[i, j] - guess + 128) % 256 - 128
        folded = 2 * residual if residual >= 0 else -2 * residual - 1
        out[plane, image, i, 31 - j if i % 2 else j] = folded
    return lzma.compress(out.tobytes())


def write_packed(folder):
    labels = []
    for k, name in enumerate([*(f"cifar10_train_{k}.xz" for k in range(1, 3)), "cifar10_test.xz"]):
        x, y = images(k)
        (folder / name).write_bytes(pack(x))
        labels.append(y)
    np.savez(folder / "cifar10_labels.npz", y_train=np.concatenate(labels[:2]), y_test=labels[2])


def write_small(folder):
    (x, y), (x_test, y_test) = images(0), images(5)
    np.savez(folder / "cifar10_small.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)


WRITERS = {
    "python 2 pickles": write_python,
    "python 3 pickles": lambda f: write_python(f, pickle.dumps, ("data", "labels")),
    "python 3, protocol 2": lambda f: write_python(f, lambda batch: pickle.dumps(batch, 2)),
    "binary": write_binary,
    "packed": write_packed,
    "small": write_small,
}
LAST_TRAINING_FILE = {"packed": 1, "small": 0}  # else 4
TEST_FILE = {"packed": 2}  # else 5


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("inside", [".", "cifar10"])
def test_every_format_gives_the_images(tmp_path, name, inside):
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    WRITERS[name](folder)
    source = open_path(tmp_path)
    assert source.n_train >= N_FILE
    assert source.n_test >= N_FILE
    count = N_FILE * (LAST_TRAINING_FILE.get(name, 4) + 1) - 2
    x, y = source.read("train", count)
    assert x.shape == (count, *source.shape)
    assert x.dtype == np.uint8
    files = [images(k) for k in range(LAST_TRAINING_FILE.get(name, 4) + 1)]
    expected = np.concatenate([a for a, _ in files])[:count]
    assert (x.transpose(0, 3, 1, 2) == expected).all()
    assert (y == np.concatenate([b for _, b in files])[:count]).all()
    x, y = source.read("test", 3)
    expected, labels = images(TEST_FILE.get(name, 5))
    assert (x.transpose(0, 3, 1, 2) == expected[:3]).all()
    assert (y == labels[:3]).all()


@pytest.mark.parametrize("name", ["python 2 pickles", "binary", "packed"])
def test_only_the_files_that_a_subset_needs_are_read(tmp_path, name):
    WRITERS[name](tmp_path)
    unneeded = [p for p in tmp_path.iterdir() if "_2" in p.name or "test" in p.name]
    unneeded.sort(key=lambda path: "test" in path.name)
    assert len(unneeded) == 2
    for path in unneeded:
        path.write_bytes(b"not a data file")
    x, _ = open_path(tmp_path).read("train", N_FILE)
    assert len(x) == N_FILE
    with pytest.raises(DataError, match=unneeded[0].name):
        open_path(tmp_path).read("train", N_FILE + 1)


@pytest.mark.parametrize("name", ["python 2 pickles", "python 3 pickles", "binary", "packed"])
@pytest.mark.parametrize("keep", [0.0, 0.4, 0.999])
def test_a_truncated_file_is_named(tmp_path, name, keep):
    WRITERS[name](tmp_path)
    path = next(p for p in tmp_path.iterdir() if "_1" in p.name)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=f"{path.name}: .* bytes .*truncated"):
        open_path(tmp_path).read("train", N_FILE)


@pytest.mark.parametrize(
    ("name", "file"), [("small", "cifar10_small.npz"), ("packed", "cifar10_labels.npz")]
)
def test_a_truncated_npz_is_named_when_it_is_found(tmp_path, name, file):
    WRITERS[name](tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=f"{file}: .* bytes .*truncated"):
        open_path(tmp_path)


def test_the_small_file_serves_small_subsets(tmp_path):
    write_packed(tmp_path)
    write_small(tmp_path)
    for path in tmp_path.glob("*.xz"):
        path.write_bytes(b"")
    x, _ = open_path(tmp_path).read("train", N_FILE)
    assert (x.transpose(0, 3, 1, 2) == images(0)[0]).all()


@pytest.mark.parametrize("name", ["python 2 pickles", "binary", "packed"])
def test_missing_files_are_named(tmp_path, name):
    WRITERS[name](tmp_path)
    first = next(p for p in tmp_path.iterdir() if "_1" in p.name)
    first.unlink()
    with pytest.raises(DataError, match="first training file is missing"):
        open_path(tmp_path)


def test_missing_second_training_file(tmp_path):
    write_binary(tmp_path)
    (tmp_path / "data_batch_2.bin").unlink()
    source = open_path(tmp_path)
    assert source.n_train == 10_000
    with pytest.raises(DataError, match="6 train images found in 1 files, 7 needed"):
        source.read("train", 7)


def test_missing_labels(tmp_path):
    write_packed(tmp_path)
    (tmp_path / "cifar10_labels.npz").unlink()
    with pytest.raises(DataError, match=r"cifar10_labels\.npz is missing"):
        open_path(tmp_path)


def test_a_folder_without_data_says_what_it_has_and_what_is_needed(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"tar\.gz.*Needed: .*data_batch_1.*Unpack the archive"):
        open_path(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        open_path(tmp_path / "elsewhere")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused(tmp_path, protocol):
    write_python(tmp_path)
    trap = tmp_path / "trap"
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Malicious(trap)}, protocol))
    with pytest.raises(DataError, match=r"data_batch_1: refused, it asks for .*mkdir"):
        open_path(tmp_path).read("train", 1)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "a dict"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "'labels'"),
        ({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}, "uint8"),
        ({b"data": np.zeros((2, 784), np.uint8), b"labels": [1, 2]}, "784 bytes"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}, "0 to 9"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "for 2 images"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": ["a", "b"]}, "integers"),
    ],
)
def test_pickles_that_are_no_batches(tmp_path, batch, message):
    write_python(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match=rf"data_batch_1: .*{message}"):
        open_path(tmp_path).read("train", 1)


def unreachable(say):
    raise Unavailable("no network")


def test_the_order_of_the_places(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        write_small(folder)
    lines = []
    options = {"say": lines.append, "tfds": unreachable}
    variable = {ENVIRONMENT_VARIABLE: str(second)}
    assert str(first) in find(str(first), environment=variable, **options).description
    assert str(second) in find(None, environment=variable, **options).description
    assert not lines
    digits = find(None, environment={}, **options)
    assert digits.dataset == "digits"
    assert "NO CIFAR-10: no network" in "\n".join(lines)
    with pytest.raises(DataError, match=f"{ENVIRONMENT_VARIABLE}.*is no folder"):
        find(None, environment={ENVIRONMENT_VARIABLE: str(tmp_path / "none")}, **options)


def test_digits():
    digits = find(None, environment={}, say=lambda line: None, tfds=unreachable)
    x, y = digits.read("train", digits.n_train)
    x_test, _ = digits.read("test", digits.n_test)
    assert (len(x), len(x_test)) == (1297, 500)
    assert x.shape[1:] == digits.shape
    assert x.max() == 16
    assert set(y) == set(range(10))
    with pytest.raises(DataError, match="1,298"):
        digits.read("train", digits.n_train + 1)


def child(tmp_path, body):
    """A stand-in for the process that runs TensorFlow Datasets; its data folder is tmp_path."""
    path = tmp_path / "child.py"
    start = "import sys, time, numpy as np\nsay = lambda *w: print(*w, sep='\\t', flush=True)\n"
    path.write_text(start + f"folder = {str(tmp_path)!r}\n" + textwrap.dedent(body))
    return sys.executable, str(path)


FINISH = """
x, y = np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.int32)
say("prepared")
np.savez(open(sys.argv[1], "wb"), x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
say("done")
"""
DEADLINES = Deadlines(importing=20, connecting=0.6, downloading=20, reading=20)


def test_tfds_without_network_is_given_up_soon(tmp_path):
    command = child(tmp_path, "say('imported', folder); time.sleep(60)")
    with pytest.raises(Unavailable, match="no network"):
        open_tfds(print, command, DEADLINES)


def test_tfds_import_does_not_count(tmp_path):
    source = open_tfds(
        print, child(tmp_path, "time.sleep(1)\nsay('imported', folder)" + FINISH), DEADLINES
    )
    assert (source.n_train, source.n_test) == (4, 2)
    assert source.read("train", 3)[0].shape == (3, 32, 32, 3)
    with pytest.raises(DataError, match="2 test images, 3 needed"):
        source.read("test", 3)


def test_tfds_download_in_progress_is_not_cut_off(tmp_path):
    body = """
    say("imported", folder); time.sleep(0.3)
    with open(folder + "/part", "wb") as file:
        file.write(b"0" * 100_000); file.flush()
        time.sleep(1.5)
    """
    lines = []
    source = open_tfds(lines.append, child(tmp_path, textwrap.dedent(body) + FINISH), DEADLINES)
    assert source.n_train == 4
    assert "downloading" in lines[0]


def test_tfds_stalled_download_is_given_up(tmp_path):
    body = """
    say("imported", folder); time.sleep(0.3)
    open(folder + "/part", "wb").write(b"0" * 100_000)
    time.sleep(60)
    """
    deadlines = Deadlines(importing=20, connecting=5, downloading=0.5)
    with pytest.raises(Unavailable, match="stopped while downloading"):
        open_tfds(print, child(tmp_path, body), deadlines)


def test_tfds_failure_shows_the_last_line(tmp_path):
    command = child(tmp_path, "say('imported', folder); raise OSError('host unknown')")
    with pytest.raises(Unavailable, match="while connecting: OSError: host unknown"):
        open_tfds(print, command, DEADLINES)


def test_tfds_reads_what_is_on_the_disk_without_tensorflow():
    """In the official order; and says when there is nothing to read."""
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(0, 256, (5, 32, 32, 3), np.uint8)}
    images["test"] = images["train"][:2]

    class Prepared:
        @staticmethod
        def data_source(name, *, split, download):
            assert (name, download) == ("cifar10", False)
            return [
                [
                    {"id": f"{one}_{i:05d}".encode(), "image": images[one][i], "label": i}
                    for i in rng.permutation(len(images[one]))
                ]
                for one in split
            ]

    class Absent:
        @staticmethod
        def data_source(name, **options):
            raise NotImplementedError("of TFRecord")

    found = _tfds_child.on_disk(Prepared)
    for split, expected in images.items():
        x, y = _tfds_child.arrays(found[split])
        np.testing.assert_array_equal(x, expected)
        assert (y.tolist(), y.dtype) == (list(range(len(expected))), np.int32)
    assert _tfds_child.on_disk(Absent) is None


@pytest.mark.skipif(ENVIRONMENT_VARIABLE not in os.environ, reason="needs CIFAR-10")
def test_real_files_hold_what_they_should():
    source = find()
    x, y = source.read("test", 1000)
    assert np.bincount(y, minlength=10).min() > 80
    assert abs(x.mean((0, 1, 2)) / 255 - [0.4914, 0.4822, 0.4465]).max() < 0.02
