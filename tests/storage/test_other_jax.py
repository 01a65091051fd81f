"""Files saved with one version of JAX give the same predictions with another.

The files in `jax_0_4_35` were written by that version, and are written anew after a change of the
format or of a class in them by

    export PYTHONPATH=tests:. JAX_ENABLE_X64=1
    python -c "import saved_parts as s; s.save_all(FOLDER, 'few', 'float64')"

They are in float64: kernels magnify the rounding of float32, which differs between versions of XLA.
With `NTK_SKETCH_OTHER_PYTHON=/path/to/python`, an interpreter that has another version, both ways
are tried in fresh processes.
"""

import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import saved_parts

TESTS = Path(__file__).parents[1]
KEPT = Path(__file__).parent / "jax_0_4_35"
OTHER = os.environ.get("NTK_SKETCH_OTHER_PYTHON")
ELSEWHERE = """
import sys, jax, saved_parts
theirs, ours = sys.argv[1:]
saved_parts.save_all(theirs, "few", "float64")
saved_parts.answer_all(ours)
print(jax.__version__)
"""


def check(folder, answers):
    names = {path.name.removesuffix(".expected.npz") for path in folder.glob("*.expected.npz")}
    assert names == {"map", "solution"}
    for name in names:
        expected, found = np.load(folder / f"{name}.expected.npz"), answers(name)
        assert set(found) == set(expected)
        for key, array in expected.items():
            assert found[key].dtype == array.dtype
            largest = np.abs(array).max()
            np.testing.assert_allclose(found[key], array, atol=1e-6 * largest, err_msg=key)


def answers_here(folder):
    """Of this process."""
    return lambda name: saved_parts.answers(
        saved_parts.ns.load(folder / f"{name}.safetensors"), np.load(folder / f"{name}.x.npy")
    )


def test_files_of_an_older_jax(float64):
    check(KEPT, answers_here(KEPT))


@pytest.mark.skipif(OTHER is None, reason="NTK_SKETCH_OTHER_PYTHON names no interpreter")
def test_files_go_to_another_jax_and_come_from_it(tmp_path, float64):
    assert OTHER
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    saved_parts.save_all(ours, "few", "float64")
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # flags come and go
    environment["JAX_ENABLE_X64"] = "1"
    environment["PYTHONPATH"] = f"{TESTS}{os.pathsep}{TESTS.parent}"
    command = [OTHER, "-c", ELSEWHERE, theirs, ours]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    version = done.stdout.split()[-1]
    assert version != jax.__version__, f"{OTHER} has the same JAX"
    check(theirs, answers_here(theirs))
    check(ours, lambda name: np.load(ours / f"{name}.found.npz"))
