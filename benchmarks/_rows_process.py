"""One of several processes of `benchmarks.rows`, on cores of its own.

python -m benchmarks._rows_process port processes process cores folder rows
"""

import json
import os
import sys
import time
from pathlib import Path


def main(port: str, processes: str, process: str, cores: str, folder: str, rows: str) -> None:
    count, index, each = int(processes), int(process), int(cores)
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        own = {usable[(index * each + i) % len(usable)] for i in range(each)}
        os.sched_setaffinity(0, own)  # before any library counts cores
    import jax
    import numpy as np

    import ntk_sketch as ns

    from .rows import SAMPLE, fit

    mesh = None
    if count > 1:
        if jax.__version_info__ < (0, 6):
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
        mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    x, y = (np.load(Path(folder, name), mmap_mode="r") for name in ("x.npy", "y.npy"))
    feature_map = ns.load(Path(folder, "map.safetensors"))
    share = slice(int(rows) * index // count, int(rows) * (index + 1) // count)
    fit(feature_map, x[: 2 * SAMPLE], y[: 2 * SAMPLE], mesh)  # compiles, and waits for the others
    start = time.perf_counter()
    solution = fit(feature_map, x[share], y[share], mesh)
    seconds = time.perf_counter() - start
    found = {"seconds": seconds, "diag_reg": solution.diag_reg, "rows": solution.n_examples}
    Path(folder, f"process-{index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
