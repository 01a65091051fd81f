"""`python -m benchmarks.rows`: kernel regression on millions of rows in a memory map.

Random rows, a net of two hidden ReLU layers, `ns.ridge` with a path and GCV in one pass: rows a
second, the share of a matrix product's rate measured before and after, and the largest anonymous
memory of the process, for every number of rows. The file stays out of it: the system may drop its
pages.

With `--processes 1 2 4` also the largest number of rows by so many processes, joined by
`jax.distributed`, each on as many cores as are there for the most processes.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import interleaved_seconds, large_product, load_average
from experiments._common._study import finish, markdown
from ntk_sketch import stax

SAMPLE = 4096
CHUNK = 100_000  # rows written at a time
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Settings:
    rows: tuple[int, ...] = option((100_000, 1_000_000, 10_000_000), count, "rows of the file")
    columns: int = option(32, count, name="D")
    width: int = option(512, count, name="M")
    processes: tuple[int, ...] = option((1,), count, "1 alone measures no scaling")
    data_dir: Path = option(Path(tempfile.gettempdir()), Path, "folder for the file of rows", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=settings.data_dir) as folder:
        x, y = written(Path(folder), max(settings.rows), settings.columns)
        layers = (stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()) * 2
        sample = np.array(x[:SAMPLE])
        feature_map = ns.feature_map(
            stax.serial(*layers, stax.Dense(1)),
            sample,
            ns.Nystroem(settings.width),
            key=jax.random.key(0),
            get="ntk",
        )
        p = int(feature_map.n_features["ntk"])
        map_flops = feature_map.cost((SAMPLE, settings.columns)).flops / SAMPLE
        fit(feature_map, x[: 2 * SAMPLE], y[: 2 * SAMPLE])  # compiles
        for rows in settings.rows:
            before = product_rate()
            with anonymous_memory() as growth:
                start = time.perf_counter()
                solution = fit(feature_map, x[:rows], y[:rows])
                seconds = time.perf_counter() - start
            rate = (before + product_rate()) / 2
            flops = rows * (map_flops + p**2)  # a symmetric product of p x rows by rows x p
            results[str(rows)] = {
                "seconds": seconds,
                "rows_per_second": rows / seconds,
                "share_of_matrix_rate": flops / seconds / rate,
                "anonymous_bytes": growth[0] if growth else None,
                "diag_reg": solution.diag_reg,
            }
        scaling = {}
        if max(settings.processes) > 1:
            feature_map.save(Path(folder, "map.safetensors"))
            scaling = by_processes(Path(folder), settings.processes, max(settings.rows))
    table = markdown(
        ["rows", "seconds", "rows/s", "share of the matrix rate", "anonymous memory, MiB"],
        [
            [
                f"{int(rows):,}",
                f"{r['seconds']:.1f}",
                f"{r['rows_per_second']:,.0f}",
                f"{r['share_of_matrix_rate']:.2f}",
                "-" if r["anonymous_bytes"] is None else f"{r['anonymous_bytes'] / 2**20:.0f}",
            ]
            for rows, r in results.items()
        ],
    )
    if scaling:
        table += "\n\n" + markdown(
            ["processes", "cores each", "seconds", "rows/s"],
            [
                [count, str(r["cores_each"]), f"{r['seconds']:.1f}", f"{r['rows_per_second']:,.0f}"]
                for count, r in scaling.items()
            ],
        )
    sizes = {"features": p, "map_flops_per_row": map_flops}
    environment = {"load_average": load_average()}
    name = f"rows-{settings.columns}x{settings.width}" + ("-processes" if scaling else "")
    parts = {"resolved": sizes, "environment": environment}
    return finish("rows", settings, name, results, table, by_processes=scaling, **parts)


def fit(
    feature_map: ns.FeatureMap, x: np.ndarray, y: np.ndarray, mesh: jax.sharding.Mesh | None = None
) -> ns.RidgeSolution:
    how = {"select": "gcv", "fit_intercept": True, "mesh": mesh}
    return ns.ridge(feature_map, x, y, diag_reg=[1e-6, 1e-5, 1e-4], **how)


def by_processes(folder: Path, counts: tuple[int, ...], rows: int) -> dict[str, Any]:
    """Seconds of the slowest process, compilation apart, for every number of processes."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    each, results = max(1, (usable or 1) // max(counts)), {}
    for number in counts:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks._rows_process", str(port), str(number)]
        options = [str(each), str(folder), str(rows)]
        root = Path(__file__).parents[1]
        running = [
            subprocess.Popen([*command, str(process), *options], cwd=root)
            for process in range(number)
        ]
        statuses = [process.wait() for process in running]
        if any(statuses):
            raise RuntimeError(f"one of {number} processes failed; its error is above")
        found = [json.loads((folder / f"process-{i}.json").read_text()) for i in range(number)]
        seconds = max(one["seconds"] for one in found)
        results[str(number)] = {
            "seconds": seconds,
            "rows_per_second": rows / seconds,
            "cores_each": each,
            "rows": found[0]["rows"],
            "diag_reg": found[0]["diag_reg"],
        }
    return results


def written(folder: Path, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and targets as memory maps: a smooth function of the rows with noise."""
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, columns))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (rows,))
    rng = np.random.default_rng(0)
    direction = rng.normal(size=columns) / columns**0.5
    for start in range(0, rows, CHUNK):
        part = rng.standard_normal((min(CHUNK, rows - start), columns), dtype=np.float32)
        x[start : start + CHUNK] = part
        noise = rng.standard_normal(len(part), dtype=np.float32)
        y[start : start + CHUNK] = np.sin(3 * part @ direction) + 0.3 * noise
    x.flush()
    y.flush()
    return np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")


def product_rate() -> float:
    """FLOPs a second of a matrix product in float32."""
    product, flops = large_product()
    return flops / min(interleaved_seconds({"": product}, 5)[""])


@contextmanager
def anonymous_memory(every: float = 0.1) -> Iterator[list[int]]:
    """A list that holds, behind the block, the largest anonymous memory of the process during it,
    in bytes; empty where the system does not tell."""
    found: list[int] = []
    largest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.wait(every):
            largest = max(largest, _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    if _STATUS.exists():
        watcher.start()
    try:
        yield found
    finally:
        done.set()
        if watcher.is_alive():
            watcher.join()
            found.append(max(largest, _anonymous()))


def _anonymous() -> int:
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return 1024 * int(lines[0].split()[1])


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.rows", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
