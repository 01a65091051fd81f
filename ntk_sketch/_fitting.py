"""Programs that make a map: they run a few times, so that compiling them is what takes time."""

import functools
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.core import Tracer

#: What makes XLA quick on a CPU: at level 1 a loop still runs on vectors, and code for loops is
#: emitted directly. Matrix products and convolutions are library calls at any level.
_QUICKLY: dict[str, Any] = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def fitting_jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`equinox.filter_jit` for functions that are called from the host alone, a few times each.

    They compile in about half the time. Levels that the user sets in `XLA_FLAGS` are kept, and
    what is differentiated compiles as usual, since JAX takes such options at the outermost level.
    """
    usual = eqx.filter_jit(fn)
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.__version_info__ < (0, 6):
        return usual
    options: dict[str, Any] = {"compiler_options": _QUICKLY}
    quick = eqx.filter_jit(fn, **options)

    @functools.wraps(fn)
    def call(*args):
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))
        return usual(*args) if traced else quick(*args)

    return call
