"""`feature_map`: makes a feature map from a model and a method."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp
from jax.core import Tracer

from .._arguments import checked_inputs, checked_key, warn_of_lost_variation
from .._typing import KERNELS, Inputs, PRNGKey
from ..identity._example_keys import landmark_keys
from ..methods import Method
from ..methods._widths import warn_of_widths
from ..numerics._compiling import fitting_jit, is_tracing
from ..numerics._precision import on_device, promoted
from ..stax import Layer
from ..stax._whole_network import rule_under
from ._checks import (
    check_method,
    check_model,
    check_with_nt,
    checked_call_arguments,
    checked_get,
)
from ._ends import enter
from ._feature_map import FeatureMap
from ._masks import checked_constant, without_marks
from ._pairs import warn_of_pairs
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
    mask_constant: float | None = None,
    **kwargs,
) -> FeatureMap:
    """Makes a map to features whose inner products approximate the kernels of `model`.

    Use this when the exact kernel matrix is too large or too slow: the cost of features is linear
    in the number of examples and of pixels.

    Args:
        model: a layer of `ntk_sketch.stax`, usually made by `serial`.
        x: example inputs (n, *shape), the sample. Data-dependent methods such as `Nystroem` choose
            landmarks from it: give a few hundred typical examples. For the other methods the shape
            is enough, as an array or a `jax.ShapeDtypeStruct`.
        method: how nonlinearities become features, for example `RandomFeatures(1024)`.
            `stax.with_method` overrides it for single layers.
        key: of `jax.random`. The same key gives the same map.
        get: `"nngp"`, `"ntk"` or both. A kernel that is left out costs nothing.
        preprocess: a function of a batch of examples that returns the network's inputs, one for
            each example: a fitted scaling, whitening, patches of images. The map applies it, and
            is compiled and saved with it. An `equinox.Module` that holds the fitted numbers as
            arrays is best. `None`: the examples are the inputs.
        mask_constant: a number that marks entries of the inputs as masked, as in NT: for example
            the padding of short sentences. Positions whose channels are all masked have features
            and variances 0 in every layer, are never landmarks, and `GlobalAvgPool` does not count
            them. Later batches are masked by the same constant. It may be NaN, but solvers and
            streams refuse NaN in examples: choose a number that no entry has and that floats hold
            exactly, such as -1000.
        **kwargs: NT's call-time arguments of `kernel_fn` for the example inputs, such as `pattern`
            for `Aggregate`: one graph for each example.

    Returns:
        A `FeatureMap`: `z = feature_map(x)`, `z.ntk @ z.ntk.T ≈ kernel_fn(x, None, "ntk")`.

    Warns:
        RuntimeWarning: examples so large or small that the formula of a nonlinearity's kernel is
            inaccurate in their dtype.
        UserWarning: attention, aggregation or pools before a nonlinearity, over so many positions
            that covariances of their pairs take more than 256 MiB for one example, or 8 GiB for a
            sample that the method looks at. The message has the bytes.

    Raises:
        ValueError, NotImplementedError: the error of NT's `kernel_fn` for this model and input
            shape, with the name of the layer; a layer or option without a feature rule; bad inputs,
            such as those whose exact variances overflow. All are raised before any long work.
        TypeError: `model`, `method`, `preprocess`, `x` or `key` is of the wrong kind.

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
    constant = checked_constant(mask_constant, model, method)
    examples = x = checked_inputs(x, values=constant is None)
    if preprocess is not None:
        warn_of_lost_variation(x)
        x = checked_inputs(preprocessed(preprocess, x), values=constant is None)
    plain = without_marks(x, constant)
    if preprocess is None:
        warn_of_lost_variation(plain)
    abstract = isinstance(x, jax.ShapeDtypeStruct)
    shape, dtype = tuple(x.shape), jax.dtypes.canonicalize_dtype(x.dtype)

    check_with_nt(model, shape, dtype, get, kwargs, constant)

    given, dtype = dtype, promoted(dtype, jnp.float32)
    if not kwargs:
        check_scale(model, plain, get, str(dtype), stacklevel=2)
    rule = rule_under(model, method)
    [own] = method.split([rule.nonlinearities])  # a schedule has one width for each
    offsets = rule.needs(None, shape, method=own, **kwargs)
    looks = rule.looks_at_data(own) and not abstract
    numbers = rule.covariances(None, shape, method=own, **kwargs)
    warn_of_pairs(numbers, shape, dtype, len(x) if looks else 0, stacklevel=2)
    entering = functools.partial(enter, ntk="ntk" in get, offsets=offsets, mask_constant=constant)
    if looks:
        with _of_numbers(x):  # numbers even while a map is made under jit
            features = _entered(on_device(x, dtype), "ntk" in get, offsets, constant, str(given))
    else:
        features = eqx.filter_eval_shape(entering, jax.ShapeDtypeStruct(shape, dtype))
    with _of_numbers((features, rule, key, kwargs)):
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
        constant,
    )


def _of_numbers(parts: Any) -> contextlib.AbstractContextManager:
    """Where another function is traced: what depends on numbers alone is computed, not traced, as
    decompositions on the host need.
    """
    if is_tracing() and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(parts)):
        return jax.ensure_compile_time_eval()
    return contextlib.nullcontext()
