"""Errors of f(A Bᵀ) against the rank of its factors."""

from pathlib import Path
from typing import Any

from experiments._common._study import figure, line


def elementwise_figure(
    path: Path, rows: list[dict[str, Any]], methods: list[str], dataset: str
) -> None:
    """Mean errors over keys, a panel for each function, a line for each method and degree.

    Args:
        path: where the PNG goes.
        rows: `function`, `degree`, `width`, and `mean` of every method that was measured.
        methods: their names.
        dataset: for the title.
    """
    functions = list(dict.fromkeys(row["function"] for row in rows))
    degrees = sorted({row["degree"] for row in rows})
    with figure(path, (3.6 * len(functions), 4.2), 1, len(functions)) as (plot, axes):
        for axis, function in zip(axes[0], functions, strict=True):
            for i, degree in enumerate(degrees):
                own = [r for r in rows if (r["function"], r["degree"]) == (function, degree)]
                for k, method in enumerate(methods):
                    if method in own[0]:
                        axis.plot(
                            [row["width"] for row in own],
                            [row[method]["mean"] for row in own],
                            color=f"C{k}",
                            marker="os^D*v"[i % 6],
                            linewidth=1,
                            markersize=4,
                        )
            axis.set(title=function, xlabel="width", yscale="log")
            axis.set_xscale("log", base=2)
            axis.grid(alpha=0.3)
        axes[0, 0].set_ylabel("relative error, Frobenius norm")
        handles = [line(color=f"C{k}", label=method) for k, method in enumerate(methods)]
        handles += [
            line(color="0.4", marker="os^D*v"[i % 6], linestyle="", label=f"degree {degree}")
            for i, degree in enumerate(degrees)
        ]
        plot.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
        plot.suptitle(f"f(A Bᵀ) on {dataset}")
