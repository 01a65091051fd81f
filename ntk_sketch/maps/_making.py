"""`feature_map`: a model and a method become a map from inputs to features."""

import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
from jax import numpy as jnp
from jax.core import Tracer

from .._arguments import checked_inputs, checked_key, warn_of_lost_variation
from .._typing import Inputs, PRNGKey
from ..identity._example_keys import landmark_keys
from ..methods import Method
from ..methods._widths import warn_of_widths
from ..numerics._compiling import fitting_jit
from ..numerics._precision import promoted
from ..stax import Layer
from ..stax._whole_network import rule_under
from ._checks import (
    KERNELS,
    check_method,
    check_model,
    check_with_nt,
    checked_call_arguments,
    checked_get,
)
from ._ends import enter
from ._feature_map import FeatureMap
from ._scale import check_scale
from ._views import Views, preprocessed

_entered = fitting_jit(enter, level=0)


def feature_map(
    model: Layer,
    x: Inputs | jax.ShapeDtypeStruct,
    method: Method,
    *,
    key: PRNGKey,
    get: str | Sequence[str] = KERNELS,
    preprocess: Callable | None = None,
    **kwargs,
) -> FeatureMap:
    """Features whose inner products approximate the kernels of `model`.

    Args:
        model: a layer of `ntk_sketch.stax`, usually of `serial`.
        x: example inputs (n, *shape), from which methods that look at data take their sample; for
            the others their shape is enough, as an array or a `jax.ShapeDtypeStruct`.
        method: how nonlinearities are expanded, for example `RandomFeatures(1024)`.
            `stax.with_method` overrides it layer by layer.
        key: of `jax.random`. The same key gives the same map.
        get: `"nngp"`, `"ntk"` or both. What is not asked for costs nothing.
        preprocess: a function of a batch of examples that makes the inputs of the network of them,
            example by example: a fitted scaling, whitening, patches of images. It becomes a part of
            the map, compiled with it and saved with it, so that the map takes examples as they are.
            Best an `equinox.Module` whose arrays are the fitted numbers. `None`: the examples are
            the inputs.
        **kwargs: NT's call-time arguments of `kernel_fn` (`pattern`), those of the example inputs.

    Returns:
        A `FeatureMap`: `z = feature_map(x)`, `z.ntk @ z.ntk.T ≈ kernel_fn(x, None, "ntk")`.

    Warns:
        RuntimeWarning: examples so large or small that a nonlinearity's formula loses its digits.

    Raises:
        ValueError, NotImplementedError: whatever NT's `kernel_fn` raises for this model and input
            shape, with the name of the layer; layers and options that have no feature rule; bad
            inputs, those whose exact variances overflow their dtype included. All before any long
            work.
        TypeError: not a model, method, preprocessing or input of the right kind.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
        >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
        >>> features(x).nngp.shape
        (50, 16)
    """
    check_model(model)
    check_method(method)
    get = checked_get(get)
    kwargs = checked_call_arguments(kwargs, model.rule.call_arguments)
    checked_key(key)
    examples = x = checked_inputs(x)
    warn_of_lost_variation(x)
    if preprocess is not None:
        x = checked_inputs(preprocessed(preprocess, x))
    abstract = isinstance(x, jax.ShapeDtypeStruct)
    shape, dtype = tuple(x.shape), jax.dtypes.canonicalize_dtype(x.dtype)

    check_with_nt(model, shape[1:], dtype, get, kwargs)

    dtype = promoted(dtype, jnp.float32)
    if not kwargs:
        check_scale(model, x, get, str(dtype), stacklevel=2)
    rule = rule_under(model, method)
    [own] = method.split([rule.nonlinearities])  # a schedule has one width for each
    offsets = rule.needs(None, shape, method=own, **kwargs)
    entering = functools.partial(enter, ntk="ntk" in get, offsets=offsets)
    if rule.looks_at_data(own) and not abstract:
        with jax.ensure_compile_time_eval():  # numbers even while a map is made under jit
            features = _entered(jnp.asarray(x).astype(dtype), "ntk" in get, offsets)
    else:
        features = eqx.filter_eval_shape(entering, jax.ShapeDtypeStruct(shape, dtype))
    transform = rule.fit(features, method=own, offsets=None, key=key, **kwargs)
    warn_of_widths(transform, stacklevel=2)
    landmarks = None
    if not isinstance(x, jax.ShapeDtypeStruct | Tracer):
        landmarks = landmark_keys(transform, examples)
    return FeatureMap(
        transform,
        Views(preprocess),
        model.specification,
        method,
        offsets,
        tuple(examples.shape[1:]),
        get,
        model.rule.call_arguments,
        str(dtype),
        landmarks,
    )
