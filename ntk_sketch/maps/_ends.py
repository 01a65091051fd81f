"""The input and the output of a network's rules."""

from typing import Any

import equinox as eqx
import jax

from .._typing import Array
from ..features._hidden import HiddenFeatures, of_examples
from ..features._variances import input_variances
from ..numerics._precision import canonical, promoted
from ._masks import split
from ._views import Views


def enter(
    x: Array, ntk: bool, offsets, mask_constant: str | None = None, dtype: Any = None
) -> HiddenFeatures:
    """Features of the inputs: `K(x_s, x'_t) = <x_s, x'_t> / c` with c channels, and `Θ = 0`.

    Args:
        dtype: that in which the user gave the inputs, and in which they hold `mask_constant`;
            `None`: that of `x`.
    """
    x, mask = split(x, mask_constant, x.dtype if dtype is None else dtype)
    return HiddenFeatures(
        nngp=(x * x.shape[-1] ** -0.5,),
        ntk=() if ntk else None,
        variances=None if offsets is None else input_variances(x, offsets, ntk),
        channels=x.shape[-1],
        mask=mask,
    )


def output(
    transform,
    views: Views,
    x: Array,
    offsets,
    get: tuple[str, ...],
    dtype: str,
    kwargs: dict,
    mask_constant: str | None = None,
):
    """Hidden features at the network's output, in the wider of the map's and the inputs' dtype, or
    what JAX has of it."""
    given = x.dtype
    x = x.astype(canonical(promoted(x.dtype, dtype)))
    views, transform = jax.tree.map(
        lambda leaf: leaf.astype(x.dtype) if eqx.is_inexact_array(leaf) else leaf,
        (views, transform),
    )
    x = views(x)
    features = enter(x, "ntk" in get, offsets, mask_constant, given)
    features = transform(features, **kwargs)
    if views.transforms:  # averaged before the last root, which then runs once an example
        features = features if mask_constant is None else features.applied().replace(mask=None)
        features = of_examples(views.mean, features)
    return features.concrete()
