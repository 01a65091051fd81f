"""The kernels of each example with itself, by their own recursion; and what enters and leaves a
network's rules.
"""

import functools
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from ._arguments import root_mean_squares
from ._features import Features
from ._precision import float64, promoted
from ._specification import Specification
from ._typing import Array, Inputs
from ._variances import Variances, input_variances
from .activations import DualActivation
from .methods._variances_only import VariancesOnly
from .stax import Layer
from .stax._combinators import output_shape

#: Root mean squares of examples beyond these are looked at; standardised ones are near 1.
_USUAL = (1 / 30, 30)

#: Relative error of an exact variance that is warned about: it is that of all kernels there.
_WRONG = 0.01


def enter(x: Array, ntk: bool, offsets) -> Features:
    """Features of the inputs themselves: `K(x_s, x'_t) = <x_s, x'_t> / c`, `Θ = 0`."""
    return Features(
        nngp=(x * x.shape[-1] ** -0.5,),
        ntk=() if ntk else None,
        variances=None if offsets is None else input_variances(x, offsets, ntk),
        channels=x.shape[-1],
    )


def output(transform, x: Array, offsets, get: tuple[str, ...], dtype: str, kwargs: dict):
    """Features at the output, between rules, in the map's dtype or one of more digits."""
    x = x.astype(promoted(x.dtype, dtype))
    features = enter(x, "ntk" in get, offsets)
    transform = jax.tree.map(
        lambda leaf: leaf.astype(x.dtype) if eqx.is_inexact_array(leaf) else leaf, transform
    )
    return transform(features, **kwargs).concrete()


def exact_diagonals(
    model: Specification, x: Inputs, get: tuple[str, ...], dtype: str, **kwargs
) -> tuple[Array, Array | None]:
    """`k(x, x)` and, or `None`, `Θ(x, x)` of each example, (n,) each."""
    make = _program if kwargs or model.is_traced else _cached_program
    transform, offsets = make(model, tuple(x.shape[1:]), get, dtype, **kwargs)
    variances = _variances(transform, jnp.asarray(x), offsets, get, dtype, kwargs)
    _, nngp, ntk = variances.diagonals()
    return nngp, ntk


@eqx.filter_jit
def _variances(transform, x, offsets, get: tuple[str, ...], dtype: str, kwargs: dict) -> Variances:
    return output(transform, x, offsets, get, dtype, kwargs).variances


def _program(model: Specification, input_shape, get, dtype: str, last: Any = (), **kwargs):
    """A transform that carries exact variances to the output, and the offsets that it starts
    from. Those at the output are `last`: `()` where no positions are left.
    """
    rule, method, shape = model.build().rule, VariancesOnly(), (2, *input_shape)
    offsets = rule.needs(last, shape, method=method, **kwargs)
    shapes = functools.partial(enter, ntk="ntk" in get, offsets=offsets)
    features = eqx.filter_eval_shape(shapes, jax.ShapeDtypeStruct(shape, dtype))
    key = jax.random.key(0)  # nothing is drawn
    return rule.fit(features, method=method, offsets=last, key=key, **kwargs), offsets


_cached_program = functools.lru_cache(maxsize=64)(_program)


def check_scale(model: Layer, x: Any, get: tuple[str, ...], dtype: str, stacklevel: int) -> None:
    """Warns of, or refuses, examples so large or small that a nonlinearity's formula fails.

    That of Gelu, with `1 / √((1 + q)(1 + q') - c²)`, loses all digits of float32 at variances of
    10⁸. The examples of largest and smallest norm, if far from a root mean square of 1, have their
    exact variances computed in `dtype` and in float64, and the difference is what is warned about.
    Homogeneous nonlinearities (Relu) are right at any scale.

    Raises:
        ValueError: the variances are NaN or infinite in `dtype`.
    """
    if isinstance(x, jax.ShapeDtypeStruct | Tracer) or model.specification.is_traced:
        return  # nothing is known of their size
    if dtype == "float64":
        return
    sizes = root_mean_squares(x)
    place = [int(np.argmin(np.where(sizes > 0, sizes, np.inf))), int(np.argmax(sizes))]
    smallest, largest = sizes[place]
    if not largest or (_USUAL[0] <= smallest and largest <= _USUAL[1]):
        return
    last = ((0,),) * (len(output_shape(model, (2, *x.shape[1:]))) - 2)
    program = _program(model.specification, tuple(x.shape[1:]), get, dtype, last=last)
    nodes = jax.tree.leaves(program[0], is_leaf=_is_dual)
    if all(node.degree is not None for node in nodes if _is_dual(node)):
        return
    two = np.asarray(x[np.array(place)])  # of a GPU's array these two alone
    found = _diagonals_by(program, two.astype(dtype), get, dtype)
    with float64():
        right = _diagonals_by(program, two.astype(np.float64), get, dtype)
    for size, *values in zip(sizes[place], found, right, strict=True):
        value, exact = (float(np.max(np.abs(v))) for v in values)
        told = f"examples of root mean square {size:.3g} have an exact variance"
        remedy = (
            "Standardise the inputs, or give float64 examples"
            " (jax.config.update('jax_enable_x64', True))."
        )
        if not np.isfinite(values[0]).all():
            raise ValueError(
                f"{told} that overflows {dtype}, at the model's output or on the way there:"
                f" their features would be NaN. {remedy}"
            )
        if not np.allclose(*values, rtol=_WRONG, atol=_WRONG * exact):
            warnings.warn(
                f"{told} of {value:.3g} in {dtype} at the model's output, where float64 gives"
                f" {exact:.3g}: a nonlinearity's formula loses its digits at this scale, and with"
                f" it features and kernels. {remedy}",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )
            return


def _is_dual(node) -> bool:
    return isinstance(node, DualActivation)


def _diagonals_by(program, x: np.ndarray, get: tuple[str, ...], dtype: str) -> np.ndarray:
    """`k(x, x)`, and `Θ(x, x)` if it was asked for, of every position: (n, numbers)."""
    transform, offsets = program
    variances = _variances(transform, jnp.asarray(x), offsets, get, dtype, {})
    kernels = [k for k in variances.diagonals()[1:] if k is not None]
    return np.concatenate([np.asarray(k).reshape(len(x), -1) for k in kernels], axis=1)
