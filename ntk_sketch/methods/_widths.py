"""A warning if a map has fewer features than were asked for."""

import warnings
from typing import Any

import jax
from jax import numpy as jnp

from ..activations._dual_kernels import DualKernels
from ..numerics._precision import USE_FLOAT64
from ._expansion import LandmarkExpansion
from ._products import ProductLandmarks

#: There is a warning if a kernel has fewer than this share of the features asked for.
_SHARE = 0.5


def warn_of_widths(transform: Any, stacklevel: int) -> None:
    """One warning for all nonlinearities of a fitted map whose width was not reached.

    It is always given if the sample has fewer positions than the width. If features were dropped
    because of rounding, it is given only if fewer than half are left: a smooth kernel loses little
    without them.
    """
    kinds = LandmarkExpansion, ProductLandmarks
    nodes = jax.tree.leaves(transform, is_leaf=lambda node: isinstance(node, kinds))
    nodes = [node for node in nodes if isinstance(node, kinds)]
    found = []
    for place, node in enumerate(nodes, 1):
        reason = _reason(node)
        if reason:
            found.append(f"{node.name}, the {_ordinal(place)} of {len(nodes)}: {reason}")
    if found:
        warnings.warn(
            "Fewer features than the width asks for:\n  "
            + "\n  ".join(found)
            + "\nFor more positions give feature_map a larger sample. For less rounding standardise"
            f" the examples, or {USE_FLOAT64}. Or ask for less there"
            + (", by a schedule width=(...)." if len(nodes) > 1 else "."),
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def _reason(node: LandmarkExpansion | ProductLandmarks) -> str:
    asked, positions = node.asked, len(node.q)
    if asked is None:
        return ""
    extra = node.width - positions
    if positions + extra < asked:
        return f"width {asked} asked for, {positions} used, all usable positions of the sample"
    kernels = (("NNGP", node.roots), ("NTK", node.roots_ntk))
    counts = {name: roots.landmarks.shape[1] + extra for name, roots in kernels if roots}
    dtype = node.q.dtype
    if dtype == "float64" or min(counts.values()) >= _SHARE * asked:
        return ""
    if isinstance(node, LandmarkExpansion) and not _has_derivative(node.dual):
        counts.pop("NTK", None)
        if counts["NNGP"] >= _SHARE * asked:
            return ""
    kept = " and ".join(f"{count} {name}" for name, count in counts.items())
    return f"width {asked} asked for, {kept} features used, the others are rounding in {dtype}"


def _has_derivative(dual: DualKernels) -> bool:
    """Whether `k_σ'` is not 0. It is 0 everywhere for `Sign`."""
    one = jnp.ones((), jnp.float32)
    return bool(dual(one, one, one)[1] != 0)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 10 <= number % 100 <= 20 else ending}"
