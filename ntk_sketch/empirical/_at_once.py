"""Work in parts, as large as a memory budget allows."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from .._typing import Array
from ..numerics._memory import array_bytes


def pieces_within(memory_bytes: int, bytes_of_one: int, n: int) -> int:
    """How many of n pieces fit into memory, at least one."""
    return int(np.clip(memory_bytes / bytes_of_one, 1, n))


def mapped(f: Callable[[Any], Any], x: Array, at_once: int) -> Any:
    """`f` of every entry of the first axis, `at_once` at a time."""
    if at_once >= len(x):
        return jax.vmap(f)(x)
    return lax.map(f, x, batch_size=None if at_once == 1 else at_once)


def shapes(tree: Any, skip: int = 0) -> Any:
    """The shapes and dtypes of arrays, without their first `skip` axes."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[skip:], a.dtype), tree)


def tree_bytes(tree: Any) -> int:
    return sum(map(array_bytes, jax.tree.leaves(tree)))
