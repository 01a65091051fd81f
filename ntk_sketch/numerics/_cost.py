"""Cost of the matrix products and convolutions of a function, counted on its jaxpr."""

import math
from typing import NamedTuple

import jax

from ._memory import array_bytes, subjaxprs


class Cost(NamedTuple):
    """Cost of matrix products and convolutions.

    Attributes:
        flops: two for each multiplication with its addition.
        bytes: of all operands and results, each read or written once.
    """

    flops: int
    bytes: int


def product_cost(fn, *args) -> Cost:
    """The cost of `fn(*args)`; `args` may be shapes.

    The body of a loop counts as often as it runs, or once if that depends on data. Of several
    branches only the costliest counts.
    """
    return _total(jax.make_jaxpr(fn)(*args).jaxpr)


def _total(jaxpr) -> Cost:
    return _sum([_cost(equation) for equation in jaxpr.eqns])


def _sum(costs: list[Cost]) -> Cost:
    return Cost(sum(cost.flops for cost in costs), sum(cost.bytes for cost in costs))


def _cost(equation) -> Cost:
    name = equation.primitive.name
    if name in _TERMS:
        terms = _TERMS[name](equation)
        arrays = (*equation.invars, *equation.outvars)
        size = math.prod(equation.outvars[0].aval.shape)
        return Cost(2 * size * terms, sum(array_bytes(v.aval) for v in arrays))
    inner = [_total(jaxpr) for jaxpr in subjaxprs(equation)]
    if name == "cond":
        return max(inner)
    return _sum(inner * (equation.params["length"] if name == "scan" else 1))


def _dot_terms(equation) -> int:
    shape = equation.invars[0].aval.shape
    (contracted, _), _ = equation.params["dimension_numbers"]
    return math.prod(shape[axis] for axis in contracted)


def _convolution_terms(equation) -> int:
    """Taps times input channels (of one group), padding included."""
    shape = equation.invars[1].aval.shape
    _, *summed = equation.params["dimension_numbers"].rhs_spec
    return math.prod(shape[axis] for axis in summed)


#: The number of products that are summed for each number of the result.
_TERMS = {"dot_general": _dot_terms, "conv_general_dilated": _convolution_terms}
