"""Approximate and exact kernels of finite networks, in NT's calling convention."""

from collections.abc import Callable, Sequence
from typing import Any

from jax import numpy as jnp

from .._nt import nt
from .._typing import Array, Inputs
from ..maps._checks import checked_get
from ..maps._kernel import named


def kernel_of_features(
    feature_map: Any, x1: Inputs, x2: Inputs | None, get: str | Sequence[str] | None
):
    """See `EmpiricalFeatureMap.kernel_fn`."""
    names = feature_map.get if get is None else checked_get(get)
    missing = [name for name in names if name not in feature_map.get]
    if missing:
        raise ValueError(
            f"get={get!r}: this feature map has {feature_map.get}; make it with get={names!r}."
        )
    z1 = feature_map(x1)
    z2 = z1 if x2 is None else feature_map(x2)
    kernels = [feature_map.axes.kernel(getattr(z1, name), getattr(z2, name)) for name in names]
    return kernels[0] if isinstance(get, str) else named(names)(*kernels)


def exact_kernel_fn(feature_map: Any) -> Callable:
    """See `EmpiricalFeatureMap.exact_kernel_fn`."""
    axes, params = feature_map.axes, feature_map.params
    exact: Callable = nt.empirical_kernel_fn(
        feature_map.network.batch, axes.trace, axes.diagonal, vmap_axes=0
    )

    def kernel_fn(
        x1: Inputs, x2: Inputs | None = None, get: str | Sequence[str] | None = None
    ) -> Any:
        first = jnp.asarray(x1)
        second = None if x2 is None else jnp.asarray(x2)
        return exact(first, second, feature_map.get if get is None else get, params)

    return kernel_fn


def squared_norm(*gradient: Array) -> Array:
    return sum((jnp.sum(part**2) for part in gradient[1:]), jnp.sum(gradient[0] ** 2))


def mean_over_outputs(values: Array) -> Array:
    """The mean of `values` (n, *out) over outputs: (n,)."""
    return jnp.mean(values.reshape(len(values), -1), axis=1)
