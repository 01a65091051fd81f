"""Numbers of Neural Tangents are compared in float64, so that tolerances can mean rounding."""

import importlib

import jax
import pytest

import ntk_sketch  # noqa: F401  the test modules import `neural_tangents` like anybody after this


@pytest.fixture(autouse=True)
def float64():
    # `jax.experimental.enable_x64` became `jax.enable_x64` and was then removed.
    owner = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with owner.enable_x64(True):
        yield
