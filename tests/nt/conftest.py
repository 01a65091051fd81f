"""Numbers of Neural Tangents are compared in float64, so that tolerances can mean rounding."""

import pytest


@pytest.fixture(autouse=True)
def always_float64(float64):
    pass
