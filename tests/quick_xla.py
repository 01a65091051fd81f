"""Flags of XLA for tests, which compile far more than they compute."""

import functools
import os
import subprocess
import sys

_QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",  # whose code takes twice as long to compile
    "xla_cpu_parallel_codegen_split_count": "1",  # small programs in one part
    "xla_cpu_opt_preset": "FAST_COMPILE",  # fewer passes over programs
}


@functools.cache
def flags() -> str:
    """Those that the XLA of this jaxlib knows: it aborts at others, and holds their names still."""
    known = [f"--{name}={value}" for name, value in _QUICK.items()]
    return " ".join(known) if _starts(" ".join(known)) else " ".join(filter(_starts, known))


def _starts(flags: str) -> bool:
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


def one_context():
    """Programs are lowered in one context, of which JAX makes a new one for each, in milliseconds.

    To be emptied (`cache_clear`) now and then: it holds what programs name. What is compiled while
    another program is lowered has a context of its own. Nothing is changed where JAX no longer has
    these private names.
    """
    try:
        from jax._src.interpreters import mlir
        from jax._src.lib.mlir import ir

        make = mlir.make_ir_context
    except (ImportError, AttributeError):
        return functools.cache(lambda: None)
    shared = functools.cache(make)

    def context():
        try:
            inside = ir.Context.current
        except ValueError:
            inside = None
        return shared() if inside is None else make()

    mlir.make_ir_context = context
    return shared
