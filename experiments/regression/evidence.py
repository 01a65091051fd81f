"""`python -m experiments.regression.evidence`: a network's variances by gradient steps.

A Gaussian process with the NNGP of a network of two hidden layers. `W_std` and `b_std` of the first
layer, those of the other, the scale of the kernel and `diag_reg` go up the slope of the evidence of
the training examples, `ns.predict.log_evidence`, by Adam on their logarithms. Features of one batch
at a time are in memory. Log likelihood and error on test examples: of
defaults, with the noise and the scale alone chosen, and with all.
"""

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ntk_sketch as ns
from experiments._common import _uci
from experiments._common._arguments import count, option, positive, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._study import figure, finish, markdown
from ntk_sketch import stax

from ._scores import Prediction, log_likelihood, rmse

DEFAULTS = {
    "first W_std": 2**0.5,
    "first b_std": 0.1,
    "W_std": 2**0.5,
    "b_std": 0.1,
    "scale": 1.0,
    "diag_reg": 1e-2,
}


FREE = {"defaults": (), "noise and scale": ("scale", "diag_reg"), "all": tuple(DEFAULTS)}


@dataclass(frozen=True)
class Settings:
    data: str = option("airfoil", str, "a table", "NAME")
    width: int = option(256, count, "landmarks")
    steps: int = option(60, count, "of Adam")
    rate: float = option(0.1, positive, "of Adam", "X")
    data_dir: str | None = option(None, str, "folder of the npz files", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of results", "DIR")


def map_of(numbers: dict[str, Any], x: np.ndarray, width: int) -> ns.FeatureMap:
    """Landmarks and their order stay where they are, whatever the numbers."""
    model = stax.serial(
        stax.Dense(1, numbers["first W_std"], numbers["first b_std"]),
        stax.Erf(),
        stax.Dense(1, numbers["W_std"], numbers["b_std"]),
        stax.Erf(),
        stax.Dense(1, numbers["scale"]),
    )
    method = ns.Nystroem(width, scope="network", sampling="uniform", calibrate=False)
    return ns.feature_map(model, x, method, key=jax.random.key(0), get="nngp")


def climbed(
    x: np.ndarray, y: np.ndarray, settings: Settings, free: tuple[str, ...]
) -> tuple[dict[str, float], list[float]]:
    """The numbers after all steps of those that are free, and the evidence before each."""

    def loss(logs: dict[str, jax.Array]) -> jax.Array:
        numbers = DEFAULTS | {name: jnp.exp(value) for name, value in logs.items()}
        return -ns.predict.log_evidence(
            map_of(numbers, x, settings.width),
            x,
            y,
            diag_reg=numbers["diag_reg"],
            batch_size=max(64, len(x) // 4),
            progress=False,
        )

    logs: Any = {name: jnp.log(DEFAULTS[name]) for name in free}
    # slopes fall by orders of magnitude within a few steps: a short memory of their squares
    adam, path = optax.adam(settings.rate, b2=0.95), []
    state = adam.init(logs)
    for _ in range(settings.steps if free else 0):
        value, slope = jax.value_and_grad(loss)(logs)
        path.append(-float(value))
        change, state = adam.update(slope, state)
        logs = optax.apply_updates(logs, change)
    return DEFAULTS | {name: float(jnp.exp(value)) for name, value in logs.items()}, path


def predicted(
    numbers: dict[str, float], x: np.ndarray, y: np.ndarray, x_test: np.ndarray, width: int
) -> Prediction:
    made = map_of(numbers, x, width)
    noise = numbers["diag_reg"] * float(np.mean(np.sum(np.asarray(made(x).nngp) ** 2, axis=1)))
    predict_fn = ns.predict.gp_inference(made, x, y, noise, True, progress=False)
    mean, variance = predict_fn("nngp", x_test, compute_cov="diagonal")
    return Prediction(np.asarray(mean, np.float64), variance + noise, {})


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    data = _uci.load_splits(settings.data, 1, settings.data_dir)
    test = data.tests[:, 0]
    spread = data.x[~test].std(axis=0)
    x = (data.x - data.x[~test].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    x, mean, unit = x.astype(np.float32), data.y[~test].mean(), data.y[~test].std()
    y = ((data.y - mean) / unit).astype(np.float32)
    results: dict[str, Any] = {}
    for name, free in FREE.items():
        start = time.perf_counter()
        numbers, path = climbed(x[~test], y[~test], settings, free)
        seconds = time.perf_counter() - start
        prediction = predicted(numbers, x[~test], y[~test], x[test], settings.width)
        results[name] = {
            "numbers": numbers,
            "evidence": path,
            "seconds": seconds,
            "log_likelihood": log_likelihood(y[test], prediction) - float(np.log(unit)),
            "rmse": float(unit) * rmse(y[test], prediction),
        }
    name = f"evidence-{data.name.replace(' ', '-')}-width{settings.width}-{settings.steps}steps"
    return finish(
        "regression evidence",
        settings,
        name,
        results,
        table(results),
        functools.partial(draw, results=results),
        environment={"load_average": load_average()},
    )


def table(results: dict[str, Any]) -> str:
    rows = []
    for name, of in results.items():
        numbers = [f"{of['numbers'][key]:.3g}" for key in DEFAULTS]
        rows.append([name, *numbers, f"{of['log_likelihood']:.3f}", f"{of['rmse']:.3g}"])
    return markdown(["chosen", *DEFAULTS, "test log likelihood", "test RMSE"], rows)


def draw(path: Path, results: dict[str, Any]) -> None:
    with figure(path, (5.5, 3.5)) as (_, axes):
        axis = axes[0, 0]
        for name, of in results.items():
            if of["evidence"]:
                axis.plot(of["evidence"], ".-", label=name)
        axis.legend(fontsize="small")
        axis.set_xlabel("step of Adam")
        axis.set_ylabel("log evidence of the training examples")


def main(arguments: list[str] | None = None) -> int:
    """Runs the example; 0 when it is done, 2 when the data are missing or damaged."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, _ = settings_from(Settings, "experiments.regression.evidence", text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
