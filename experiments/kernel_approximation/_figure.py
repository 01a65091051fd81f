"""Error against width."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

STYLES: dict[str, dict[str, Any]] = {
    "relative": {"marker": "o", "linestyle": "-"},
    "centred": {"marker": "s", "linestyle": "--"},
}


def error_figure(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """Mean errors over keys with their standard deviation, for NNGP and NTK side by side.

    Args:
        path: where the PNG goes.
        rows: `method`, `width` and `errors[kernel][measure]` with `mean` and `std`.
        title: what was run.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    widths = sorted({row["width"] for row in rows})
    colours = {method: f"C{k % 10}" for k, method in enumerate(methods)}
    for axis, kernel in zip(axes, ("nngp", "ntk"), strict=True):
        for method in methods:
            own = [row for row in rows if row["method"] == method]
            for measure, style in STYLES.items():
                mean = np.array([row["errors"][kernel][measure]["mean"] for row in own])
                std = np.array([row["errors"][kernel][measure]["std"] or 0.0 for row in own])
                axis.errorbar(
                    [row["width"] for row in own],
                    mean,
                    # A bar that reaches 0 has no place on a logarithmic axis.
                    yerr=[np.minimum(std, 0.9 * mean), std],
                    **style,
                    color=colours[method],
                    capsize=3,
                    markersize=4,
                )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(widths, [str(width) for width in widths])
        axis.set_xlabel("width")
        axis.set_title(kernel.upper(), fontsize="medium")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("relative error, Frobenius norm")
    handles = [Line2D([], [], color=colours[method], label=method) for method in methods]
    handles += [
        Line2D([], [], color="0.4", label=measure, **style) for measure, style in STYLES.items()
    ]
    axes[1].legend(handles=handles, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
