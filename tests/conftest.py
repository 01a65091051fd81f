"""Settings of the whole test run.

Tests compile far more than they compute, so XLA does not optimise here. What it then never does,
such as contracting a product and a sum into one operation, is what tests of rounding are about:
those are marked `default_flags`, as is a small part of every table of contracts, and
`scripts/test.sh` runs them as XLA compiles for users, before all others. By hand:

    XLA_FLAGS= pytest -m default_flags

Of tables whose rows are alike and take long, most rows are marked `slow`, and so are whole programs
whose parts have tests of their own: `scripts/test.sh` leaves them out, and `pytest -m slow` runs
them.

Compiled programs are kept in a folder for the time of one run, which its processes share: modules,
workers and the commands that tests start compile much alike.
"""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import quick_xla

if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = quick_xla.flags()
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the process that starts the others
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ntk_sketch-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest
from small_map import features_type as features_type
from small_map import make_data as make_data
from small_map import make_map as make_map
from small_map import x64 as x64

from ntk_sketch.numerics import _precision

one_context = quick_xla.one_context()
# Hundreds of thousands of objects live for long here; by default they are searched very often.
gc.set_threshold(100_000, 20, 20)

TESTS = Path(__file__).parent
#: Folders and files with arithmetic of their own that adds axes and mixes dtypes as it pleases.
LOOSE = ("experiments", "nt")


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """No axis is added and no dtype changed by accident: what JAX does silently raises here."""
    if request.path.relative_to(TESTS).parts[0] in LOOSE:
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def float64():
    """64-bit JAX inside one test, so that tolerances can mean rounding."""
    with _precision.float64():
        yield


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Compiled programs go with their test module: each holds memory maps, of which a process may
    have only so many before XLA's compiler crashes.
    """
    yield
    jax.clear_caches()
    one_context.cache_clear()
