"""XLA's optimisation levels: set only on a CPU, and only if the user chose none."""

import counting
import equinox as eqx
import jax
import numpy as np
import pytest

from ntk_sketch.numerics import _compiling

CHOSEN = "--xla_cpu_multi_thread_eigen=true --xla_backend_optimization_level=1"
ours = pytest.mark.parametrize(
    ("flags", "backend", "expected"),
    # Before JAX 0.6 a program has no options of its own.
    [("", "cpu", jax.__version_info__ >= (0, 6)), (CHOSEN, "cpu", False), ("", "gpu", False)],
)


class Lowered:
    options = None

    def compile(self, compiler_options):
        self.options = compiler_options


@ours
def test_streamed_programs(flags, backend, expected, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    lowered = Lowered()
    _compiling.compiled_to_stream(lowered)
    level = (lowered.options or {}).get("xla_backend_optimization_level")
    assert (level == 2) == expected


@ours
@pytest.mark.parametrize("level", [0, 1])
def test_fitting_programs(flags, backend, expected, level, monkeypatch):
    used = []

    def filter_jit(fn, compiler_options=None):
        def call(*args):
            used.append((compiler_options or {}).get("xla_backend_optimization_level"))
            return fn(*args)

        return call

    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(eqx, "filter_jit", filter_jit)
    double = _compiling.fitting_jit(lambda x: 2 * x, level=level)
    assert double(3.0) == 6.0
    # With options the program as usual inside: both share what was traced.
    assert used == ([level, None] if expected else [None])
    used.clear()
    jax.grad(lambda x: double(x))(3.0)  # what is differentiated compiles as usual
    assert used == [None]


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    """JAX 0.12 lost one, and refuses to compile with it."""
    monkeypatch.setattr(_compiling, "_OLDER_QUICKLY", {"xla_no_such_option": True})
    monkeypatch.setattr(_compiling, "_refused", [])
    monkeypatch.setenv("XLA_FLAGS", "")
    assert _compiling.fitting_jit(lambda x: x + 1)(np.float32(1)) == 2
    assert len(_compiling._refused) == (jax.__version_info__ >= (0, 6))


def test_other_errors_of_a_program_are_raised(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")

    def fails(x):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    refused = list(_compiling._refused)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        _compiling.fitting_jit(fails)(np.float32(1))
    assert _compiling._refused == refused


def test_whether_a_function_is_traced():
    found = []
    jax.jit(lambda x: found.append(_compiling.is_tracing()) or x)(1.0)
    with counting.compiled() as programs:
        found.append(_compiling.is_tracing())
    assert found == [True, False]
    assert programs.count == 0
