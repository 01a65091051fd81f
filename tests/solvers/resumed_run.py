"""A run with a checkpoint in a process of its own, to be killed and started again.

python resumed_run.py checkpoint result arrays|batches host|device
"""

import sys
import time

import jax
import numpy as np
from small_map import SmallMap

from ntk_sketch.solvers import Checkpoint, _sums, accumulate
from ntk_sketch.storage import _file

N, BATCH = 60_000, 64


def main(path: str, result: str, kind: str, sums: str) -> None:
    _sums._on_host = lambda: sums == "host"
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 6)).astype(np.float32)
    y = np.tanh(x[:, :3]) + 7
    feature_map = SmallMap(jax.device_put(rng.normal(size=(6, 34)).astype(np.float32)))

    def batches():
        for start in range(0, N, 500):
            time.sleep(0.01)
            yield x[start : start + 500], y[start : start + 500]

    def slowly(count):  # so that there is time to be killed
        if kind == "arrays":
            time.sleep(0.0005)

    data = (x, y) if kind == "arrays" else (batches,)
    checkpoint = Checkpoint(path, seconds=0.05)
    options = {"batch_size": BATCH, "checkpoint": checkpoint, "progress": slowly}
    print("begins", flush=True)
    state = accumulate(feature_map, *data, **options)
    _file.write(result, {}, jax.tree.leaves(state))


if __name__ == "__main__":
    main(*sys.argv[1:])
