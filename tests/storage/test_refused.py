"""Files that are not loaded: the reason, and what to do."""

import json
import shutil
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved_parts
from safetensors.numpy import save_file

import ntk_sketch as ns
from ntk_sketch.numerics._precision import float64
from ntk_sketch.solvers import GramState
from ntk_sketch.storage import _file


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file of the smallest kind that has all parts."""
    path = tmp_path_factory.mktemp("saved") / "state"
    GramState.init(2, 1).update(jnp.ones((3, 2)), jnp.ones((3, 1))).save(path)
    return path


def resealed(content: bytes, old: str, new: str) -> bytes:
    """As another version, or somebody who knows the format, would have written it."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = header["__metadata__"]["ntk_sketch"]
    assert old in text
    header["__metadata__"]["ntk_sketch"] = text.replace(old, new)
    written = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(written)) + written + content[8 + length :]


def rewritten(path, old, new):
    """The same with the right checksum."""
    path.write_bytes(resealed(path.read_bytes(), old, new))
    with open(path, "rb+") as file:
        place = _file._BEGINNING.match(file.read(_file._BEGINNING_BYTES)).start(1)
        digest = _file._digest(file, place)
        file.seek(place)
        file.write(digest.encode())


def test_every_byte_counts(saved, tmp_path):
    """One flipped bit in any byte of header or data, or a letter of the other case."""
    content, damaged = saved.read_bytes(), tmp_path / "damaged"
    ns.load(saved)
    for flip in (1, 32, 128):
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= flip
            damaged.write_bytes(changed)
            with pytest.raises(ValueError, match=r"damaged|truncated|altered|newer"):
                ns.load(damaged)


def test_truncated_and_longer_files(saved, tmp_path):
    content, damaged = saved.read_bytes(), tmp_path / "damaged"
    for size in range(len(content)):
        damaged.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"truncated: it has|does not begin"):
            ns.load(damaged)
    assert size == len(content) - 1
    damaged.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"has {size} bytes of {size + 1}. Copy it again"):
        ns.load(damaged)
    damaged.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="altered since it was saved"):
        ns.load(damaged)


def test_files_of_something_else(tmp_path):
    path = tmp_path / "other"
    save_file({"weights": np.ones(3)}, path, metadata={"format": "pt"})
    others = [path.read_bytes(), b"", b"x,y\n1,2\n", b"\x80\x04N.", b"\xff" * 4096]
    for content in others:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"another file, or damaged. Give a file that save"):
            ns.load(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*missing. Give the path"):
        ns.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match=r"is a folder. Give the path of the file"):
        ns.load(tmp_path)


def test_a_newer_format(saved, tmp_path):
    path = shutil.copy(saved, tmp_path / "state")
    path.write_bytes(resealed(path.read_bytes(), '"version":1,', '"version":12,'))
    with pytest.raises(ValueError, match=r"version 12 .* up to 1. Install a newer ntk_sketch"):
        ns.load(path)


def test_a_class_that_another_version_had(saved, tmp_path):
    path = shutil.copy(saved, tmp_path / "state")
    rewritten(path, "ntk_sketch.solvers:GramState", "ntk_sketch.solvers:Sums")
    told = rf"saved by ntk_sketch {ns.__version__}: ntk_sketch.solvers:Sums .*cannot be imported"
    with pytest.raises(ImportError, match=told):
        ns.load(path)
    path = shutil.copy(saved, tmp_path / "state")
    rewritten(path, '"one_output":', '"single":')
    with pytest.raises(
        ValueError, match=r"had the fields .*single, weighted and has .*one_output, weighted here"
    ):
        ns.load(path)


def test_a_function_of_users_that_is_not_here(tmp_path, monkeypatch):
    path = tmp_path / "map"
    averaged = saved_parts.dense_map(saved_parts.METHODS["random"]).averaged(saved_parts.turned)
    averaged.save(path)
    monkeypatch.delattr(saved_parts, "turned")
    with pytest.raises(ImportError, match=r"saved_parts:turned .*AttributeError.*PYTHONPATH"):
        ns.load(path)
    monkeypatch.setitem(sys.modules, "saved_parts", None)
    with pytest.raises(ImportError, match=r"saved_parts:turned .*PYTHONPATH"):
        ns.load(path)


def test_nothing_is_called(saved, tmp_path):
    """Names in a file are imported, and classes filled: a file cannot make them do anything."""
    for kind in ("named tuple", "enum"):
        path = shutil.copy(saved, tmp_path / "state")
        called = json.dumps({kind: "subprocess:getoutput", "items": ["exit 3"], "name": "x"})
        rewritten(path, '"one_output":false', f'"one_output":{called}')
        with pytest.raises(ImportError, match="subprocess:getoutput is <function"):
            ns.load(path)


def test_float64_needs_float64(tmp_path):
    with float64():
        GramState.init(2, 1, jnp.float64).save(tmp_path / "state")
        assert ns.load(tmp_path / "state").gram.high.dtype == jnp.float64
    with pytest.raises(ValueError, match=r"arrays of float64.*update\('jax_enable_x64', True\)"):
        ns.load(tmp_path / "state")


def test_arrays_without_numbers_are_refused_when_saving(tmp_path):
    scaling = saved_parts.scaling()
    object.__setattr__(scaling, "shift", np.asarray(["a"]))
    state = GramState.init(2, 1)
    object.__setattr__(state, "gram", scaling)
    with pytest.raises(TypeError, match="dtype <U1 cannot be saved"):
        state.save(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []
    assert jax.tree.leaves(scaling)
