"""Tests that also run as XLA compiles for users; see `conftest.py`."""

import pytest


def also_by_default(rows, *chosen: str) -> list:
    """The names in a table, those that are `chosen` marked `default_flags`."""
    assert set(chosen) <= set(rows), chosen
    mark = pytest.mark.default_flags
    return [pytest.param(name, marks=mark) if name in chosen else name for name in rows]
