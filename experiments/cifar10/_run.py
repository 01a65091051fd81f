"""The main job, from settings to a record and two figures."""

import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ntk_sketch as ns
from experiments._phases import Phases
from experiments._record import command_line, environment, write_record

from . import data
from ._architectures import myrtle
from ._methods import METHODS
from ._preprocess import fit
from ._regression import fit_path, predict_path
from ._settings import Settings

SAMPLE = 256  # training images that a method may look at


@dataclass(frozen=True)
class Size:
    """Defaults that depend on the device."""

    train: int
    test: int
    width: int


# The CPU's is what ends within five minutes on two cores; see README.md for the measurement.
SIZES = {"cpu": Size(8_000, 2_000, 128), "gpu": Size(50_000, 10_000, 1024)}
BATCH_BYTES = {"cpu": 2**30, "gpu": 8 * 2**30}


def run(settings: Settings) -> dict[str, Any]:
    """Does what `settings` ask for; prints, writes and returns the record.

    Raises:
        data.DataError: data that is missing, damaged or too small, before anything long starts.
    """
    phases = Phases()
    backend = "cpu" if jax.default_backend() == "cpu" else "gpu"
    source = data.find(settings.data_dir)
    n_train, n_test = _sizes(settings, source, SIZES[backend])
    width = settings.width or SIZES[backend].width
    select = settings.select or ("loo" if settings.flip else "gcv")
    with phases("reading"):
        images, labels = source.read("train", n_train)
        test_images, test_labels = source.read("test", n_test)
    print(f"{source.dataset}: {n_train:,} + {n_test:,} images from {source.description}")

    with phases("preprocessing"):
        groups = np.arange(n_train)
        if settings.flip:  # an image, then its mirror image
            images = np.stack([images, images[:, :, ::-1]], axis=1).reshape(-1, *source.shape)
            labels, groups = np.repeat(labels, 2), np.repeat(groups, 2)
        preprocessing = fit(images, settings.preprocessing)
        x, x_test = preprocessing(images), preprocessing(test_images)
    with phases("fitting the map"):
        model = myrtle(
            settings.architecture,
            source.shape,
            nonlinearity=settings.activation,
            W_std=settings.W_std,
            b_std=settings.b_std,
            classes=len(source.classes),
        )
        feature_map = ns.feature_map(
            model,
            jnp.asarray(x[:SAMPLE]),
            METHODS[settings.method](width=width),
            key=jax.random.key(settings.seed),
            get=(settings.kernel,),
        )
        batch_size = settings.batch_size or feature_map.batch_size(
            memory_bytes=BATCH_BYTES[backend]
        )
        batch_size = min(batch_size, len(x))
    with phases("compiling"):
        jax.block_until_ready(feature_map(jnp.repeat(x[:1], batch_size, axis=0)))

    options = {"get": settings.kernel, "batch_size": batch_size, "phases": phases}
    with _bar("training images", len(x)) as bar:
        path = fit_path(
            feature_map,
            x,
            np.eye(len(source.classes), dtype=np.float32)[labels] - 1 / len(source.classes),
            groups=groups,
            diag_reg=settings.diag_reg,
            select=select,
            progress=bar.update,
            **options,
        )
    with _bar("test images", n_test) as bar:
        outputs = predict_path(feature_map, path, x_test, progress=bar.update, **options)
    accuracies = (outputs.argmax(-1) == test_labels).mean(-1)

    images_per_second = (len(x) + n_test) / phases.seconds["features"]
    record = {
        "experiment": "cifar10",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": asdict(settings) | {"data_dir": settings.data_dir, "out": str(settings.out)},
        "environment": environment(),
        "data": {"dataset": source.dataset, "description": source.description},
        "resolved": {
            "train": n_train,
            "test": n_test,
            "width": width,
            "select": select,
            "batch_size": batch_size,
            "n_features": path.n_features,
        },
        "results": {
            "accuracy": float(accuracies[path.chosen]),
            "diag_reg": float(path.diag_reg[path.chosen]),
            "images_per_second": images_per_second,
            "path": {
                "diag_reg": path.diag_reg.tolist(),
                "score": [float(s) if np.isfinite(s) else None for s in path.scores],
                "test_accuracy": accuracies.tolist(),
            },
        },
        "phases": phases.record(),
    }
    name = _name(settings, source, n_train, n_test, width)
    write_record(settings.out / f"{name}.json", record)
    _report(record, phases, settings.out / f"{name}.json")
    _draw(settings.out, name, record, outputs[path.chosen], test_images, test_labels, source)
    return record


def _sizes(settings: Settings, source: data.Source, default: Size) -> tuple[int, int]:
    """Images to use: what was asked for, or what there is of the default."""
    sizes = []
    for split, asked, usual, there in (
        ("train", settings.train, default.train, source.n_train),
        ("test", settings.test, default.test, source.n_test),
    ):
        if asked is not None and asked > there:
            raise data.DataError(
                f"--{split} {asked:,}: {source.description} has {there:,} {split} images. Ask for "
                "fewer, or name other data with --data-dir."
            )
        sizes.append(min(usual, there) if asked is None else asked)
    return sizes[0], sizes[1]


def _bar(what: str, total: int) -> tqdm:
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=what, unit=" images", mininterval=interval, smoothing=0.05)


def _name(settings: Settings, source: data.Source, n_train: int, n_test: int, width: int) -> str:
    dataset = source.dataset.lower().replace("-", "")
    flip = "flip-" if settings.flip else ""
    nonlinearity = settings.activation.replace(":", "_")
    return (
        f"{dataset}-{settings.architecture}-{nonlinearity}-{settings.kernel}-"
        f"{settings.method}{width}-{flip}{n_train}+{n_test}-seed{settings.seed}"
    )


def _report(record: dict[str, Any], phases: Phases, path: Path) -> None:
    results, resolved = record["results"], record["resolved"]
    print(
        f"\ntest accuracy {results['accuracy']:.4f} on {resolved['test']:,} images of "
        f"{record['data']['dataset']}\n"
        f"diag_reg {results['diag_reg']:g}, chosen by {resolved['select']} on "
        f"{resolved['train']:,} training images\n"
        f"{resolved['n_features']:,} features, {results['images_per_second']:.1f} images per second"
        f" (batches of {resolved['batch_size']})\n\n{phases.table()}\n\nrecord: {path}"
    )


def _draw(out: Path, name: str, record: dict[str, Any], outputs, images, labels, source) -> None:
    """Figures; the record is already written, so that nothing is lost when one fails."""
    try:
        from ._figures import accuracy_figure, mistakes_figure
    except ImportError as error:
        print(f"no figures: {error} (pip install matplotlib)", file=sys.stderr)
        return

    results, resolved = record["results"], record["resolved"]
    title = (
        f"{source.dataset}, {record['settings']['architecture']} "
        f"{record['settings']['activation']}, {record['settings']['kernel'].upper()}, "
        f"{record['settings']['method']} of width {resolved['width']}, "
        f"{resolved['train']:,} training images: {results['accuracy']:.1%}"
    )
    accuracy_figure(
        out / f"{name}-accuracy.png",
        diag_reg=np.array(results["path"]["diag_reg"]),
        test_accuracy=np.array(results["path"]["test_accuracy"]),
        scores=np.array(results["path"]["score"], float),
        score_name=resolved["select"],
        chosen=results["diag_reg"],
        title=title,
    )
    mistakes_figure(
        out / f"{name}-mistakes.png",
        images=images,
        outputs=outputs,
        labels=labels,
        classes=source.classes,
        title="Most confident mistakes: lead of the wrong class\n" + title,
    )
    print(f"figures: {out / name}-accuracy.png, -mistakes.png")
