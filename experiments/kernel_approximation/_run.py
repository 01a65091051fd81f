"""The comparison, from settings to a record, a table and a figure."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ntk_sketch as ns
from experiments._phases import Phases
from experiments._record import command_line, environment, write_record
from experiments.cifar10 import data
from experiments.cifar10._architectures import myrtle
from experiments.cifar10._preprocess import Steps, fit

from ._exact import KERNELS, exact_kernels, fingerprint, load
from ._measure import (
    centred_error,
    compute,
    errors,
    feature_counts,
    grams,
    interleaved_seconds,
    large_product,
    load_average,
    memory,
    relative_error,
    spectral_error,
)
from ._methods import METHODS
from ._settings import Settings

BATCH_SIZES = {"cpu": (2, 4, 8), "gpu": (128, 512, 2048)}
TIMED = {"cpu": 256, "gpu": 16384}  # images on which the speed is measured
CHOOSING = 3  # repetitions that choose the batch size; others time the chosen one
MEASURES = {"relative": relative_error, "centred": centred_error, "spectral": spectral_error}

Case = tuple[str, int]  # a method and a width


def run(settings: Settings) -> dict[str, Any]:
    """Does what `settings` ask for; prints, writes and returns the record.

    Speed and memory come first, before the exact kernel has left its traces in the process.

    Raises:
        data.DataError: data that is missing, damaged or too small, before anything long starts.
        DamagedFile: the stored exact kernel cannot be read.
    """
    phases = Phases()
    source = data.find(settings.data_dir)
    train = min(settings.train, source.n_train)
    if settings.images > source.n_test:
        raise data.DataError(
            f"--images {settings.images:,}: {source.description} has {source.n_test:,} test images."
        )
    with phases("reading"):
        train_images = source.read("train", train)[0]
        images = source.read("test", settings.images)[0]
    print(f"{source.dataset}: first {settings.images} test images from {source.description}")
    steps = Steps(zca_reg=settings.zca_reg)
    with phases("preprocessing"):
        preprocessing = fit(train_images, steps)
        x_train, x = preprocessing(train_images), preprocessing(images)
    model = myrtle(shape=source.shape, **settings.network)
    kernel_hash = fingerprint(
        settings.network | {"preprocessing": asdict(steps)}, train_images, images
    )
    kernel_file = settings.out / f"exact-{kernel_hash}.npz"
    rows_done, _ = load(kernel_file, len(x))

    with phases("fitting the maps"):
        maps = {
            (method, width): [
                ns.feature_map(
                    model,
                    jnp.asarray(x_train[: settings.sample]),
                    METHODS[method](width=width),
                    key=jax.random.key(settings.seed + k),
                )
                for k in range(settings.seeds)
            ]
            for width in settings.widths
            for method in settings.methods
        }
    backend = "cpu" if jax.default_backend() == "cpu" else "gpu"
    sizes = settings.batch_sizes or BATCH_SIZES[backend]
    sizes = tuple(size for size in sizes if size <= train) or (train,)
    firsts = {case: of_case[0] for case, of_case in maps.items()}
    speeds, loads = _speeds(firsts, x_train, sizes, settings.repetitions, phases)

    with phases("features"):
        close = {
            case: [grams(feature_map, x, speeds[case]["batch_size"]) for feature_map in of_case]
            for case, of_case in maps.items()
        }
    pairs = len(x) * (len(x) + 1) // 2
    with (
        phases("exact kernel"),
        _bar("exact kernel", pairs, " pairs", rows_done * (rows_done + 1) // 2) as bar,
    ):
        exact = exact_kernels(model[2], x, kernel_file, progress=bar.update)

    rows = [
        {
            "method": method,
            "width": width,
            "n_features": feature_counts(firsts[method, width]),
            "errors": errors(close[method, width], exact, MEASURES),
        }
        | speeds[method, width]
        for method in settings.methods
        for width in settings.widths
    ]
    record = {
        "experiment": "kernel_approximation",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("data_dir", "out")},
        "environment": environment() | {"load_average": loads},
        "data": {"dataset": source.dataset, "format": source.format, "train": train},
        "exact_kernel": {
            "hash": kernel_hash,
            "pairs": pairs,
            "pairs_computed_now": pairs - rows_done * (rows_done + 1) // 2,
        },
        "results": rows,
        "phases": phases.record(),
    }
    name = _name(settings, source)
    write_record(settings.out / f"{name}.json", record)
    print(f"\n{table(rows)}\n\n{phases.table()}\n\nrecord: {settings.out / name}.json")
    _draw(settings, source, name, rows)
    return record


def _speeds(
    maps: dict[Case, ns.FeatureMap],
    x: np.ndarray,
    sizes: tuple[int, ...],
    repetitions: int,
    phases: Phases,
) -> tuple[dict[Case, dict[str, Any]], dict[str, float | None]]:
    """Batch size, images per second and peak memory of every map, and the load meanwhile."""
    timed = TIMED["cpu" if jax.default_backend() == "cpu" else "gpu"]
    calls = {
        (case, size): lambda m=feature_map, size=size: compute(m, x, size, timed // 4)
        for case, feature_map in maps.items()
        for size in sizes
    }
    with phases("compiling"), _bar("compiling", len(calls), " programs") as bar:
        interleaved_seconds(calls, 1, bar.update)
    loads = {"before timing": load_average()}
    total = len(calls) * CHOOSING * (len(sizes) > 1) + (len(maps) + 1) * repetitions
    with phases("timing"), _bar("timing", total, " calls") as bar:
        best = dict.fromkeys(maps, sizes[0])
        if len(sizes) > 1:
            tried = interleaved_seconds(calls, CHOOSING, bar.update)
            for case in maps:
                best[case] = min(sizes, key=lambda size: np.median(tried[case, size]))
        chosen: dict[Any, Any] = {
            case: lambda m=feature_map, size=best[case]: compute(m, x, size, timed)
            for case, feature_map in maps.items()
        }
        chosen["large product"], product_flops = large_product()
        seconds = interleaved_seconds(chosen, repetitions, bar.update)
    product_rate = product_flops / float(np.median(seconds["large product"]))
    loads["after timing"] = load_average()
    with phases("memory"):
        peaks = {case: memory(maps[case], jnp.asarray(x[: best[case]])) for case in maps}
    speeds = {}
    for case in maps:
        rates = timed / np.array(seconds[case])
        flops = maps[case].cost((1, *x.shape[1:])).flops
        flops_rate = flops * float(np.median(rates))
        speeds[case] = {
            "batch_size": best[case],
            "images_per_second": float(np.median(rates)),
            "images_per_second_all": [round(float(rate), 3) for rate in rates],
            "flops_per_image": flops,
            "flops_per_second": flops_rate,
            "large_product_flops_per_second": product_rate,
            "share_of_large_product": flops_rate / product_rate,
            "memory_bytes": peaks[case],
        }
    return speeds, loads


def table(rows: list[dict[str, Any]]) -> str:
    """Errors (mean and standard deviation over keys), speed, memory of program and process.

    `share` is that of the rate of a large matrix product, interleaved with the maps.
    """
    width = max(len(row["method"]) for row in rows)
    measures = list(rows[0]["errors"][KERNELS[0]])
    columns = [
        f"{k.upper()}{'' if m == 'relative' else ' ' + m}" for k in KERNELS for m in measures
    ]
    heading = "".join(f"{column:>17}" for column in columns)
    lines = [
        f"{'':{width}} width{heading}  images/s  GFLOP/s  share  batch  program MiB  process MiB"
    ]
    for row in rows:
        cells = ""
        for kernel in KERNELS:
            for measure in measures:
                error = row["errors"][kernel][measure]
                spread = "" if error["std"] is None else f"±{error['std']:.4f}"
                cells += f"{error['mean']:.4f}{spread}".rjust(17)
        program, process = (row["memory_bytes"][k] / 2**20 for k in ("program", "peak_rss"))
        lines.append(
            f"{row['method']:{width}} {row['width']:5}{cells}  {row['images_per_second']:8.1f}  "
            f"{row['flops_per_second'] / 1e9:7.1f}  {row['share_of_large_product']:5.2f}  "
            f"{row['batch_size']:5}  {program:11.1f}  {process:11.0f}"
        )
    return "\n".join(lines)


def _bar(what: str, total: int, unit: str, initial: int = 0) -> tqdm:
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, initial=initial, desc=what, unit=unit, mininterval=interval)


def _name(settings: Settings, source: data.Source) -> str:
    default = Settings()
    parts = [
        source.dataset.lower().replace("-", ""),
        f"myrtle{settings.layers}",
        settings.nonlinearity.replace(":", "_"),
        "" if settings.W_std == default.W_std else f"W{settings.W_std:g}",
        "" if settings.b_std is None else f"b{settings.b_std:g}",
        "" if settings.zca_reg == default.zca_reg else f"zca{settings.zca_reg:g}",
        f"{settings.images}images",
        f"{settings.seeds}keys",
    ]
    return "-".join(part for part in parts if part)


def _draw(settings: Settings, source: data.Source, name: str, rows: list[dict[str, Any]]) -> None:
    """The figure; the record is already written, so that nothing is lost when it fails."""
    try:
        from ._figure import error_figure
    except ImportError as error:
        print(f"no figure: {error} (pip install matplotlib)", file=sys.stderr)
        return
    title = (
        f"{source.dataset}, Myrtle-{settings.layers} {settings.nonlinearity}, first "
        f"{settings.images} test images, mean and deviation over {settings.seeds} keys"
    )
    error_figure(settings.out / f"{name}.png", rows, title)
    print(f"figure: {settings.out / name}.png")
