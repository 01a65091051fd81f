"""A file is the old one or the new one, never a part."""

import os
import subprocess
import sys

import pytest

from ntk_sketch.storage._atomic import replacing


def test_the_new_file_takes_the_old_ones_place(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_leaves_the_old_file(error, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half():
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise error("something")

    with pytest.raises(error):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_is_there(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        own = getattr(os, name)

        def noted(*args, name=name, own=own):
            done.append(name)
            return own(*args)

        monkeypatch.setattr(os, name, noted)
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert done == ["fsync", "replace"]


def test_links_and_permissions_are_those_of_open(tmp_path):
    """Whatever a library does to the temporary file."""
    (tmp_path / "plain").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with replacing(tmp_path / "link") as temporary:
        temporary.write_text("new")
        temporary.chmod(0o600)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_where_no_file_can_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder .*missing does not exist. Make it first"):
        replacing(tmp_path / "missing" / "file").__enter__()
    with pytest.raises(IsADirectoryError, match=r"it is a folder. Give the path of a file"):
        replacing(tmp_path).__enter__()


FULL_DISK = """
import resource, sys
import numpy as np
from ntk_sketch.solvers import GramState
GramState.init(4, 1).save(sys.argv[1])
before = open(sys.argv[1], "rb").read()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    GramState.init(400, 1).save(sys.argv[1])
except OSError as error:
    print(type(error).__name__, error)
assert open(sys.argv[1], "rb").read() == before
"""


def test_a_disk_without_room(tmp_path):
    """The system refuses to write more: a real error half way through the new file."""
    command = [sys.executable, "-c", FULL_DISK, tmp_path / "state"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"cannot write {tmp_path / 'state'}: File too large" in printed
    assert "is unchanged" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
