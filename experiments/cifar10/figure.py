"""`python -m experiments.cifar10.figure`: accuracy against seconds on all of CIFAR-10.

A point for every record, of features and of finite networks (`baselines`), what it is of and the
device by colour; and the same as a table. Published kernels are horizontal lines: their seconds are
not of one machine.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments._common import data
from experiments._common._arguments import option, settings_from
from experiments._common._command import exit_code
from experiments._common._study import figure, markdown

RESULTS = Path(__file__).parent / "results"

PUBLISHED = {
    "convolutional kernel networks (Mairal 2016)": 0.84,
    "compositional kernel of Myrtle-10, exact (Shankar et al. 2020)": 0.90,
}


@dataclass(frozen=True)
class Settings:
    records: Path = option(RESULTS, Path, "folder of records", "DIR")
    out: Path = option(RESULTS / "accuracy-seconds.png", Path, "the figure", "PNG")


def points(folder: Path) -> dict[str, list[tuple[float, float, str]]]:
    """(seconds, accuracy, width) of each record of 50,000 + 10,000 images, by what it is of (a
    recipe, a finite network) and device."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for path in sorted(folder.glob("cifar10-*.json")):
        record: dict[str, Any] = json.loads(path.read_text())
        resolved = record.get("resolved", {})
        if (resolved.get("train"), resolved.get("test")) != (50_000, 10_000):
            continue
        settings = record["settings"]
        # `architecture`: as the recipe was called once
        what = resolved.get("what") or settings.get("recipe") or settings["architecture"]
        series = f"{what}, {record['environment']['device']}"
        widths = "-".join(map(str, resolved["width"]))
        if resolved.get("rank"):
            widths += f", rank {resolved['rank']}"
        seconds, accuracy = record["phases"]["total_seconds"], record["results"]["accuracy"]
        found.setdefault(series, []).append((seconds, accuracy, widths))
    return found


def run(settings: Settings) -> dict[str, Any]:
    """Draws, and returns what it drew."""
    found = points(settings.records)
    if not found:
        raise data.DataError(
            f"no record of 50,000 + 10,000 images in {settings.records}: run"
            " python -m experiments.cifar10 --out there first"
        )
    with figure(settings.out, (8, 5)) as (_, axes):
        axis = axes[0, 0]
        for series, values in found.items():
            axis.plot(*zip(*[value[:2] for value in values], strict=True), "o", label=series)
            for seconds, accuracy, widths in values:
                place = {"xytext": (5, -9), "textcoords": "offset points", "fontsize": 8}
                axis.annotate(widths, (seconds, accuracy), **place)
        for name, accuracy in PUBLISHED.items():
            axis.axhline(accuracy, color="gray", linestyle=":")
            axis.text(
                0.01, accuracy, name, transform=axis.get_yaxis_transform(), va="bottom", fontsize=8
            )
        axis.margins(x=0.15)
        axis.set_xscale("log")
        axis.set_xlabel("seconds, from reading to predictions")
        axis.set_ylabel("test accuracy on CIFAR-10")
        axis.legend(loc="lower left")
    print(f"{table(found)}\n\nfigure: {settings.out}")
    return found


def table(found: dict[str, list[tuple[float, float, str]]]) -> str:
    """Of all points, by seconds; in bold what nothing as quick is better than."""
    rows, best = [], 0.0
    every = [(*point, series) for series, points in found.items() for point in points]
    for seconds, accuracy, widths, series in sorted(every, key=lambda row: (row[0], -row[1])):
        cell = f"{accuracy:.4f}"
        rows.append([f"{seconds:.0f}", f"**{cell}**" if accuracy > best else cell, series, widths])
        best = max(best, accuracy)
    return markdown(["seconds", "test accuracy", "what", "width"], rows)


def main(arguments: list[str] | None = None) -> int:
    """Draws the figure; 0 when it is done, 2 when there is no record."""
    text = (__doc__ or "").split("\n\n", 1)[1]
    settings, _ = settings_from(Settings, "experiments.cifar10.figure", text, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
