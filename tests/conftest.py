"""Settings of the whole test run. Tests compile far more than they compute."""

import importlib
import os

os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import jax
import pytest


@pytest.fixture
def float64():
    """64-bit JAX inside one test, so that tolerances can mean rounding."""
    # `jax.experimental.enable_x64` became `jax.enable_x64` and was then removed.
    owner = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with owner.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Compiled programs go with their test module: each holds memory maps, of which a process may
    have only so many before XLA's compiler crashes.
    """
    yield
    jax.clear_caches()
