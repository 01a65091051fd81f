"""`python -m experiments.cifar10.baselines`: finite networks in the same minutes as features.

Trains networks of Flax by optax, with mirror images and crops, until `--seconds` are over from
reading to predictions, each number of seconds anew. `--empirical` features of the NTK at
initialisation take the place of training: the network linearised, solved by ridge regression.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp

import ntk_sketch as ns
from experiments._common import data
from experiments._common._arguments import (
    LARGEST,
    count,
    duration,
    one_of,
    option,
    positive,
    seed,
    settings_from,
    up_to,
)
from experiments._common._command import exit_code
from experiments._common._given import Given
from experiments._common._phases import Phases
from experiments._common._preprocess import Steps
from experiments._common._study import finish
from ntk_sketch.empirical import empirical_feature_map

from ._nets import NETS, parameters
from ._recipes import RECIPES
from ._training import Programs, normalised, train

DIAG_REG = tuple(10.0 ** (k / 2) for k in range(-12, 1))


@dataclass(frozen=True)
class Settings:
    nets: tuple[str, ...] = option(tuple(NETS), one_of(NETS), f"of {', '.join(NETS)}", "NET", True)
    seconds: tuple[float, ...] = option((60.0,), duration, "for each record: 60, 5m", "TIME")
    steps: int | None = option(None, count, "of training, whatever their seconds")
    empirical: int | None = option(None, count, "features of the NTK at initialisation")
    width: int | None = option(None, count, "channels (default: by the seconds)")
    rate: float | None = option(None, positive, "largest learning rate", "RATE")
    batch_size: int = option(256, count, "images of a step")
    zca: bool = option(True, help="whiten images for myrtle5")
    train: int | None = option(None, up_to(LARGEST["train"]), "training images (default: all)")
    test: int | None = option(None, up_to(LARGEST["test"]), "test images (default: all)")
    seed: int = option(0, seed, "of weights, order and augmentation")
    digits: bool = option(False, help="the digits of scikit-learn")
    data_dir: str | None = option(None, str, "folder of CIFAR-10", "DIR")
    out: Path = option(Path(__file__).parent / "output", Path, "folder of results", "DIR")


class Mirrored(eqx.Module):
    """Features averaged over an image and its mirror image."""

    features: Any

    def __call__(self, x):
        z = (self.features(x).ntk + self.features(jnp.flip(x, 2)).ntk) / 2
        return Given(z, z)

    def batch_size(self) -> int:
        return self.features.batch_size()


def run(settings: Settings) -> list[dict[str, Any]]:
    """A record for each net and number of seconds."""
    source = data.open_digits() if settings.digits else data.find(settings.data_dir)
    return [
        measure(settings, source, name, seconds)
        for seconds in settings.seconds
        for name in settings.nets
    ]


def measure(settings: Settings, source: data.Source, name: str, seconds: float) -> dict[str, Any]:
    """Trains one net, or solves for its linearisation; prints, writes and returns the record."""
    start, phases, net = time.perf_counter(), Phases(), NETS[name]
    with phases("reading"):
        images, labels = source.read("train", settings.train or source.n_train)
        test_images, test_labels = source.read("test", settings.test or source.n_test)
    with phases("preprocessing"):
        steps = Steps(zca_reg=Steps().zca_reg if settings.zca else None)
        x, x_test, front = RECIPES[net.recipe].prepared(images, test_images, steps)
        front = front or _same
    classes = len(source.classes)
    width = settings.width or net.width(seconds)
    with phases("making the network"):
        one = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
        shape = jax.eval_shape(front, one).shape[1:]
        outputs = 1 if settings.empirical else classes
        model = net.made(shape, width, outputs, settings.seed)
    n_parameters = parameters(model)
    if settings.empirical:
        with phases("regression"):
            y = np.eye(classes, dtype=np.float32)[labels] - 1 / classes
            solution = _linearised(settings, model, front, x, y)
        with phases("predictions"):
            found = np.asarray(solution.predict(x_test, progress=True))
        what, more = f"empirical NTK of {name}", {"diag_reg": solution.diag_reg}
    else:
        with phases("compiling"):
            batch = min(settings.batch_size, len(x))
            programs = Programs(model, front, x.shape[1:], batch)
            programs.compile()
        with phases("training"):
            rate = (settings.rate or net.rate) * batch / 256
            state, epochs = train(
                programs, x, labels, len(x_test), rate=rate, deadline=start + seconds,
                steps=settings.steps,
                seed=settings.seed,
            )  # fmt: skip
        with phases("predictions"):
            found = programs.predictions(state, x_test)
        what, more = f"trained {name}", {"epochs": epochs, "rate": rate}
    accuracy = float((found.argmax(1) == test_labels).mean())
    sizes = f"{len(x)}+{len(x_test)}-seed{settings.seed}"
    kind = f"empirical{settings.empirical}" if settings.empirical else f"{seconds:g}s"
    kind = f"{settings.steps}steps" if settings.steps else kind
    text = f"{what}, {width} channels, {n_parameters:,} parameters: test accuracy {accuracy:.4f}"
    return finish(
        "cifar10 baselines",
        settings,
        f"{source.dataset.lower().replace('-', '')}-finite-{name}{width}-{kind}-{sizes}",
        {"accuracy": accuracy, "parameters": n_parameters} | more,
        f"{text}\n\n{phases.table()}",
        data={"dataset": source.dataset, "format": source.format},
        resolved={
            "what": what,
            "train": len(x),
            "test": len(x_test),
            "width": [width],
            "seconds": seconds,
        },
        phases=phases.record(),
    )


def _same(x):
    return x


def _linearised(
    settings: Settings, model: nnx.Module, front: Any, x: np.ndarray, y: np.ndarray
) -> ns.RidgeSolution:
    """Ridge regression on features of the NTK of one output, which at initialisation is that of
    each."""
    assert settings.empirical is not None
    graph, params, rest = normalised(model, front, x[: settings.batch_size])

    def apply_fn(params, x):
        net = nnx.merge(graph, params, rest, copy=True)
        net.eval()
        return net(front(x))

    key = jax.random.key(settings.seed)
    features = empirical_feature_map(
        apply_fn, params, settings.empirical, key=key, x=x[:1], get="ntk"
    )
    return ns.ridge(
        Mirrored(features),
        x,
        y,
        diag_reg=DIAG_REG,
        select="gcv",
        fit_intercept=True,
        progress=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs all; 0 when they are done, 2 when the data are missing, 130 on Ctrl-C."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, parser = settings_from(Settings, "experiments.cifar10.baselines", text, arguments)
    if settings.digits and settings.data_dir is not None:
        parser.error("argument --digits: --data-dir names other images; give one of the two")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
