"""`python -m experiments.cifar10.study`: what buys accuracy, one change of the patch net at a time.

Every variant with several keys on the same images; the table has the mean, its difference from the
base of the same keys, features, FLOPs in matrix products for the features of an image, and seconds.
Features of 10,000 + 10,000 images, no mirror image.
Crops are further training images, each left out together with the image that it is of.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common import data
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._given import GivenFeatures
from experiments._common._networks import activation, patch_net
from experiments._common._patches import fit_patches
from experiments._common._study import finish, markdown, mean_and_std
from ntk_sketch import stax
from ntk_sketch.maps import mirrored
from ntk_sketch.streaming import stream

SAMPLE = 256


@dataclass(frozen=True)
class Map:
    """One feature map: a patch net, its method, and what is done to images before."""

    widths: tuple[int, ...] = (32, 512)
    net: dict[str, Any] = field(default_factory=dict)
    model: Callable[..., stax.Layer] = patch_net
    method: dict[str, Any] = field(default_factory=dict)
    patch: dict[str, Any] = field(default_factory=dict)
    flip: bool = False
    kernel: str = "nngp"
    sample: int = SAMPLE


@dataclass(frozen=True)
class Variant:
    """Maps whose features are put side by side, or whose predictions are averaged.

    `crops` are passes over randomly shifted training images, besides the images themselves.
    """

    maps: tuple[Map, ...]
    averaged: bool = False
    fit_intercept: bool = True
    crops: int = 0


def one(**changes: Any) -> Variant:
    return Variant((Map(**changes),))


def three_layers(shape, **options) -> stax.Layer:
    """Blurs to a half, a quarter and a grid of 3x3 between and after three nonlinearities."""
    side, layers = shape[0], [stax.Dense(1)]
    for part in (2, 4):
        layers += [activation("expnormalized:2.8")]
        layers += [stax.ImageResize((-1, side // part, side // part, -1), "linear")]
        layers += [stax.Conv(1, (3, 3), padding="SAME")]
    layers += [activation("expnormalized:2.8"), stax.ImageResize((-1, 3, 3, -1), "linear")]
    return stax.serial(*layers, stax.Flatten(), stax.Dense(10))


VARIANTS: dict[str, Variant] = {
    "32-512": one(),
    "mirror averaging": one(flip=True),
    "a pass of crops": Variant((Map(),), crops=1),
    "two passes of crops": Variant((Map(),), crops=2),
    "mirror averaging, a pass of crops": Variant((Map(flip=True),), crops=1),
    "widths 16-512": one(widths=(16, 512)),
    "widths 64-512": one(widths=(64, 512)),
    "widths 128-512": one(widths=(128, 512)),
    "widths 32-256": one(widths=(32, 256)),
    "widths 32-1024": one(widths=(32, 1024)),
    "grid 2x2": one(net={"grid": 2}),
    "grid 4x4": one(net={"grid": 4}),
    "three layers 32-64-512": one(widths=(32, 64, 512), model=three_layers),
    "uniform landmarks": one(method={"sampling": "uniform"}),
    "landmarks by the diagonal": one(method={"sampling": "diagonal"}),
    "landmarks by pivoted Cholesky": one(method={"sampling": "pivoted"}),
    "no calibration": one(method={"calibrate": False}),
    "a quarter residual": one(method={"residual": 0.25}),
    "landmarks from 1,024 images": one(sample=1024),
    "gamma 2": one(net={"nonlinearity": "expnormalized:2"}),
    "gamma 4": one(net={"nonlinearity": "expnormalized:4"}),
    "ReLU (arc-cosine)": one(net={"nonlinearity": "relu"}),
    "Gelu": one(net={"nonlinearity": "gelu"}),
    "ReLU, NTK, 32-256": one(widths=(32, 256), net={"nonlinearity": "relu"}, kernel="ntk"),
    "whitening 0.004": one(patch={"reg": 0.004}),
    "whitening 0.064": one(patch={"reg": 0.064}),
    "patches 5x5": one(patch={"size": 5}),
    "no intercept": Variant((Map(),), fit_intercept=False),
    "two 32-256 side by side": Variant((Map(widths=(32, 256)),) * 2),
    "32-256 on 3x3 and on 5x5": Variant(
        (Map(widths=(32, 256)), Map(widths=(32, 256), patch={"size": 5}))
    ),
    "mean of two 32-512": Variant((Map(),) * 2, averaged=True),
}


@dataclass(frozen=True)
class Settings:
    train: int = option(10_000, count, "training images")
    test: int = option(10_000, count, "test images")
    seeds: int = option(3, count, "keys of every variant")
    variants: tuple[str, ...] = option(tuple(VARIANTS), str, "names", "NAME", as_given=True)
    data_dir: str | None = option(None, str, "folder of CIFAR-10", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


class Part(NamedTuple):
    """Of one map: features of training images, then of their crops, and of test images; which of
    the former are landmarks; and FLOPs of one image's."""

    z: np.ndarray
    z_test: np.ndarray
    landmarks: np.ndarray
    flops: int


class Images(NamedTuple):
    """Images in [0, 1] and labels."""

    x: np.ndarray
    labels: np.ndarray
    x_test: np.ndarray
    test_labels: np.ndarray


def shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every image moved by up to an eighth of its side along both axes, mirrored at its border."""
    most = x.shape[1] // 8
    border = ((0, 0), (most, most), (most, most), (0, 0))
    padded, (height, width) = np.pad(x, border, mode="reflect"), x.shape[1:3]
    starts = rng.integers(0, 2 * most + 1, (len(x), 2))
    return np.stack(
        [image[i : i + height, j : j + width] for image, (i, j) in zip(padded, starts, strict=True)]
    )


def features_of(map_: Map, images: Images, crops: int, seed: int) -> Part:
    rng = np.random.default_rng(seed)
    x = np.concatenate([images.x, *(shifted(images.x, rng) for _ in range(crops))])
    preprocess = fit_patches(images.x, **map_.patch)
    shape = (*images.x.shape[1:3], len(preprocess.bias))
    feature_map = ns.feature_map(
        map_.model(shape, **map_.net),
        images.x[: map_.sample],
        ns.Nystroem(map_.widths, **map_.method),
        key=jax.random.key(seed),
        get=(map_.kernel,),
        preprocess=preprocess,
    )
    landmarks = np.tile(feature_map.is_landmark(images.x), 1 + crops)
    if map_.flip:
        feature_map = feature_map.averaged(mirrored)
    batch = feature_map.batch_size(2**27)
    z, z_test = (
        np.concatenate(
            [np.asarray(z) for _, _, z in stream(feature_map, x, get=map_.kernel, batch_size=batch)]
        )
        for x in (x, images.x_test)
    )
    return Part(z, z_test, landmarks, feature_map.cost((1, *images.x.shape[1:])).flops)


def predictions(parts: list[Part], images: Images, variant: Variant) -> np.ndarray:
    """Of test images, by regression on features side by side."""
    z, z_test, landmarks, _ = parts[0]
    if len(parts) > 1:
        z, z_test = (np.concatenate([part[i] for part in parts], axis=1) for i in (0, 1))
        landmarks = np.any([part.landmarks for part in parts], axis=0)
    copies = np.tile(np.arange(len(images.x)), 1 + variant.crops)
    choice: dict[str, Any] = {"select": "gcv"}
    if variant.crops:
        choice = {"select": "loo", "groups": copies}
    solution = ns.ridge(
        GivenFeatures(landmarks),
        z,
        np.eye(10, dtype=np.float32)[images.labels[copies]] - 0.1,
        get="nngp",
        diag_reg=[1e-3, 10**-2.5, 1e-2],
        **choice,
        extend_path=True,
        fit_intercept=variant.fit_intercept,
        batch_size=1024,
    )
    return np.asarray(solution.predict(z_test))


def measure(variant: Variant, images: Images, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    parts = [
        features_of(m, images, variant.crops, seed + 1000 * i) for i, m in enumerate(variant.maps)
    ]
    fitted = time.perf_counter()
    groups = [[part] for part in parts] if variant.averaged else [parts]
    outputs = sum(predictions(group, images, variant) for group in groups)
    return {
        "accuracy": float(np.mean(np.argmax(outputs, axis=1) == images.test_labels)),
        "features": sum(part.z.shape[1] for part in parts),
        "flops": sum(part.flops for part in parts),
        "seconds": [fitted - start, time.perf_counter() - fitted],
    }


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    unknown = [name for name in settings.variants if name not in VARIANTS]
    if unknown:
        raise data.DataError(f"--variants {unknown}: unknown; known: {', '.join(VARIANTS)}")
    source = data.find(settings.data_dir)
    x, labels = source.read("train", settings.train)
    x_test, test_labels = source.read("test", settings.test)
    x, x_test = ((part / 255).astype(np.float32) for part in (x, x_test))
    images = Images(x, labels, x_test, test_labels)
    results: dict[str, Any] = {}
    record: dict[str, Any] = {}
    file = f"study-{settings.train}+{settings.test}-{settings.seeds}keys"
    for name in settings.variants:
        found = [measure(VARIANTS[name], images, seed) for seed in range(settings.seeds)]
        results[name] = {
            "accuracy": mean_and_std([one["accuracy"] for one in found]),
            "features": found[0]["features"],
            "flops": found[0]["flops"],
            "seconds": np.median([one["seconds"] for one in found], axis=0).tolist(),
        }  # with a record after each, so that nothing is lost
        record = finish("cifar10 study", settings, file, results, table(results))
    return record


def table(results: dict[str, Any]) -> str:
    base = next(iter(results.values()))["accuracy"]["keys"]
    rows = []
    for name, result in results.items():
        accuracy = result["accuracy"]
        gain = 100 * float(np.mean(np.subtract(accuracy["keys"], base)))
        spread = "" if accuracy["std"] is None else f" ± {accuracy['std']:.4f}"
        seconds = f"{result['seconds'][0]:.0f} + {result['seconds'][1]:.0f}"
        sizes = result["features"], f"{result['flops'] / 1e6:.0f}"
        rows.append([name, f"{accuracy['mean']:.4f}{spread}", f"{gain:+.1f}", *sizes, seconds])
    heading = ["variant", "accuracy", "points", "features", "MFLOP"]
    heading += ["seconds: features + regression"]
    return markdown(heading, rows)


def main(arguments: list[str] | None = None) -> int:
    """Runs the study; 0 when it is done, 2 when names or data make no sense."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, _ = settings_from(Settings, "experiments.cifar10.study", text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
