"""The page on many machines: its scripts run, as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.solvers import accumulate, solve

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
SCRIPTS = dict(
    re.findall(r"^```python\n# (\w+\.py).*?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
)


@pytest.fixture
def folder(tmp_path, make_data, monkeypatch):
    """With a map and two shares of data; it is the working directory."""
    x, y = make_data(300)
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(model, x[:40], ns.Nystroem(12), key=jax.random.key(0))
    monkeypatch.chdir(tmp_path)
    feature_map.save("map.safetensors")
    for i, part in enumerate((slice(0, 120), slice(120, 300))):
        np.save(f"x-{i}.npy", x[part])
        np.save(f"y-{i}.npy", y[part])
    return tmp_path


def run(name, *arguments):
    """A script of the page, in this process."""
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        exec(compile(SCRIPTS[name], name, "exec"), {"__name__": "__main__"})
    finally:
        sys.argv = before


def test_jobs_that_never_meet(folder, make_data):
    for i in range(2):
        run("part.py", f"x-{i}.npy", f"y-{i}.npy", f"part-{i}.safetensors")
    run("finish.py", *sorted(map(str, folder.glob("part-*"))))
    found = ns.load("solution.safetensors")
    feature_map, (x, y) = ns.load("map.safetensors"), make_data(300)
    state = accumulate(feature_map, x, y)
    whole = solve(feature_map, state, diag_reg=[1e-4, 1e-3, 1e-2], select="gcv")
    assert found.diag_reg == whole.diag_reg
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-6)
    np.testing.assert_allclose(found.predict(x), whole.predict(x), atol=1e-5)


@pytest.mark.usefixtures("folder")
def test_one_script_for_all(monkeypatch):
    """Here of a single process."""
    monkeypatch.setattr(jax.distributed, "initialize", lambda: None)
    run("train.py")
    assert ns.load("solution.safetensors").n_examples == 120
    assert Path("run-0.safetensors").exists()


def test_dask(folder):
    pytest.importorskip("dask.distributed")
    (folder / "with_dask.py").write_text(SCRIPTS["with_dask.py"])
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "with_dask.py"], env=environment, check=True, timeout=120)
    assert ns.load("solution.safetensors").n_examples == 300
