"""Elementwise formulas, traced at one entry and applied to arrays of any shape."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.extend import core as jex_core

from .._typing import Array
from ._elementary import VECTORISED

#: Elementwise primitives of JAX.
_ELEMENTWISE_NAMES = """
    abs acos add add_any and asin atan2 convert_element_type cos div eq erf erfc exp exp2 expm1 ge
    gt integer_pow is_finite le log log1p logistic lt max min mul ne neg not one_minus_square or pow
    rem rsqrt select_n sign sin sqrt square sub tan tanh
"""

#: Primitives that do not change a single number.
_SHAPE_NAMES = """
    broadcast_in_dim copy expand_dims reduce_max reduce_min reduce_prod reduce_sum reshape slice
    squeeze stop_gradient transpose
"""
_ELEMENTWISE = frozenset(_ELEMENTWISE_NAMES.split())
_SHAPES_ALONE = frozenset(_SHAPE_NAMES.split())

#: Primitives that NumPy rounds like XLA. JAX would compile a program for each.
_BY_NUMPY = {
    "abs": np.abs,
    "add": np.add,
    "convert_element_type": lambda x: x,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "sub": np.subtract,
}
_CALLS = frozenset(["jit", "pjit", "closed_call", "custom_jvp_call"])


class Step(NamedTuple):
    """One elementwise operation of a formula. Operands are numbers, or names of earlier results."""

    equation: Any
    operands: tuple[np.ndarray | str, ...]
    result: str


class Formula(NamedTuple):
    """A formula for one entry as a list of steps, without those that no result needs."""

    arguments: tuple[str, ...]
    steps: tuple[Step, ...]
    results: tuple[np.ndarray | str, ...]
    dtypes: tuple[Any, ...]


def of_one_entry(fn: Callable[..., Any], *avals: jax.ShapeDtypeStruct) -> Formula | None:
    """The steps of `fn` at single numbers, or `None` if some are not elementwise.

    Steps on constants are evaluated, and steps that no result needs are left out.
    """
    closed: Any = jax.make_jaxpr(fn)(*avals)
    if not _is_elementwise(closed.jaxpr):
        return None
    arguments, steps = tuple(f"argument {i}" for i in range(len(avals))), []

    def one_step(equation, operands):
        # Constants of functions called inside have shapes of single numbers too.
        operands = [x if isinstance(x, str) else _number(x) for x in operands]
        if equation.primitive.name in _SHAPES_ALONE:
            return operands[:1]
        if not _names(operands) and equation.primitive.name in _BY_NUMPY:
            avals = [variable.aval for variable in equation.invars]
            numbers = [np.asarray(x, a.dtype) for x, a in zip(operands, avals, strict=True)]
            dtype = equation.outvars[0].aval.dtype
            with np.errstate(all="ignore"):  # a formula may have infinite constants
                return [np.asarray(_BY_NUMPY[equation.primitive.name](*numbers), dtype)]
        steps.append(Step(equation, tuple(operands), f"step {len(steps)}"))
        return [steps[-1].result]

    consts = [_number(const) for const in closed.consts]
    results = tuple(_evaluate(closed.jaxpr, consts, arguments, one_step))
    needed, kept = _names(results), []
    for step in reversed(steps):
        if step.result in needed:
            needed |= _names(step.operands)
            kept.append(step)
    dtypes = tuple(variable.aval.dtype for variable in closed.jaxpr.outvars)
    return Formula(arguments, tuple(reversed(kept)), results, dtypes)


def entrywise(fn: Callable[..., Any], of_one: Formula | None = None) -> Callable[..., list[Any]]:
    """`fn` with vectorised `atan2`, `asin` and `acos` of float32 numbers.

    Derivatives are those of `fn` itself.

    Args:
        fn: an elementwise function of arrays of one shape, possibly followed by single numbers.
        of_one: the steps of `fn` from `of_one_entry`, to be used for arrays of any shape. `None`:
            trace `fn` at the arrays.
    """

    @jax.custom_jvp
    def fast(*args):
        if of_one is None:
            closed = jax.make_jaxpr(fn)(*args)
            return _evaluate(closed.jaxpr, closed.consts, args, _applied)
        known = dict(zip(of_one.arguments, args, strict=True))

        def value(operand):
            return known[operand] if isinstance(operand, str) else operand

        for step in of_one.steps:
            known[step.result] = _at_entries(step.equation, list(map(value, step.operands)))
        results = zip(map(value, of_one.results), of_one.dtypes, strict=True)
        return [_everywhere(x, args[0].shape, dtype) for x, dtype in results]

    @fast.defjvp
    def _(primals, tangents):
        values, derivatives = jax.jvp(lambda *args: list(fn(*args)), primals, tangents)
        return values, derivatives

    return fast


def _is_elementwise(jaxpr) -> bool:
    """Whether all variables are single numbers and all steps elementwise."""

    def step(equation) -> bool:
        name = equation.primitive.name
        if name in _CALLS:
            return _is_elementwise(_called(equation).jaxpr)
        return name in _ELEMENTWISE or name in _SHAPES_ALONE

    variables = (*jaxpr.invars, *jaxpr.constvars, *(v for e in jaxpr.eqns for v in e.outvars))
    return all(math.prod(v.aval.shape) == 1 for v in variables) and all(map(step, jaxpr.eqns))


def _evaluate(jaxpr, consts, args, apply: Callable[..., Sequence]) -> list:
    """The results of a jaxpr, with each step computed by `apply(equation, inputs)`."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(variable):
        return variable.val if isinstance(variable, jex_core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        if equation.primitive.name in _CALLS:
            inner = _called(equation)
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs, apply)
        else:
            outputs = apply(equation, inputs)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _called(equation):
    params = equation.params
    return params.get("jaxpr", params.get("call_jaxpr"))


def _applied(equation, inputs) -> Sequence:
    name = equation.primitive.name
    if name in VECTORISED and all(x.dtype == jnp.float32 for x in map(jnp.asarray, inputs)):
        return [VECTORISED[name](*inputs)]
    return _bound(equation, inputs)


def _bound(equation, inputs) -> Sequence:
    outputs = equation.primitive.bind(*inputs, **equation.params)
    return outputs if equation.primitive.multiple_results else [outputs]


def _at_entries(equation, inputs) -> Array:
    """A step for one entry, applied to arrays and to single numbers of shape ()."""
    shape = max((jnp.shape(x) for x in inputs), key=len)
    inputs = [
        _everywhere(x, shape, variable.aval.dtype)
        for x, variable in zip(inputs, equation.invars, strict=True)
    ]
    return _applied(equation, inputs)[0]


def _names(operands) -> set[str]:
    return {operand for operand in operands if isinstance(operand, str)}


def _number(x) -> np.ndarray:
    return np.reshape(np.asarray(x), ())


def _everywhere(x, shape: tuple[int, ...], dtype):
    x = x if isinstance(x, Array) else np.asarray(x, dtype)
    return x if jnp.shape(x) == shape else lax.broadcast(x, shape)
