"""Memory-mapped arrays that are larger than the memory of a regression on them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ntk_sketch.solvers import ridge

TESTS = Path(__file__).parents[1]

#: Prints by how many megabytes memory of the process' own (without the pages of files) grew.
SCRIPT = """
import sys, threading, time
import jax, numpy as np
import ntk_sketch as ns
from small_map import SmallMap
from ntk_sketch.solvers import HoldOut, ridge

def anonymous():
    line = [l for l in open("/proc/self/status") if l.startswith("RssAnon")]
    return int(line[0].split()[1]) / 1024

class Marked(SmallMap):
    def is_landmark(self, x):
        return ns.identity._example_keys.is_among(x, keys)

folder, n, select = sys.argv[1], int(sys.argv[2]), sys.argv[3]
x = np.memmap(folder + "/x", np.float32, "r", shape=(n, 32))
y = np.memmap(folder + "/y", np.float32, "r", shape=(n, 4))
keys = ns.identity._example_keys.example_keys(x[:10])
w = np.random.default_rng(3).normal(size=(32, 16)).astype(np.float32)
feature_map = Marked(jax.device_put(w), 512)
options = {"diag_reg": [1e-3, 1e-1], "select": select}
ridge(feature_map, np.array(x[:9000]), np.array(y[:9000]), **options)  # compiles
before, peak, running = anonymous(), [0.0], [True]

def watch():
    while running[0]:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
solution = ridge(feature_map, x, y, **options)
solution.predict(x)
running[0] = False
watcher.join()
assert solution.n_examples == n
print(peak[0] - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize("select", ["gcv", pytest.param("loo", marks=pytest.mark.slow)])
def test_memory_does_not_hold_the_examples(select, tmp_path):
    """600,000 examples are 77 MB, their targets 10 MB, the predictions 10 MB."""
    n, rng = 600_000, np.random.default_rng(0)
    rng.normal(size=(n, 32)).astype(np.float32).tofile(tmp_path / "x")
    rng.normal(size=(n, 4)).astype(np.float32).tofile(tmp_path / "y")
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(n), select]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert float(run.stdout) < 50


def test_a_memmap_is_an_array(make_map, make_data, tmp_path):
    x, y = make_data(500)
    x.tofile(tmp_path / "x")
    y.tofile(tmp_path / "y")
    files = [np.memmap(tmp_path / name, np.float32, "r") for name in "xy"]
    found = ridge(make_map(), files[0].reshape(500, 6), files[1].reshape(500, 3))
    np.testing.assert_array_equal(found.weights, ridge(make_map(), x, y).weights)
