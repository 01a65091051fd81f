"""What follows from the structure of a pytree alone is computed once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer

#: Settings of JAX that decide about dtypes, devices and precision of what is traced.
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_device")


def once_per_structure(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn(tree, *args)` for an `fn` that reads no number of the arrays in `tree`.

    It is called with `jax.ShapeDtypeStruct`s in place of the arrays. The result is kept and serves
    every tree of the same structure, shapes and dtypes, such as a copy or a map of the same
    architecture with other numbers, under the same settings of JAX.

    Args:
        fn: its other arguments are hashable. What it returns may be used from several threads.
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
    sharding = leaf.sharding if placed else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
