"""The rule of elementwise nonlinearities, whose function and kernels come from NT's triple."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from .._typing import Offsets
from ..activations import DualActivation
from ..features._hidden import HiddenFeatures
from ..features._windows import union
from ..identity._specification import Specification
from ..series._kernel_values import MAX_DEGREE
from ._rule import Rule, check_layer


class Nonlinearity(Rule):
    """`K' = k_σ(K, q, q')`, `Θ' = k_σ'(K, q, q') Θ`, expanded into features by the method."""

    nonlinearities = 1
    positions, masks = "expanded", True

    def __init__(self, dual: DualActivation, flattened: bool = False, overflows: bool = False):
        self.dual, self.flattened, self.overflows = dual, flattened, overflows

    def before_flatten(self):
        return Nonlinearity(self.dual, flattened=True, overflows=self.overflows)

    def needs(self, offsets, shape, *, method):
        method.check_sample(self.dual, math.prod(shape[:-1]))
        if method.uses_function == "always":
            (self.dual.unit or self.dual).check_function()
        if offsets is None and not method.uses_variances and self.dual.unit is None:
            return None
        return union(offsets, ((0,),) * (len(shape) - 2))

    def looks_at_data(self, method):
        return method.looks_at_data

    def fit(self, features, *, method, offsets, key):
        method.check_examples(self.dual.name, features)
        flattened = self.flattened and math.prod(features.space) > 1
        expand = method.expand_before_flatten if flattened else method.expand
        expansion = expand(self.dual, features, key=key)
        return NonlinearityTransform(expansion, self.dual, offsets)

    def series(self, series):
        return series.nonlinearity(self.dual)

    def support(self, method):
        use, unit = method.uses_function, self.dual.unit is not None
        if self.overflows and use == "for a series":
            return "with `radii`: it overflows at the largest norms of the default"
        if self.dual.has_function or use == "never" or (unit and use in ("always", "for a series")):
            return "yes"
        if use == "always":
            return "no: needs the function; kernels give the squares of its coefficients"
        if use == "for a series":
            return f"degree at most {MAX_DEGREE}: higher coefficients are lost in rounding"
        if not unit:
            return "landmarks alone: residual features need the function"
        return "landmarks alone: residual features have a variance of up to e^{4γ} K²"


class NonlinearityTransform(eqx.Module):
    expansion: Any
    dual: DualActivation
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        exact = None
        if features.variances is not None:
            offsets = ((0,),) * len(features.space) if self.offsets is None else self.offsets
            exact = features.variances.nonlinearity(self.dual, offsets)
            exact = exact if features.mask is None else exact.masked(features.mask)
        nngp, ntk = self.expansion(features, exact)
        return features.replace(
            nngp=(features.masked(nngp),),
            ntk=None if ntk is None else (features.masked(ntk),),
            variances=None if self.offsets is None else exact,
            pending=None,
            patched=False,
        )


def nonlinearity(layer, *args, **kwargs) -> Rule:
    """The rule of an elementwise nonlinearity.

    Use this to give features to an elementwise layer that is not in this library:
    `register(constructor, nonlinearity)`. If `σ(s u) = s^p σ(u)`, use `homogeneous(p)` instead.

    Features need NT's triple only: `apply_fn((), x)` is `σ(x)`, and `kernel_fn` maps the `nngp`,
    `ntk`, `cov1` and `cov2` of an `nt.Kernel` entry by entry.

    Example:
        >>> from ntk_sketch.stax import nonlinearity
        >>> import ntk_sketch
        >>> import neural_tangents
        >>> from ntk_sketch import stax
        >>> Erf = stax.register(neural_tangents.stax.Erf, nonlinearity)
    """
    check_layer(layer, "nonlinearity")
    return Nonlinearity(DualActivation(layer))


def smooth(layer, *args, **kwargs) -> Rule:
    """The rule of nonlinearities that have no jumps, and whose derivative has none."""
    return Nonlinearity(DualActivation(layer, smooth=True))


def exponential(layer, a, b):
    """The rule of `a exp(b u)`, which is infinite where tables of series end by default."""
    return Nonlinearity(DualActivation(layer, smooth=True), overflows=True)


def homogeneous(degree: float | int) -> Callable[..., Rule]:
    """The rule of nonlinearities with `σ(s u) = s^degree σ(u)` for all s > 0.

    Use this instead of `nonlinearity` for such functions, for example `Relu` with degree 1. Kernels
    are then right at any scale of the inputs.

    Args:
        degree: a number, 0 or more. Kernels are computed at unit variances and scaled according to
            it, so that a wrong degree gives wrong kernels.

    Example:
        >>> from ntk_sketch.stax import homogeneous
        >>> import ntk_sketch
        >>> import neural_tangents
        >>> from ntk_sketch import stax
        >>> Relu = stax.register(neural_tangents.stax.Relu, homogeneous(1))
    """
    number = isinstance(degree, numbers.Real) and not isinstance(degree, bool)
    if not number or not 0 <= degree < math.inf:
        raise ValueError(f"homogeneous(degree): degree is a number, 0 or more; got {degree!r}.")
    power = int(degree) if float(degree).is_integer() else float(degree)

    def rule(layer, *args, **kwargs) -> Rule:
        check_layer(layer, f"homogeneous({power})")
        return Nonlinearity(DualActivation(layer, degree=power))

    return rule


def monomial(layer, degree) -> Rule:
    return homogeneous(degree)(layer)


def exp_normalized(exponential: Callable[..., Any]) -> Callable[..., Rule]:
    """The rule of the kernel `√(q q') exp(γ (ρ + shift))`.

    At unit variances this is `E[a e^{b u} a e^{b v}] = a² e^{b²} e^{b² ρ}` with `b = √γ` and `a =
    e^{γ (shift - 1) / 2}`, the kernel of `exponential(a, b)`.
    """

    def unit(gamma, shift, do_clip) -> DualActivation | None:
        traced = isinstance(gamma, Tracer) or isinstance(shift, Tracer)
        if not traced and gamma <= 0:
            return None
        numpy = jnp if traced else np
        a, b = numpy.exp(gamma * (shift - 1) / 2), numpy.sqrt(gamma)
        return exponential(a, b).rule.dual

    rule = homogeneous(1)
    vars(rule)["unit"] = unit
    return rule


def elementwise(layer, fn, nngp_fn, d_nngp_fn):
    """The rule of a user's formula. It or its derivative may divide by zero at cosine one."""
    return Nonlinearity(DualActivation(layer, interior=True))


def rectified_monomial(layer, degree):
    """The rule of rectified monomials.

    NT's formula is 0/0 at cosine one, and its automatic derivative is unstable near it. The
    derivative comes from the kernel of the next lower monomial instead.
    """
    derivative = None
    if degree > 0:
        lower = Specification.of(layer.specification.constructor, {"degree": degree - 1})
        derivative = (degree, lower)
    dual = DualActivation(layer, derivative=derivative, interior=True, degree=degree)
    return Nonlinearity(dual)
