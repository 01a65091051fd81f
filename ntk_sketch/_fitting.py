"""Programs that make a map: they run a few times, so that compiling them is what takes time."""

import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

#: What makes XLA quick on a CPU: at level 1 a loop still runs on vectors, and code for loops is
#: emitted directly. Matrix products and convolutions are library calls at any level.
_QUICKLY: dict[str, Any] = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def fitting_jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`equinox.filter_jit` for functions that are called from the host alone, a few times each.

    They compile in about half the time. Levels that the user sets in `XLA_FLAGS` are kept.
    """
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    known = jax.__version_info__ >= (0, 6)
    options: dict[str, Any] = {"compiler_options": _QUICKLY} if known and not chosen else {}
    return eqx.filter_jit(fn, **options)
