"""The main job, from settings to a record and two figures."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ntk_sketch as ns
from experiments._common import data
from experiments._common._phases import Phases
from experiments._common._study import finish
from ntk_sketch import stax
from ntk_sketch.maps import mirrored
from ntk_sketch.solvers import HoldOut, LeaveOneOut

from ._budget import LEFT_OUT, widths_within
from ._figures import accuracy_figure, mistakes_figure
from ._methods import METHODS
from ._recipes import RECIPES, Size
from ._settings import Settings

SAMPLE = 256  # training images that a method may look at


@dataclass(frozen=True)
class Resolved:
    """What the settings left open, decided from data and device."""

    train: int
    test: int
    width: tuple[int, ...]
    activation: str
    kernel: str
    flip: bool
    diag_reg: tuple[float, ...]
    select: str
    rank: int | None
    batch_bytes: int | None


def run(settings: Settings) -> dict[str, Any]:
    """Does what `settings` ask for; prints, writes and returns the record.

    Raises:
        data.DataError: data that is missing, damaged or too small, before anything long starts.
    """
    phases = Phases()
    source = data.open_digits() if settings.digits else data.find(settings.data_dir)
    resolved = _resolve(settings, source)
    model = _model(settings, resolved, source)
    with phases("reading"):
        images, labels = source.read("train", resolved.train)
        test_images, test_labels = source.read("test", resolved.test)
    print(
        f"{source.dataset}: {resolved.train:,} + {resolved.test:,} images from {source.description}"
    )
    with phases("preprocessing"):
        prepared = RECIPES[settings.recipe].prepared
        x, x_test, preprocess = prepared(images, test_images, settings.preprocessing)
    with phases("fitting the map"):
        feature_map = _feature_map(settings, resolved, model, x, preprocess)
        batch_size = settings.batch_size or feature_map.batch_size(resolved.batch_bytes)
        batch_size = min(batch_size, len(x))
    with phases("regression"):
        y = np.eye(len(source.classes), dtype=np.float32)[labels] - 1 / len(source.classes)
        solution = ns.ridge(
            feature_map,
            x,
            y,
            get=resolved.kernel,
            diag_reg=resolved.diag_reg,
            extend_path=len(resolved.diag_reg) > 1 and min(resolved.diag_reg) > 0,
            batch_size=batch_size,
            progress=True,
            fit_intercept=True,
            **_selection(resolved.select, settings.seed, x, y),
        )
    with phases("predictions"):
        outputs = np.asarray(solution.predict_path(x_test, progress=True))

    results = _results(solution, outputs, test_labels)
    results["images_per_second"] = len(x_test) / phases.seconds["predictions"]
    sizes = {"batch_size": batch_size, "n_features": feature_map.n_features[resolved.kernel]}
    known = asdict(resolved) | sizes
    chosen = outputs[solution.chosen]
    title = _title(settings, resolved, source, results)

    def draw(path: Path) -> list[Path]:
        paths = [path.with_name(f"{path.stem}-{what}.png") for what in ("accuracy", "mistakes")]
        accuracy_figure(paths[0], results, resolved.select, title)
        mistakes_figure(paths[1], test_images, chosen, test_labels, source.classes, title)
        return paths

    return finish(
        "cifar10",
        settings,
        _name(settings, resolved, source),
        results,
        _report(settings, source, known, results, phases),
        draw,
        data={"dataset": source.dataset, "format": source.format},
        resolved=known,
        phases=phases.record(),
    )


def _resolve(settings: Settings, source: data.Source) -> Resolved:
    """Sizes that were asked for, or what there is of the default of this device."""
    backend = "cpu" if jax.default_backend() == "cpu" else "gpu"
    recipe = RECIPES[settings.recipe]
    default, sizes = recipe.sizes[backend], {}
    for split, asked, usual, there in (
        ("train", settings.train, default.train, source.n_train),
        ("test", settings.test, default.test, source.n_test),
    ):
        if asked is not None and asked > there:
            raise data.DataError(
                f"--{split} {asked:,}: {source.description} has {there:,} {split} images. Ask for "
                "fewer, or name other data with --data-dir."
            )
        sizes[split] = min(usual, there) if asked is None else asked
    flip = recipe.flip if settings.flip is None else settings.flip
    return Resolved(
        **sizes,
        width=settings.width or _widths(settings, sizes, source, default, flip),
        activation=settings.activation or recipe.activation,
        kernel=settings.kernel or recipe.kernel,
        flip=flip,
        diag_reg=settings.diag_reg or recipe.diag_reg,
        select=settings.select or recipe.select,
        rank=(settings.rank or default.rank) if settings.method == "Nystroem" else None,
        batch_bytes=default.batch_bytes,
    )


def _widths(
    settings: Settings,
    sizes: dict[str, int],
    source: data.Source,
    default: Size,
    flip: bool,
) -> tuple[int, ...]:
    """A schedule: small where positions are many, large last, where it costs little.

    At most a quarter of the sample's positions at the last convolution: small images have few.
    """
    early, late, last = default.widths
    schedule = (early,) * (RECIPES[settings.recipe].nonlinearities - 2) + (late, last)
    if settings.budget is not None:
        images, views = sizes["train"] + sizes["test"], 1 + flip
        try:
            schedule = widths_within(
                settings.budget,
                images,
                sizes["train"],
                source.shape,
                grid=settings.grid,
                views=views,
                rank=settings.rank or default.rank,
            )
        except ValueError as error:
            raise data.DataError(f"--budget: {error}") from error
    most = SAMPLE * (source.shape[0] // 4) ** 2 // 4
    return tuple(min(width, most) for width in schedule)


def _model(settings: Settings, resolved: Resolved, source: data.Source) -> stax.Layer:
    try:
        return RECIPES[settings.recipe].model(
            source.shape,
            nonlinearity=resolved.activation,
            grid=settings.grid,
            W_std=settings.W_std,
            b_std=settings.b_std,
            classes=len(source.classes),
        )
    except ValueError as error:
        raise data.DataError(f"{settings.recipe} on {source.description}: {error}") from error


def _feature_map(
    settings: Settings, resolved: Resolved, model: stax.Layer, x: np.ndarray, preprocess: Any
) -> ns.FeatureMap:
    feature_map = ns.feature_map(
        model,
        jnp.asarray(x[:SAMPLE]),
        METHODS[settings.method](
            width=resolved.width[0] if len(resolved.width) == 1 else resolved.width,
            **({} if resolved.rank is None else {"rank": resolved.rank}),
        ),
        key=jax.random.key(settings.seed),
        get=(resolved.kernel,),
        preprocess=preprocess,
    )
    return feature_map.averaged(mirrored) if resolved.flip else feature_map


def _selection(select: str, seed: int, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """How `ns.ridge` chooses `diag_reg`."""
    key = jax.random.key(seed)
    if select == "validation":
        return {"select": HoldOut(0.2, key=key), "refit": True, "keep_features": True}
    if select == "accuracy":
        left_out = LeaveOneOut(x, y, loss="zero_one", sample=LEFT_OUT, key=key)
        return {"select": left_out, "keep_features": True}
    return {"select": select, "keep_features": select == "loo"}


def _results(solution: ns.RidgeSolution, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    accuracies = (outputs.argmax(-1) == labels).mean(-1)
    assert solution.scores is not None
    assert solution.chosen is not None
    return {
        "accuracy": float(accuracies[solution.chosen]),
        "diag_reg": solution.diag_reg,
        "path": {
            "diag_reg": [fit.diag_reg for fit in solution.fits],
            "score": [float(s) if np.isfinite(s) else None for s in solution.scores],
            "test_accuracy": accuracies.tolist(),
        },
    }


def _name(settings: Settings, resolved: Resolved, source: data.Source) -> str:
    parts = [
        source.dataset.lower().replace("-", ""),
        settings.recipe,
        resolved.activation.replace(":", "_"),
        resolved.kernel,
        settings.method + _dashed(resolved.width),
        f"rank{resolved.rank}" if resolved.rank else "",
        f"grid{settings.grid}" if settings.recipe == "patches" and settings.grid != 3 else "",
        "flip" if resolved.flip else "",
        f"{resolved.train}+{resolved.test}",
        f"seed{settings.seed}",
    ]
    return "-".join(part for part in parts if part)


def _dashed(widths: tuple[int, ...]) -> str:
    return "-".join(map(str, widths))


def _report(
    settings: Settings,
    source: data.Source,
    resolved: dict[str, Any],
    results: dict[str, Any],
    phases: Phases,
) -> str:
    return (
        f"\ntest accuracy {results['accuracy']:.4f} on {resolved['test']:,} images of "
        f"{source.dataset}\n"
        f"diag_reg {results['diag_reg']:.3g}, chosen by {resolved['select']} on "
        f"{resolved['train']:,} training images\n"
        f"{resolved['n_features']:,} features, {results['images_per_second']:.1f} images per second"
        f" (batches of {resolved['batch_size']})\n\n{phases.table()}"
    )


def _title(
    settings: Settings, resolved: Resolved, source: data.Source, results: dict[str, Any]
) -> str:
    return (
        f"{source.dataset}, {settings.recipe} {resolved.activation}, "
        f"{resolved.kernel.upper()}, {settings.method} of width {_dashed(resolved.width)}\n"
        f"{resolved.train:,} training images: {results['accuracy']:.1%} of "
        f"{resolved.test:,} test images right"
    )
