"""The approximate kernel of a feature map, in NT's calling convention."""

import collections
import functools
from collections.abc import Sequence
from typing import Any

from jax import numpy as jnp

from .._typing import Inputs
from ._checks import checked_get


def kernel_of_features(
    feature_map: Any,
    x1: Inputs,
    x2: Inputs | None,
    get: str | Sequence[str] | None,
    exact_diagonal: bool,
    **kwargs,
):
    """See `FeatureMap.kernel_fn`."""
    names = feature_map.get if get is None else checked_get(get)
    missing = [name for name in names if name not in feature_map.get]
    if missing:
        raise ValueError(
            f"get={get!r}: this feature map has {feature_map.get}; make it with get={names!r}."
        )
    first, second = _sides(kwargs, x2 is None)
    z1 = feature_map(x1, **first)
    z2 = z1 if x2 is None else feature_map(x2, **second)
    exact = None
    if exact_diagonal and x2 is None:
        exact = feature_map.diagonals(x1, **first)
    grams = []
    for name in names:
        a, b = getattr(z1, name), getattr(z2, name)
        if a.ndim != 2:
            raise ValueError(
                f"the model's output still has positions (features of shape {a.shape}); end it"
                " with Flatten or a global pool to compare examples."
            )
        gram = jnp.matmul(a, b.T, precision="highest")
        if exact is not None:
            gram = jnp.fill_diagonal(gram, getattr(exact, name), inplace=False)
        grams.append(gram)
    return grams[0] if isinstance(get, str) else named(names)(*grams)


def _sides(kwargs: dict, same: bool) -> tuple[dict, dict]:
    """Call-time arguments of either batch. Graphs come as a pair, as in NT; if both batches are the
    `same`, one `pattern` is enough.
    """
    pattern = kwargs.get("pattern")
    if pattern is None:
        return kwargs, kwargs
    if not isinstance(pattern, tuple) and not same:
        raise TypeError(
            "pattern: kernel_fn of two batches takes the graphs of both, pattern=(pattern1,"
            f" pattern2); got one {type(pattern).__name__}."
        )
    first, second = pattern if isinstance(pattern, tuple) else (pattern, pattern)
    return kwargs | {"pattern": first}, kwargs | {"pattern": second}


@functools.cache
def named(names: tuple[str, ...]):
    return collections.namedtuple("FeatureKernel", names)
