"""Error against number of features and against time, for nets of several depths."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from experiments._common._study import figure, line

MARKERS = "osD^vP*X<>"


def networks_figure(path: Path, rows: list[dict[str, Any]], measure: str, title: str) -> None:
    """Mean NTK errors over keys with their standard deviation, a column for each depth.

    Args:
        path: where the PNG goes.
        rows: `depth`, `method`, `n_features`, `errors[kernel][measure]` with `mean` and `std`,
            `least_spectral` and `microseconds_per_example`; rows without errors are left out.
        measure: the error drawn. With "spectral", a dotted line is its least value at that number
            of features.
        title: what was run.
    """
    rows = [row for row in rows if "errors" in row]
    depths, methods = (list(dict.fromkeys(r[name] for r in rows)) for name in ("depth", "method"))
    columns = max(len(depths), 1)
    options = {"sharex": "row", "sharey": True}
    with figure(path, (3.4 * columns + 1, 8), 2, columns, **options) as (plot, axes):
        for (column, depth), (k, method) in itertools.product(
            enumerate(depths), enumerate(methods)
        ):
            own = [row for row in rows if (row["depth"], row["method"]) == (depth, method)]
            mean = np.array([row["errors"]["ntk"][measure]["mean"] for row in own])
            std = np.array([row["errors"]["ntk"][measure]["std"] or 0.0 for row in own])
            places = (
                [row["n_features"]["ntk"] for row in own],
                [row["microseconds_per_example"] for row in own],
            )
            for axis, at in zip(axes[:, column], places, strict=True):
                axis.errorbar(
                    at,
                    mean,
                    # A bar that reaches 0 has no place on a logarithmic axis.
                    yerr=[np.minimum(std, 0.9 * mean), std],
                    color=f"C{k % 10}",
                    marker=MARKERS[k % len(MARKERS)],
                    markersize=5,
                    linewidth=1.2,
                    capsize=2,
                )
        for column, depth in enumerate(depths):
            above, below = axes[:, column]
            above.set(title=f"depth {depth}", xlabel="features of the NTK", yscale="log")
            above.set_xscale("log", base=2)
            below.set(xlabel="microseconds per example", xscale="log", yscale="log")
            if measure == "spectral":
                least = {
                    row["n_features"]["ntk"]: row["least_spectral"]["ntk"]
                    for row in rows
                    if row["depth"] == depth and row["least_spectral"]["ntk"] > 0
                }
                above.plot(sorted(least), [least[p] for p in sorted(least)], "k:")
        for axis in axes.ravel():
            axis.grid(alpha=0.3, which="both")
        for axis in axes[:, 0]:
            axis.set_ylabel(f"{measure} error of the NTK")
        handles = [
            line(color=f"C{k % 10}", marker=MARKERS[k % len(MARKERS)], label=method)
            for k, method in enumerate(methods)
        ]
        if measure == "spectral":
            handles.append(line(color="k", linestyle=":", label="least possible"))
        plot.legend(handles=handles, loc="outside lower center", ncols=1 + len(depths))
        plot.suptitle(title)
