"""`python -m experiments.regression.uci`: regression on the tables of the UCI repository.

Every method chooses on training rows alone; then root mean squared error, log likelihood and
seconds on the fixed test rows, in the units of the files, and ranks. The record is written after
every table, so that nothing is lost: `--records` takes over what earlier records have, those of a
run that was interrupted or of several that shared tables or methods.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments._common import _uci
from experiments._common._arguments import count, one_of, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._study import finish, markdown
from experiments._common.data import DataError

from . import _others, _ours
from ._choosing import DIAG_REG, Train
from ._scores import LEVELS, Prediction, coverage, log_likelihood, mean_ranks, rmse
from ._uci_figure import draw

SMALL = ("airfoil", "autompg", "autos", "breastcancer", "challenger", "concrete", "concreteslump")
SMALL += ("energy", "fertility", "forest", "gas", "housing", "machine", "pendulum", "servo")
SMALL += ("skillcraft", "sml", "solar", "stock", "wine", "yacht")
LARGE = ("parkinsons", "pumadyn32nm", "ccpp_raw", "naval_raw:0", "naval_raw:1")
LARGE += ("protein", "protein_raw", "tamielectric")

METHODS: dict[str, Callable[[Train, np.ndarray], Prediction]] = {
    "NTK, landmarks of the network": lambda train, x: _ours.ntk_features(train, x, "network"),
    "NTK, landmarks by layer": lambda train, x: _ours.ntk_features(train, x, "layer"),
    "NNGP, Gaussian process": _ours.nngp_features,
    "NTKRegressor": _ours.estimator,
    "NTKRegressor by search": partial(_ours.estimator, searches=True),
    "NTKRegressor, feature learning": partial(_ours.estimator, learns=True),
    "exact NTK": _ours.exact_ntk,
    "RBF, Fourier features": partial(_others.rbf_features, landmarks=False),
    "RBF, landmarks": partial(_others.rbf_features, landmarks=True),
    "RBF, exact": _others.kernel_ridge,
    "boosted trees": _others.trees,
}
FORMED = {"exact NTK": 5000, "RBF, exact": 10_000}  # up to so many training rows
PROCESS = "NNGP, Gaussian process"
KNOWN = {"diag_reg": [*DIAG_REG], "levels": LEVELS.tolist(), "b_std": _ours.B_STD}


@dataclass(frozen=True)
class Settings:
    data: tuple[str, ...] = option(SMALL + LARGE, str, "names of tables", "NAME", as_given=True)
    methods: tuple[str, ...] = option(
        tuple(METHODS), one_of(METHODS), "of those of the table", "METHOD", as_given=True
    )
    splits: int = option(1, count, "splits of each table")
    width: int = option(512, count, "features of each map at most")
    records: tuple[Path, ...] = option(
        (), Path, "what they have is not measured again", "JSON", as_given=True
    )
    data_dir: str | None = option(None, str, "folder of the npz files", "DIR")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of results", "DIR")


def measure(table: _uci.Table, split: int, width: int, methods: Sequence[str]) -> dict[str, Any]:
    """Scores of the methods on one split."""
    test = table.tests[:, split]
    x, x_test = _standard(table.x[~test], table.x[test])
    y, mean, unit = table.y[~test], table.y[~test].mean(), table.y[~test].std()
    train = Train.of(x, ((y - mean) / unit).astype(np.float32), split, width)
    found = {}
    for name in methods:
        predict = METHODS[name]
        start = time.perf_counter()
        standard = predict(train, x_test)
        seconds = time.perf_counter() - start
        print(f"{table.name}: {name}, {seconds:.1f} s", file=sys.stderr, flush=True)
        variance = np.maximum(standard.variance, 1e-12) * unit**2
        prediction = Prediction(mean + unit * standard.mean, variance, standard.chosen)
        found[name] = {
            "rmse": rmse(table.y[test], prediction),
            "log_likelihood": log_likelihood(table.y[test], prediction),
            "seconds": seconds,
            "chosen": prediction.chosen,
        }
        if name == PROCESS:
            found[name]["coverage"] = coverage(table.y[test], prediction)
    return found


def _standard(x: np.ndarray, x_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In units of the standard deviation of training rows; constant columns become 0."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    unit = np.where(spread > 1e-9 * np.abs(mean), spread, np.inf)
    return ((x - mean) / unit).astype(np.float32), ((x_test - mean) / unit).astype(np.float32)


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    tables = [_uci.load_splits(name, settings.splits, settings.data_dir) for name in settings.data]
    name = f"uci-{len(tables)}tables-{settings.splits}splits-width{settings.width}"
    found, sources = _of_records(settings)

    def written(done: str | None) -> dict[str, Any]:
        results = {}
        for table in tables:
            of = found.get(table.name, {"methods": {}})
            methods = {m: of["methods"][m] for m in settings.methods if m in of["methods"]}
            if methods:
                results[table.name] = of | {"methods": methods}
        return finish(
            "regression uci",
            settings,
            name,
            results,
            table_of(results) if done is None else f"{done} is done",
            partial(draw, results=results),
            ranks=ranks(results),
            environment={"load_average": load_average()},
            records=sources,
            **KNOWN,
        )

    for table in tables:
        n, d = table.x.shape
        of = found.setdefault(table.name, {"n": n, "d": d, "methods": {}})
        rows, known = n - int(table.tests[:, 0].sum()), of["methods"]
        missing = [m for m in settings.methods if m not in known and rows <= FORMED.get(m, n)]
        if missing:
            splits = [
                measure(table, split, settings.width, missing) for split in range(settings.splits)
            ]
            of["methods"] |= _mean(splits)
            written(table.name)
    return written(None)


def _of_records(settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Tables of earlier records with the methods that they have, and how each record was made.

    Raises:
        DataError: a record cannot be read, is of another experiment or of other settings.
    """
    found: dict[str, Any] = {}
    sources = []
    for path in settings.records:
        try:
            record = json.loads(path.read_text())
            own = {name: record["settings"][name] for name in ("splits", "width")}
            own |= {name: record[name] for name in KNOWN}
            results = record["results"]
            for name, of in results.items():
                methods = found.get(name, {"methods": {}})["methods"] | of["methods"]
                found[name] = of | {"methods": methods}
            about = {name: record[name] for name in ("finished", "command", "environment")}
            about["records"] = record.get("records", [])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"--records {path}: no record of this experiment ({error!r})") from None
        asked = {"splits": settings.splits, "width": settings.width} | KNOWN
        if own != asked:
            raise DataError(f"--records {path}: measured with {own}; asked for here: {asked}")
        sources.append(
            about | {"methods": {name: [*of["methods"]] for name, of in results.items()}}
        )
    return found, sources


def _mean(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Over splits; what was chosen is that of each."""
    found = {}
    for method in splits[0]:
        of = [split[method] for split in splits]
        found[method] = {
            key: np.mean([one[key] for one in of], axis=0).tolist()
            for key in of[0]
            if key != "chosen"
        } | {"chosen": [one["chosen"] for one in of]}
    return found


def measured(results: dict[str, Any]) -> list[str]:
    """Methods, in the order of the table."""
    return [m for m in METHODS if any(m in r["methods"] for r in results.values())]


def ranks(results: dict[str, Any]) -> dict[str, Any]:
    """Mean ranks of error and of negative log likelihood: of all methods on the tables that have
    them all, and on all tables of those that all have."""
    names, rows = measured(results), list(results.values())
    found = {}
    parts = {
        "all methods": ([r for r in rows if set(names) <= set(r["methods"])], names),
        "all tables": (rows, [m for m in names if all(m in r["methods"] for r in rows)]),
    }
    for what, (rows, names) in parts.items():
        if rows:
            scores = {
                "rmse": [[r["methods"][m]["rmse"] for m in names] for r in rows],
                "log_likelihood": [
                    [-r["methods"][m]["log_likelihood"] for m in names] for r in rows
                ],
            }
            of = {key: mean_ranks(np.array(value)) for key, value in scores.items()}
            found[what] = {"tables": len(rows)} | {
                key: dict(zip(names, value.tolist(), strict=True)) for key, value in of.items()
            }
    return found


def table_of(results: dict[str, Any]) -> str:
    """Error and log likelihood, the smallest error in bold; mean ranks and seconds below."""
    lines, names = [], measured(results)
    for name, result in results.items():
        methods = result["methods"]
        best = min(of["rmse"] for of in methods.values())
        cells = []
        for method in names:
            of = methods.get(method)
            error = "-" if of is None else f"{of['rmse']:.3g}"
            bold = of is not None and of["rmse"] == best
            error = f"**{error}**" if bold else error
            cells.append(error if of is None else f"{error}, {of['log_likelihood']:.2f}")
        lines.append([f"{name} ({result['n']:,} x {result['d']})", *cells])
    for what, of in ranks(results).items():
        cells = [
            f"{of['rmse'][m]:.1f}, {of['log_likelihood'][m]:.1f}" if m in of["rmse"] else "-"
            for m in names
        ]
        lines.append([f"mean ranks, {what} ({of['tables']} tables)", *cells])
    seconds = [
        f"{sum(r['methods'][m]['seconds'] for r in results.values() if m in r['methods']):.0f}"
        for m in names
    ]
    return markdown(["table", *names], [*lines, ["seconds, together", *seconds]])


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurement; 0 when it is done, 2 when the data are missing or damaged."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, _ = settings_from(Settings, "experiments.regression.uci", text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
