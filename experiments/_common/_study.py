"""The end of every experiment: a record, what is printed, a figure."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ._record import command_line, environment, write_record

PLACES = ("data_dir", "out", "records")


def finish(
    experiment: str,
    settings: Any,
    name: str,
    results: Any,
    text: str,
    draw: Callable[[Path], Any] | None = None,
    **parts: Any,
) -> dict[str, Any]:
    """Writes the record, prints, draws, and returns the record.

    Args:
        experiment: its name in the record.
        settings: a dataclass with a folder `out`; what says where things lie is not recorded.
        name: of the files, without ending.
        results: what was measured, as JSON holds it.
        text: what is printed.
        draw: the figure, given its path; it returns the paths of several, if it makes them. The
            record is there before, so that nothing is lost when it fails.
        **parts: more of the record; `environment` is added to what is known of machine and
            versions.
    """
    record = {
        "experiment": experiment,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "settings": {k: v for k, v in asdict(settings).items() if k not in PLACES},
        "environment": environment() | parts.pop("environment", {}),
        "results": results,
        **parts,
    }
    path = settings.out / f"{name}.json"
    write_record(path, record)
    print(f"{text}\n\nrecord: {path}")
    if draw is not None:
        drawn = path.with_suffix(".png")
        try:
            for one in draw(drawn) or [drawn]:
                print(f"figure: {one}")
        except ImportError as error:
            print(f"no figure: {error} (pip install matplotlib)", file=sys.stderr)
    return record


@contextlib.contextmanager
def figure(
    path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Any, np.ndarray]]:
    """`with figure(path, size) as (plot, axes)`: draws without a display, then writes a PNG.

    Args:
        path: of the PNG.
        size: in inches.
        rows, columns: of the array `axes`.
        **options: of `matplotlib.pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    options = {"layout": "constrained", "squeeze": False, **options}
    plot, axes = pyplot.subplots(rows, columns, figsize=size, **options)
    try:
        yield plot, axes
        path.parent.mkdir(parents=True, exist_ok=True)
        plot.savefig(path, dpi=110)
    finally:
        pyplot.close(plot)


def line(**style: Any) -> Any:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **style)


def markdown(heading: list[str], rows: list[list[Any]]) -> str:
    """A table."""
    first, *others = (f"| {' | '.join(map(str, cells))} |" for cells in (heading, *rows))
    return "\n".join([first, "|" + "---|" * len(heading), *others])


def mean_and_std(values: list[float]) -> dict[str, Any]:
    """Over keys, with every value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "keys": list(map(float, values))}
