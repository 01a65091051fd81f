"""Tables of stored records: lists of rows, the first of which has the names of columns."""

import json

import numpy as np
from figures import CIFAR10, EVERY_METHOD, KERNELS, ROOT, record, whole_cifar10

PROTEIN = f"{KERNELS}/networks-protein-1000examples-2keys.json"


def cifar10():
    """Runs on all of CIFAR-10."""
    rows = [["recipe", "widths", "features", "test accuracy", "`diag_reg`", "images/s", "seconds"]]
    for found in whole_cifar10():
        resolved, results, settings = found["resolved"], found["results"], found["settings"]
        rank = f", rank {resolved['rank']}" if resolved.get("rank") else ""
        rows.append(
            [
                settings.get("recipe") or settings["architecture"],
                ", ".join(map(str, resolved["width"])) + rank,
                f"{resolved['n_features']:,}",
                f"{results['accuracy']:.4f}",
                f"{results['diag_reg']:.3g}",
                f"{results['images_per_second']:.0f}",
                f"{found['phases']['total_seconds']:.0f}",
            ]
        )
    return [rows[0], *sorted(rows[1:], key=lambda row: row[3], reverse=True)]


def small_cifar10():
    """Runs of a Myrtle network on parts of CIFAR-10."""
    rows = [["training images", "method", "widths", "features", "test accuracy"]]
    for path in sorted((ROOT / CIFAR10).glob("cifar10-myrtle5-*.json")):
        found = json.loads(path.read_text())
        resolved = found["resolved"]
        rows.append(
            [
                f"{resolved['train']:,}",
                found["settings"]["method"],
                ", ".join(map(str, resolved["width"])),
                f"{resolved['n_features']:,}",
                f"{found['results']['accuracy']:.3f}",
            ]
        )
    return rows


def methods():
    """Every method on the Myrtle network."""
    rows = [["method", "width", "NNGP error", "NTK error", "NTK error, centred", "images/s"]]
    for row in record(EVERY_METHOD)["results"]:
        rows.append(_of_myrtle(row["method"], row))
    return rows


def _of_myrtle(name, row):
    errors = row["errors"]
    values = [errors["nngp"]["relative"], errors["ntk"]["relative"], errors["ntk"]["centred"]]
    speed = f"{row['images_per_second']:.0f}"
    return [name, row["width"], *(f"{value['mean']:.4f}" for value in values), speed]


def method(name):
    """One method, on the Myrtle network and on dense networks of three hidden layers."""
    rows = [["network", "width", "NTK features", "NTK error"]]
    for row in record(EVERY_METHOD)["results"]:
        if row["method"] == name:
            rows.append(_of_any("Myrtle-5, CIFAR-10", row))
    for row in record(PROTEIN)["results"]:
        if row["method"] == name and row["depth"] == 3:
            rows.append(_of_any("dense, 3 hidden layers, protein", row))
    return rows


def _of_any(network, row):
    error = row["errors"]["ntk"]["relative"]
    return [network, row["width"], row["n_features"]["ntk"], f"{error['mean']:.4f}"]


def flights():
    """Delays of flights."""
    found = record("experiments/regression/results/flights-327346rows-width512.json")["results"]
    rows = [["method", "RMSE, minutes", "negative log likelihood", "seconds"]]
    for name, row in found.items():
        seconds = f"{row['seconds']:.0f}" if "seconds" in row else ""
        rows.append([name, f"{row['rmse']:.2f}", f"{row['negative_log_likelihood']:.3f}", seconds])
    return rows


def rows_of_tables():
    """Regression on tables of many rows."""
    found = record("benchmarks/results/rows-32x512.json")["results"]
    rows = [["rows", "seconds", "rows/s", "share of the matrix rate", "memory, MiB"]]
    for count, row in found.items():
        rows.append(
            [
                f"{int(count):,}",
                f"{row['seconds']:.1f}",
                f"{row['rows_per_second']:,.0f}",
                f"{row['share_of_matrix_rate']:.2f}",
                f"{row['anonymous_bytes'] / 2**20:.0f}",
            ]
        )
    return rows


def evidence():
    """A network's numbers by evidence."""
    found = record("experiments/regression/results/evidence-airfoil-width256-60steps.json")
    rows = [["fitted", "test log likelihood", "test RMSE"]]
    for name, row in found["results"].items():
        rows.append([name, f"{row['log_likelihood']:.2f}", f"{row['rmse']:.2f}"])
    return rows


def log_determinants():
    """Log-determinants of sparse matrices."""
    found = record("benchmarks/results/log-determinant.json")["results"]
    rows = [["matrix", "rows", "method", "largest relative error", "median seconds"]]
    for name, row in found.items():
        for method in ("chebyshev", "lanczos"):
            own = row[method]
            worst, seconds = max(own["relative_errors"]), sorted(own["seconds"])
            middle = seconds[len(seconds) // 2]
            rows.append([name, f"{row['rows']:,}", method, f"{worst:.1e}", f"{middle:.1f}"])
    return rows


def layer_errors():
    """The NTK error of every layer of `stax.supported()` under every method."""
    results = record("benchmarks/results/layers.json")["results"]
    rows = [["layer", *next(iter(results.values()))]]
    for layer, errors in results.items():
        name, _, note = layer.partition(" (")
        cells = ["no" if error is None else f"{error:.2g}" for error in errors.values()]
        rows.append([f"`{name}`" + (f" ({note}" if note else ""), *cells])
    return rows


def position_pairs():
    """NTK errors with estimated and with exact covariances of pairs of positions."""
    rows = [["network", "method", "estimated", "exact"]]
    for name, methods in record("benchmarks/results/position-pairs.json")["results"].items():
        for method, errors in methods.items():
            means = [np.mean(errors[kind]) for kind in ("estimated", "exact")]
            rows.append([name, f"`{method}(256)`", *(f"{mean:.3f}" for mean in means)])
    return rows
