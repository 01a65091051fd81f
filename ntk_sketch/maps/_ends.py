"""What enters the rules of a network, and what leaves them."""

import equinox as eqx
import jax

from .._typing import Array
from ..features._hidden import HiddenFeatures, of_examples
from ..features._variances import input_variances
from ..numerics._precision import promoted
from ._views import Views


def enter(x: Array, ntk: bool, offsets) -> HiddenFeatures:
    """Features of the inputs themselves: `K(x_s, x'_t) = <x_s, x'_t> / c`, `Θ = 0`."""
    return HiddenFeatures(
        nngp=(x * x.shape[-1] ** -0.5,),
        ntk=() if ntk else None,
        variances=None if offsets is None else input_variances(x, offsets, ntk),
        channels=x.shape[-1],
    )


def output(
    transform, views: Views, x: Array, offsets, get: tuple[str, ...], dtype: str, kwargs: dict
):
    """Features at the output, between rules, in the map's dtype or one of more digits."""
    x = x.astype(promoted(x.dtype, dtype))
    views, transform = jax.tree.map(
        lambda leaf: leaf.astype(x.dtype) if eqx.is_inexact_array(leaf) else leaf,
        (views, transform),
    )
    x = views(x)
    features = enter(x, "ntk" in get, offsets)
    features = transform(features, **kwargs)
    if views.transforms:  # before the last root
        features = of_examples(views.mean, features)
    return features.concrete()
