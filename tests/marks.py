"""Marks for rows of test tables that run at other times than the rest; see `conftest.py`."""

import pytest


def also_by_default(rows, *chosen: str) -> list:
    """The names in a table, those that are `chosen` marked `default_flags`."""
    return _marked(rows, chosen, pytest.mark.default_flags)


def others_slow(rows, *kept: str) -> list:
    """The names in a table, all but those that are `kept` marked `slow`."""
    assert set(kept) <= set(rows), kept
    return _marked(rows, set(rows) - set(kept), pytest.mark.slow)


def _marked(rows, chosen, mark) -> list:
    assert set(chosen) <= set(rows), chosen
    return [pytest.param(name, marks=mark) if name in chosen else name for name in rows]
