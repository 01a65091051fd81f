"""Marks for rows of test tables that run at other times than the rest; see `conftest.py`."""

import pytest


def also_by_default(rows, *chosen: str, slow=()) -> list:
    """The names in a table, those that are `chosen` marked `default_flags`, others `slow`."""
    assert {*chosen, *slow} <= set(rows), (chosen, slow)
    marks = dict.fromkeys(slow, pytest.mark.slow) | dict.fromkeys(chosen, pytest.mark.default_flags)
    return [pytest.param(name, marks=marks[name]) if name in marks else name for name in rows]


def others_slow(rows, *kept) -> list:
    """The names in a table, all but those that are `kept` marked `slow`."""
    assert set(kept) <= set(rows), kept
    return [name if name in kept else pytest.param(name, marks=pytest.mark.slow) for name in rows]


def crossed(first, second, *, row, column, by_default=()) -> list:
    """Pairs of names of two tables: every second with the first `row`, every first with `column`;
    all other pairs marked `slow`. Those of `row` and a name in `by_default` are `default_flags`.
    """
    assert row in first, row
    assert {column, *by_default} <= set(second), (column, by_default)

    def mark(a, b):
        if a == row and b in by_default:
            return pytest.mark.default_flags
        return () if a == row or b == column else pytest.mark.slow

    return [pytest.param(a, b, marks=mark(a, b)) for a in first for b in second]
