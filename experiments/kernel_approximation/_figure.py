"""Error against width and time."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments._common._study import figure, line

STYLES: dict[str, dict[str, Any]] = {
    "relative": {"marker": "o", "linestyle": "-"},
    "centred": {"marker": "s", "linestyle": "--"},
}


def error_figure(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """Mean errors over keys with their standard deviation: of NNGP and NTK against width, and of
    the NTK against the time of its features.

    Args:
        path: where the PNG goes.
        rows: `method`, `width`, `images_per_second` and `errors[kernel][measure]` with `mean` and
            `std`.
        title: what was run.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    widths = sorted({row["width"] for row in rows})
    colours = {method: f"C{k % 10}" for k, method in enumerate(methods)}
    panels = (("nngp", "width"), ("ntk", "width"), ("ntk", "milliseconds per image"))
    with figure(path, (12.5, 4.5), 1, 3, sharey=True) as (plot, axes):
        for axis, (kernel, against) in zip(axes[0], panels, strict=True):
            for method in methods:
                own = [row for row in rows if row["method"] == method]
                for measure, style in STYLES.items():
                    mean = np.array([row["errors"][kernel][measure]["mean"] for row in own])
                    std = np.array([row["errors"][kernel][measure]["std"] or 0.0 for row in own])
                    at = [
                        row["width"] if against == "width" else 1e3 / row["images_per_second"]
                        for row in own
                    ]
                    axis.errorbar(
                        at,
                        mean,
                        # A bar that reaches 0 has no place on a logarithmic axis.
                        yerr=[np.minimum(std, 0.9 * mean), std],
                        **style,
                        color=colours[method],
                        capsize=3,
                        markersize=4,
                    )
            axis.set_yscale("log")
            if against == "width":
                axis.set_xscale("log", base=2)
                axis.set_xticks(widths, [str(width) for width in widths])
            else:
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
            axis.set_xlabel(against)
            axis.set_title(kernel.upper(), fontsize="medium")
            axis.grid(alpha=0.3, which="both")
        axes[0, 0].set_ylabel("relative error, Frobenius norm")
        handles = [line(color=colours[method], label=method) for method in methods]
        handles += [line(color="0.4", label=measure, **style) for measure, style in STYLES.items()]
        plot.legend(handles=handles, fontsize="small", loc="outside lower center", ncols=4)
        plot.suptitle(title, fontsize="medium")
