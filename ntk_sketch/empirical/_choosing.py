"""The choice of forward or reverse mode by FLOPs."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import numpy as jnp

from .._arguments import checked_choice
from .._typing import PRNGKey
from ..numerics._cost import product_cost
from ._forward import ForwardProducts
from ._network import Network
from ._reverse import SketchedGradients

Way = ForwardProducts | SketchedGradients

WAYS = {way.mode: way for way in (ForwardProducts, SketchedGradients)}

#: A budget for one product or gradient at a time; the total cost does not depend on it.
_NO_MEMORY = 0


def drawn_way(
    mode: str | None, n_params: int, width: int, network: Network, params: Any, x: Any, key: PRNGKey
) -> Way:
    """Draws the sketch of the mode that was asked for, or of the one with fewer FLOPs."""
    if mode is not None:
        checked_choice(mode, "mode", tuple(WAYS))
        way = WAYS[mode].drawn(n_params, width, key=key)
        _flops(way, network, params, x)  # raises if JAX cannot differentiate in this mode
        return way
    return _cheapest([w.drawn(n_params, width, key=key) for w in WAYS.values()], network, params, x)


def _cheapest(ways: Sequence[Way], network: Network, params: Any, x: Any) -> Way:
    """The mode with fewest FLOPs among those that can differentiate the network."""
    costs, refusals = {}, []
    for way in ways:
        try:
            costs[way.mode] = _flops(way, network, params, x)
        except (TypeError, ValueError, NotImplementedError) as error:
            refusals.append(error)
    if not costs:
        raise refusals[-1]
    return min((way for way in ways if way.mode in costs), key=lambda way: costs[way.mode])


def _flops(way: Way, network: Network, params: Any, x: jax.ShapeDtypeStruct) -> int:
    """FLOPs of the features of one example."""
    one = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)

    @jax.jit  # traced once for both
    def features(params: Any, x: Any) -> Any:
        return way(network, params, x, jnp.float32, _NO_MEMORY)

    try:
        if way.mode == "forward":  # functions with a custom_vjp rule raise only when lowered
            features.lower(params, one)
        return product_cost(features, params, one).flops
    except Exception as error:
        error.add_note(
            f"apply_fn was differentiated in {way.mode} mode. Functions with a custom_vjp rule"
            " have no forward mode, loops of unknown length no reverse mode."
        )
        raise
