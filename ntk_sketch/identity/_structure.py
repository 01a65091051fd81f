"""Caching of results that depend only on the structure of a pytree."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp
from jax.core import Tracer

#: Settings of JAX that change dtypes, devices or precision of traced functions.
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_device")


def once_per_structure(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Caches `fn(tree, *args)` for an `fn` that reads no values of the arrays in `tree`.

    `fn` is called with `jax.ShapeDtypeStruct`s in place of arrays. The result is used for every
    tree with the same structure, shapes and dtypes, such as a map of the same architecture with
    other weights, under the same settings of JAX.

    Args:
        fn: a function whose other arguments are hashable, and whose result may be used from several
            threads.
    """

    @functools.lru_cache(maxsize=64)
    def cached(leaves, structure, settings, *args):
        return fn(jax.tree.unflatten(structure, leaves), *args)

    @functools.wraps(fn)
    def wrapper(tree, *args):
        leaves, structure = jax.tree.flatten(tree)
        settings = tuple(getattr(jax.config, name) for name in _SETTINGS)
        return cached(tuple(map(_abstract, leaves)), structure, settings, *args)

    return wrapper


def is_abstract_array(leaf) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _abstract(leaf):
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return leaf
    placed = isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not isinstance(leaf, Tracer)
    sharding, dtype = leaf.sharding if placed else None, leaf.dtype
    if not jnp.issubdtype(dtype, jax.dtypes.extended):  # as keys are
        dtype = jax.dtypes.canonicalize_dtype(dtype)  # also a NumPy array's
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)
