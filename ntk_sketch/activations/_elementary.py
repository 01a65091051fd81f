"""Inverse trigonometric functions that vectorise."""

from collections.abc import Callable, Sequence

import jax
from jax import lax
from jax import numpy as jnp
from jax.extend import core as jex_core

from .._typing import Array

# atan(t) / t - 1 as a polynomial in t², |t| <= tan(π/8): Cephes, atanf.c.
_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)


def vectorised(fn: Callable[..., Sequence[Array]]) -> Callable[..., list[Array]]:
    """`fn` with `atan2`, `asin` and `acos` of float32 numbers in plain arithmetic.

    XLA's code for CPUs calls the C library for every element of these three, which dual kernels
    spend nearly all their time in. Derivatives are those of `fn` itself.
    """

    @jax.custom_jvp
    def fast(*args):
        closed = jax.make_jaxpr(fn)(*args)
        return _evaluate(closed.jaxpr, closed.consts, args)

    @fast.defjvp
    def _(primals, tangents):
        values, derivatives = jax.jvp(lambda *args: list(fn(*args)), primals, tangents)
        return values, derivatives

    return fast


def _evaluate(jaxpr, consts, args) -> list[Array]:
    """A jaxpr, with what `_FAST` has in place of its primitives."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(variable):
        return variable.val if isinstance(variable, jex_core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        outputs = _apply(equation, inputs)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _apply(equation, inputs) -> Sequence[Array]:
    name, params = equation.primitive.name, equation.params
    if name in ("jit", "pjit", "closed_call", "custom_jvp_call"):
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        return _evaluate(inner.jaxpr, inner.consts, inputs)
    if name in _FAST and all(x.dtype == jnp.float32 for x in map(jnp.asarray, inputs)):
        return [_FAST[name](*inputs)]
    outputs = equation.primitive.bind(*inputs, **params)
    return outputs if equation.primitive.multiple_results else [outputs]


def atan2(y: Array, x: Array) -> Array:
    """The angle of (x, y), to about one unit in the last place of float32."""
    rise, run = jnp.abs(y), jnp.abs(x)
    small, large = jnp.minimum(rise, run), jnp.maximum(rise, run)
    # tan(a - π/4) = (tan a - 1) / (tan a + 1) beyond π/8.
    beyond = small > 0.41421356 * large
    over = jnp.where(beyond, small - large, small)
    under = jnp.where(beyond, small + large, large)
    t = over / jnp.where(under == 0, 1, under)
    square = t * t
    series = jnp.zeros_like(t)
    for coefficient in _ATAN:
        series = series * square + coefficient
    angle = t + t * (square * series)
    angle = jnp.where(beyond, angle + jnp.pi / 4, angle)
    angle = jnp.where(rise > run, jnp.pi / 2 - angle, angle)
    angle = jnp.where(x < 0, jnp.pi - angle, angle)
    return jnp.where(y < 0, -angle, angle)


def _asin(x: Array, **_) -> Array:
    return atan2(x, jnp.sqrt((1 - x) * (1 + x)))


def _acos(x: Array, **_) -> Array:
    return atan2(jnp.sqrt((1 - x) * (1 + x)), x)


_FAST = {lax.atan2_p.name: atan2, lax.asin_p.name: _asin, lax.acos_p.name: _acos}
