"""Memory that a function needs, counted on its jaxpr."""

import collections
import math

import jax
from jax.extend import core as jex_core


def peak_bytes(fn, *args, of=None) -> int:
    """The largest number of bytes in live arrays while `fn(*args)` runs; `args` may be shapes.

    Every intermediate array counts from its equation to its last use. This is an upper estimate,
    since XLA fuses many of them away.

    Args:
        of: gives the bytes to count for an array of a shape and dtype; `None`: all of them.
    """
    closed = jax.make_jaxpr(fn)(*args)
    return max(_peak(closed.jaxpr, of or array_bytes), 1)


def _peak(jaxpr, of) -> int:
    last_use = {}
    for number, equation in enumerate(jaxpr.eqns):
        for variable in equation.invars:
            if not isinstance(variable, jex_core.Literal):
                last_use[variable] = number
    for variable in jaxpr.outvars:
        if not isinstance(variable, jex_core.Literal):
            last_use[variable] = len(jaxpr.eqns)
    freed_at = collections.defaultdict(list)
    inputs = {*jaxpr.invars, *jaxpr.constvars}
    for variable, number in last_use.items():
        if variable not in inputs:
            freed_at[number].append(variable)
    alive = peak = 0
    for number, equation in enumerate(jaxpr.eqns):
        inner = max((_peak(j, of) for j in subjaxprs(equation)), default=0)
        outputs = sum(of(v.aval) for v in equation.outvars)
        alive += outputs
        peak = max(peak, alive - outputs + max(inner, outputs))
        alive -= sum(of(v.aval) for v in freed_at[number])
        alive -= sum(of(v.aval) for v in equation.outvars if v not in last_use)
    return peak


def subjaxprs(equation):
    """The jaxprs in an equation, those of jitted or custom functions, loops and branches."""
    for parameter in equation.params.values():
        for value in parameter if isinstance(parameter, tuple) else (parameter,):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield inner


def array_bytes(aval) -> int:
    return math.prod(getattr(aval, "shape", ())) * getattr(
        getattr(aval, "dtype", None), "itemsize", 4
    )
