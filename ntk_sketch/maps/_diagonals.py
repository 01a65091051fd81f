"""The exact diagonals `k(x, x)` and `Θ(x, x)`, computed layer by layer without features."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax

from .._typing import Inputs, Offsets, PerKernel
from ..features._variances import Variances
from ..identity._specification import Specification
from ..methods._variances_only import VariancesOnly
from ..numerics._precision import on_device
from ..stax._rule import Covariances
from ..stax._shapes import output_shape
from ._ends import enter, output
from ._pairs import warn_of_pairs
from ._views import Views


def exact_diagonals(
    model: Specification,
    x: Inputs,
    get: tuple[str, ...],
    dtype: str,
    mask_constant: str | None = None,
    **kwargs,
) -> PerKernel:
    """`k(x, x)` and `Θ(x, x)` of each example, (n,) each, or (n, *space) if the output of the model
    has positions. `Θ` is `None` if `get` does not ask for it.
    """
    make = variance_program if kwargs or model.is_traced else _cached_program
    examples = {"examples": len(x)} if kwargs else {}  # call-time arguments fix the batch size
    program = make(model, tuple(x.shape[1:]), get, dtype, **examples, **kwargs)
    warn_of_pairs(program.covariances, x.shape, dtype, sample=0, stacklevel=2)
    variances = variances_at_output(
        program.transform, on_device(x), program.offsets, get, dtype, kwargs, mask_constant
    )
    return variances.diagonals().kernels


class VarianceProgram(NamedTuple):
    """How exact variances are propagated from inputs to outputs.

    Attributes:
        transform: of features without features.
        offsets: position offsets that it needs at the input.
        covariances: how many an example has.
    """

    transform: Any
    offsets: Offsets
    covariances: Covariances


@eqx.filter_jit
def variances_at_output(
    transform,
    x,
    offsets,
    get: tuple[str, ...],
    dtype: str,
    kwargs: dict,
    mask_constant: str | None = None,
) -> Variances:
    return output(transform, Views(), x, offsets, get, dtype, kwargs, mask_constant).variances


def variance_program(
    model: Specification,
    input_shape,
    get,
    dtype: str,
    examples: int = 2,
    **kwargs,
) -> VarianceProgram:
    """The program of a model's exact variances, which ends in the variance of each position."""
    layer, method, shape = model.build(), VariancesOnly(), (examples, *input_shape)
    rule, last = layer.rule, ((0,),) * (len(output_shape(layer, shape)) - 2)
    offsets = rule.needs(last, shape, method=method, **kwargs)
    shapes = functools.partial(enter, ntk="ntk" in get, offsets=offsets)
    features = eqx.filter_eval_shape(shapes, jax.ShapeDtypeStruct(shape, dtype))
    key = jax.random.key(0)  # nothing is drawn
    return VarianceProgram(
        rule.fit(features, method=method, offsets=last, key=key, **kwargs),
        offsets,
        rule.covariances(last, shape, method=method, **kwargs),
    )


_cached_program = functools.lru_cache(maxsize=64)(variance_program)
