"""Checks of the arguments of `empirical_feature_map`, made before any long work."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from ._network import Network

_SPLIT = (
    " equinox.partition(model, equinox.is_inexact_array), flax.nnx.split(model, flax.nnx.Param,"
    " ...) and the 'params' collection of flax.linen leave just those to differentiate"
)


def check_apply_fn(apply_fn: Any) -> None:
    """Checks for a hashable function that holds no arrays."""
    what = "a function apply_fn(params, x, **kwargs) of a batch x (n, ...) to outputs (n, ...)"
    if isinstance(apply_fn, tuple) and len(apply_fn) == 3:
        raise TypeError(f"apply_fn is a network (init_fn, apply_fn, kernel_fn); needed: {what}.")
    if not callable(apply_fn):
        raise TypeError(f"apply_fn is a {type(apply_fn).__name__}; needed: {what}.")
    leaves = jax.tree.leaves(apply_fn)
    if any(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
        raise TypeError(
            f"apply_fn is a {type(apply_fn).__name__} that holds arrays; needed: {what}. Those to"
            " differentiate belong in params: params, static = equinox.partition(model,"
            " equinox.is_inexact_array), and apply_fn = lambda params, x: jax.vmap("
            "equinox.combine(params, static))(x). Others belong in keyword arguments."
        )
    try:
        hash(apply_fn)
    except TypeError as error:
        raise TypeError(
            f"apply_fn is a {type(apply_fn).__name__} without a hash, by which compiled programs"
            " are found again. Wrap it: lambda params, x: apply_fn(params, x)."
        ) from error


def checked_params(params: Any) -> Any:
    """The parameters as JAX arrays, checked to be real, floating and finite."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise ValueError(f"params has no arrays: {params!r}. The NTK of no parameters is 0.")
    for path, leaf in leaves:
        name = "params" + jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(
                f"{name} is {leaf!r} of type {type(leaf).__name__}; needed: an array. Parameters"
                " are what is differentiated: keep settings out of params, in keyword arguments or"
                f" in apply_fn;{_SPLIT}."
            )
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"{name} has dtype {leaf.dtype}; derivatives need real floating point parameters."
                " Keep counters, indices and keys out of params, in keyword arguments or in"
                f" apply_fn;{_SPLIT}."
            )
        if not isinstance(leaf, Tracer) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{name} has entries that are NaN or infinite.")
    return jax.tree_util.tree_unflatten(tree, [jnp.asarray(leaf) for _, leaf in leaves])


def checked_outputs(network: Network, params: Any, x: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    """The shape of the outputs of one example, checked."""
    one = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    try:
        outputs = jax.eval_shape(_applied, network, params, one)
    except Exception as error:
        error.add_note(
            "apply_fn was called as apply_fn(params, x), in this order, on one example, x of shape"
            f" {one.shape} and dtype {one.dtype}, and {_words(network.kwargs)}. Layers that draw"
            " random numbers need their key among these, such as empirical_feature_map(...,"
            " rng=key), or their test mode; it is then the same for every example."
        )
        raise
    if not isinstance(outputs, jax.ShapeDtypeStruct):
        raise TypeError(
            f"apply_fn returns a {type(outputs).__name__}; needed: one array of outputs (n, ...)."
            " Features of several outputs would be those of each alone, as in Neural Tangents: pick"
            " one, lambda params, x: apply_fn(params, x)[0], or join them along an axis."
        )
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise TypeError(f"apply_fn returns {outputs.dtype}; needed: real floating point outputs.")
    if len(outputs.shape) < 2 or outputs.shape[0] != 1 or 0 in outputs.shape:
        raise ValueError(
            f"apply_fn makes outputs of shape {outputs.shape} of one example (1, ...); needed:"
            " (1, ..., outputs), the first axis being that of examples. A function of one example"
            " alone is lambda params, x: jax.vmap(apply_one, (None, 0))(params, x); a number for"
            " each is y[:, None]."
        )
    return outputs.shape[1:]


def _applied(network: Network, params: Any, x: Any) -> Any:
    return network.apply_fn(params, x, **network.kwargs)


def _words(kwargs: dict[str, Any]) -> str:
    names = ", ".join(map(repr, kwargs))
    return f"keyword arguments {names}" if names else "no keyword arguments"


def check_kwargs(network: Network) -> None:
    """Checks that keyword arguments are arrays or hashable, as parts of compiled programs."""
    try:
        hash((network._others, network._tree))
    except TypeError as error:
        raise TypeError(
            "keyword arguments of apply_fn are arrays, or have a hash (booleans, numbers, strings,"
            f" functions) as a part of compiled programs: {error}."
        ) from error
