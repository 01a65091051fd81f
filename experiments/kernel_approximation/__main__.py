"""`python -m experiments.kernel_approximation`: feature maps of a network for images.

Error, speed and memory of every method and width against the exact NNGP and NTK.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ntk_sketch as ns
from experiments._common import data
from experiments._common._arguments import (
    LARGEST,
    at_least_two,
    count,
    non_negative,
    nonlinearity,
    one_of,
    option,
    positive,
    seed,
    settings_from,
    up_to,
)
from experiments._common._command import exit_code
from experiments._common._measure import (
    compute,
    errors,
    grams,
    interleaved_seconds,
    large_product,
    load_average,
    memory,
)
from experiments._common._networks import NETWORKS, network
from experiments._common._phases import Phases
from experiments._common._preprocess import Steps, fit
from experiments._common._study import finish
from ntk_sketch.diagnostics import DamagedFile, exact_kernels

from ._figure import error_figure
from ._fingerprint import fingerprint
from ._methods import METHODS

KERNELS = ("nngp", "ntk")
BATCH_SIZES = {"cpu": (2, 4, 8), "gpu": (128, 512, 2048)}
TIMED = {"cpu": 256, "gpu": 16384}  # images on which the speed is measured
CHOOSING = 3  # repetitions that choose the batch size; others time the chosen one

Case = tuple[str, int]  # a method and a width


@dataclass(frozen=True)
class Settings:
    architecture: str = option("myrtle5", one_of(NETWORKS), ", ".join(NETWORKS))
    nonlinearity: str = option("relu", nonlinearity, name="NAME[:NUMBERS]")
    W_std: float = option(2**0.5, positive, "of every layer (default: sqrt 2)")
    b_std: float | None = option(None, non_negative, "of every layer (default: no bias)")
    zca_reg: float = option(0.1, non_negative, "(default: 0.1)")
    methods: tuple[str, ...] = option(
        ("Nystroem", "Nystroem-half-residual", "RandomFeatures"),
        one_of(METHODS),
        f"any of {', '.join(METHODS)}",
        "NAME",
    )
    widths: tuple[int, ...] = option((64, 128, 256), count, name="M")
    seeds: int = option(3, count, "number of keys")
    seed: int = option(0, seed, "of the first key")
    images: int = option(24, at_least_two, "first N test images, whose kernels are compared (24)")
    train: int = option(2_000, up_to(LARGEST["train"]), "images the preprocessing is fitted on")
    sample: int = option(60, count, "training images for methods that look at data (60)")
    batch_sizes: tuple[int, ...] = option((), count, "of which the fastest counts")
    repetitions: int = option(7, count, "interleaved timings, of which the median counts (7)")
    data_dir: str | None = option(None, str, "CIFAR-10: official files or packed pieces", "DIR")
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")

    @property
    def network(self) -> dict[str, Any]:
        """What makes the architecture, but for the shape of its inputs."""
        names = ("nonlinearity", "W_std", "b_std")
        return {"name": self.architecture} | {name: getattr(self, name) for name in names}


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record.

    Speed and memory come first, before the exact kernel has left its traces in the process.

    Raises:
        data.DataError: data that is missing, damaged or too small, before anything long starts.
    """
    phases, source = Phases(), data.find(settings.data_dir)
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
    model = network(shape=source.shape, **settings.network)
    with phases("fitting the maps"):
        sample = jnp.asarray(x_train[: settings.sample])
        maps = {
            (method, width): [
                ns.feature_map(model, sample, METHODS[method](width=width), key=jax.random.key(k))
                for k in range(settings.seed, settings.seed + settings.seeds)
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
    known = settings.network | {"preprocessing": asdict(steps)}
    kernel_hash = fingerprint(known, train_images, images)
    with phases("exact kernel"):
        path = settings.out / f"exact-{kernel_hash}.npz"
        try:
            exact = exact_kernels(model[2], x, KERNELS, path=path, progress=True)
        except DamagedFile as error:
            raise data.DataError(str(error)) from error
    rows = [
        {
            "method": method,
            "width": width,
            "n_features": firsts[method, width].n_features,
            "errors": errors(close[method, width], exact),
        }
        | speeds[method, width]
        for method in settings.methods
        for width in settings.widths
    ]
    title = (
        f"{source.dataset}, {settings.architecture} {settings.nonlinearity}, first "
        f"{settings.images} test images, mean and deviation over {settings.seeds} keys"
    )
    return finish(
        "kernel_approximation",
        settings,
        _name(settings, source),
        rows,
        f"\n{table(rows)}\n\n{phases.table()}",
        lambda path: error_figure(path, rows, title),
        environment={"load_average": loads},
        data={"dataset": source.dataset, "format": source.format, "train": train},
        exact_kernel={"hash": kernel_hash},
        phases=phases.record(),
    )


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
    with phases("compiling"), tqdm(desc="compiling", total=len(calls), unit=" programs") as bar:
        interleaved_seconds(calls, 1, bar.update)
    loads = {"before timing": load_average()}
    total = len(calls) * CHOOSING * (len(sizes) > 1) + (len(maps) + 1) * repetitions
    with phases("timing"), tqdm(desc="timing", total=total, unit=" calls") as bar:
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


def _name(settings: Settings, source: data.Source) -> str:
    default = Settings()
    parts = [
        source.dataset.lower().replace("-", ""),
        settings.architecture,
        settings.nonlinearity.replace(":", "_"),
        "" if settings.W_std == default.W_std else f"W{settings.W_std:g}",
        "" if settings.b_std is None else f"b{settings.b_std:g}",
        "" if settings.zca_reg == default.zca_reg else f"zca{settings.zca_reg:g}",
        f"{settings.images}images",
        f"{settings.seeds}keys",
    ]
    return "-".join(part for part in parts if part)


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; 0 when it is done, 2 when arguments or data make no sense, 130 on Ctrl-C."""
    module, text = "experiments.kernel_approximation", (__doc__ or "").split("\n\n", 1)[1]
    settings, parser = settings_from(Settings, module, text, arguments)
    if settings.sample > settings.train:
        parser.error(f"argument --sample: more than the {settings.train:,} training images")
    goes_on = "interrupted; the same command continues the exact kernel"
    return exit_code(run, settings, interrupted=goes_on)


if __name__ == "__main__":
    sys.exit(main())
