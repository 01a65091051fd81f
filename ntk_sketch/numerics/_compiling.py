"""Compiler options on a CPU, where XLA's defaults suit only programs that run for long."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

#: For programs that make a map and run a few times, so that most of the time goes to compilation.
#: Only loops suffer: matrix products and convolutions are library calls at any level.
_QUICKLY: dict[str, Any] = {"xla_llvm_disable_expensive_passes": True}

#: The same, for versions of XLA that have it; others (that of JAX 0.12) refuse to compile with it.
_OLDER_QUICKLY: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}

_NOTE = (
    "This version of JAX cannot compile a function that holds an array of NumPy, such as lambda u:"
    " jnp.polyval(c, u), in both float32 and float64. Write jnp.asarray(c) inside of the function"
    " in place of c."
)

#: What XLA said of these, if it refused them.
_refused: list[str] = []

#: For programs that compute features batch by batch. They compile faster than at XLA's default,
#: level 3, and run about as fast.
_STREAMED: dict[str, Any] = {"xla_backend_optimization_level": 2}


def _levels_are_ours() -> bool:
    """Whether `XLA_FLAGS` sets no level, and JAX accepts a level for each program."""
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    return not chosen and jax.__version_info__ >= (0, 6)


def is_tracing() -> bool:
    """Whether another function is being traced, so that what is computed from numbers is too."""
    return isinstance(jax.device_put(np.float32(0)), Tracer)  # no program is compiled for it


def fitting_jit(fn: Callable[..., Any], *, level: int = 1) -> Callable[..., Any]:
    """`equinox.filter_jit` for functions that are called from the host, a few times each.

    On a CPU they compile in about half the time. A level that the user sets in `XLA_FLAGS` is kept.
    Calls with traced arguments compile as usual, since JAX accepts such options only at the
    outermost level.

    Args:
        fn: a function of positional arguments.
        level: of XLA's optimisation. 1, for functions of a whole sample: loops are vectorised. 0,
            for functions of a few positions: they are not, and compile faster.
    """
    usual = eqx.filter_jit(fn)
    if not _levels_are_ours():
        return usual

    @functools.cache
    def quick(older: bool) -> Callable[..., Any]:
        options = {"xla_backend_optimization_level": level, **_QUICKLY}
        jit: Callable[..., Any] = eqx.filter_jit  # whose annotations know no options of a compiler
        return jit(usual, compiler_options=options | (_OLDER_QUICKLY if older else {}))

    @functools.wraps(fn)
    def call(*args):
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))
        if traced or is_tracing() or jax.default_backend() != "cpu":
            return usual(*args)
        if not _refused:
            try:
                return quick(True)(*args)
            except jax.errors.JaxRuntimeError as error:
                if not any(option in str(error) for option in _OLDER_QUICKLY):
                    raise
                _refused.append(str(error))
        return quick(False)(*args)

    return call


@contextlib.contextmanager
def explained():
    """Adds a note to an error of JAX 0.10 that does not name its cause.

    They keep the dtype in which they first saw an array of NumPy that a function holds: a program
    in the other one of float32 and float64 is then not valid.
    """
    try:
        yield
    except ValueError as error:
        if "Cannot lower jaxpr with verifier errors" in str(error) and not _has(error, _NOTE):
            error.add_note(_NOTE)
        raise


def _has(error: Exception, note: str) -> bool:
    return note in getattr(error, "__notes__", ())


def compiled_to_stream(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles a program that runs on every batch."""
    on_cpu = jax.default_backend() == "cpu"
    return lowered.compile(compiler_options=_STREAMED if on_cpu and _levels_are_ours() else None)
