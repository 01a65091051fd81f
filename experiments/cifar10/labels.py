"""`python -m experiments.cifar10.labels`: which images to label, chosen by their features alone.

A few images of a pool are labelled: random ones, and diverse ones by `ntk_sketch.subset` on
features of the default recipe. Ridge regression on the labelled ones, with the regulariser that
leave-one-out chooses, is scored on the test images; several keys each, with the same features.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common import data
from experiments._common._arguments import LARGEST, count, option, seed, settings_from, up_to
from experiments._common._command import exit_code
from experiments._common._given import GivenFeatures
from experiments._common._phases import Phases
from experiments._common._preprocess import Steps
from experiments._common._study import finish, markdown, mean_and_std
from ntk_sketch import subset
from ntk_sketch.maps import mirrored
from ntk_sketch.streaming import stream

from ._recipes import RECIPES

SAMPLE = 256  # training images that landmarks are taken from
DIAG_REG = tuple(10.0 ** (k / 2) for k in range(-10, 1))


@dataclass(frozen=True)
class Settings:
    labels: int = option(1000, count, "images to label")
    pool: int = option(20_000, up_to(LARGEST["train"]), "training images to choose from")
    test: int = option(10_000, up_to(LARGEST["test"]), "test images")
    width: int = option(384, count, "landmarks of the last layer")
    keys: int = option(5, count, "repetitions of what is random")
    seed: int = option(0, seed, "of the features")
    digits: bool = option(False, help="the digits of scikit-learn")
    data_dir: str | None = option(None, str, "folder of CIFAR-10", "DIR")
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


#: From feature vectors (n, p), a number and a key, to items.
CHOICES: dict[str, Callable[[np.ndarray, int, Any], np.ndarray]] = {
    "random": lambda z, k, key: np.asarray(jax.random.choice(key, len(z), (k,), replace=False)),
    "randomly pivoted Cholesky": lambda z, k, key: (
        subset.randomly_pivoted_cholesky(z, k, key=key).indices
    ),
    "k-DPP": lambda z, k, key: subset.k_dpp(z, k, key=key),
    "greedy MAP": lambda z, k, _: subset.greedy_map(z, k).indices,
}
ONCE = ("greedy MAP",)  # has no key


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    phases = Phases()
    source = data.open_digits() if settings.digits else data.find(settings.data_dir)
    pool, test = min(settings.pool, source.n_train), min(settings.test, source.n_test)
    if settings.labels >= pool:
        raise data.DataError(
            f"--labels {settings.labels:,}: {source.description} has a pool of {pool:,} images to"
            " choose from. Ask for fewer labels, or a larger --pool."
        )
    with phases("reading"):
        images, classes = source.read("train", pool)
        test_images, test_classes = source.read("test", test)
    recipe = RECIPES["patches"]
    with phases("fitting the map"):
        x, x_test, front = recipe.prepared(images, test_images, Steps())
        features = _feature_map(settings, x, len(source.classes), front)
    with phases("features"):
        z, z_test = (_streamed(features, part) for part in (x, x_test))
    y = np.eye(len(source.classes), dtype=np.float32)[classes] - 1 / len(source.classes)
    # What all images share says nothing about which to take, and a long vector is a bright image.
    items = z - z.mean(0)
    items /= np.maximum(np.linalg.norm(items, axis=1, keepdims=True), np.finfo(z.dtype).tiny)
    results = {}
    for name, choose in CHOICES.items():
        accuracies, kinds = [], []
        for number in range(1 if name in ONCE else settings.keys):
            with phases(f"choosing: {name}"):
                chosen = choose(items, settings.labels, jax.random.key(number))
            with phases("regressions"):
                solution = ns.ridge(
                    GivenFeatures(np.zeros(settings.labels, bool)), z[chosen], y[chosen],
                    diag_reg=DIAG_REG, select="loo", fit_intercept=True,
                )  # fmt: skip
                found = np.asarray(solution.predict(z_test)).argmax(1)
            accuracies.append(float((found == test_classes).mean()))
            counts = np.bincount(classes[chosen], minlength=len(source.classes))
            kinds.append(int(counts.min()))
        results[name] = mean_and_std(accuracies) | {"fewest of a class": kinds}
    dataset = source.dataset.lower().replace("-", "")
    return finish(
        "cifar10 labels",
        settings,
        f"{dataset}-labels{settings.labels}of{pool}-width{settings.width}",
        results,
        f"{_table(results)}\n\n{phases.table()}",
        data={"dataset": source.dataset, "format": source.format},
        resolved={"pool": pool, "test": test, "n_features": int(z.shape[1])},
        phases=phases.record(),
    )


def _feature_map(settings: Settings, x: np.ndarray, classes: int, front: Any) -> ns.FeatureMap:
    """Of the default recipe, with fewer landmarks."""
    recipe = RECIPES["patches"]
    size = recipe.sizes["cpu"]
    model = recipe.model(
        x.shape[1:], nonlinearity=recipe.activation, grid=3, W_std=2**0.5, b_std=None,
        classes=classes,
    )  # fmt: skip
    most = SAMPLE * (x.shape[1] // 4) ** 2 // 4
    widths = (size.widths[0], min(settings.width, most))
    method, key = ns.Nystroem(widths, rank=size.rank), jax.random.key(settings.seed)
    return ns.feature_map(
        model, x[:SAMPLE], method, key=key, get=(recipe.kernel,), preprocess=front
    ).averaged(mirrored)


def _streamed(features: ns.FeatureMap, x: np.ndarray) -> np.ndarray:
    parts = stream(features, x, get="nngp", progress=True)
    return np.concatenate([np.asarray(part) for _, _, part in parts])


def _table(results: dict[str, Any]) -> str:
    rows = []
    for name, found in results.items():
        spread = f" ± {found['std']:.4f}" if found["std"] is not None else ""
        fewest = min(found["fewest of a class"])
        rows.append([name, f"{found['mean']:.4f}{spread}", len(found["keys"]), fewest])
    return markdown(["images to label", "test accuracy", "keys", "fewest of a class"], rows)


def main(arguments: list[str] | None = None) -> int:
    """Runs all; 0 when it is done, 2 when the data are missing, 130 on Ctrl-C."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, parser = settings_from(Settings, "experiments.cifar10.labels", text, arguments)
    if settings.digits and settings.data_dir is not None:
        parser.error("argument --digits: --data-dir names other images; give one of the two")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
