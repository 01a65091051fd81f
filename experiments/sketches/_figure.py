"""Errors of both trees against the degree, and times."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments._common._study import figure


def draw(path: Path, results: dict[str, Any]) -> None:
    """Left: errors of powers with standard errors; right: time of all powers, log-log.

    Args:
        path: where the PNG goes.
        results: of the record of `experiments.sketches.speed`.
    """
    markers = {"PolynomialSketch": "o-", "Fourier": "s--"}
    with figure(path, (9, 4), 1, 2) as (_, axes):
        errors, times = axes[0]
        for colour, row in enumerate(results["fourier"]):
            for name, style in markers.items():
                l = np.arange(1, len(row[name]["error"]) + 1)
                errors.errorbar(
                    l,
                    row[name]["error"],
                    yerr=row[name]["standard_error"],
                    fmt=style,
                    color=f"C{colour}",
                    markersize=4,
                    label=f"{name}, d={row['dimension']}",
                )
        errors.set_xlabel("degree")
        errors.set_ylabel("relative error, Frobenius norm")
        errors.set_title(f"Powers of cosines in [-1, 1], m={results['fourier'][0]['width']}")
        for colour, row in enumerate(results["powers"]):
            degrees = [int(q) for q in row["median_s"]]
            label = f"d={row['dimension']}, slope {row['slope']:.2f}"
            milliseconds = [1e3 * s for s in row["median_s"].values()]
            times.loglog(degrees, milliseconds, "o-", color=f"C{colour}", label=label)
            times.set_xticks(degrees, [str(q) for q in degrees])
        times.minorticks_off()
        times.set_xlabel("highest degree")
        times.set_ylabel("ms, all powers")
        times.set_title("PolynomialSketch.powers")
        for axis in (errors, times):
            axis.grid(alpha=0.3, which="both")
            axis.legend(fontsize="small")
