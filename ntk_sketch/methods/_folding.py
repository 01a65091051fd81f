"""Multiplies pending roots into the filters of the next projection, once, when a map is made."""

from typing import Any

import jax

from .._typing import Array, PerKernel
from ..features._hidden import HiddenFeatures
from ..features._rooted import Rooted
from ..numerics._linalg import in_float64, namespace
from ..numerics._precision import float64
from ._roots import with_derivative


def folded(features: HiddenFeatures, w: Array, s: Array | None) -> PerKernel:
    """Filters for `features.raw`, from columns `w` (d, m) for φ and `s` (d_ψ, m') for ψ.

    They are those of `features.fold`, computed in float64.
    """
    if not features.rooted:
        return PerKernel(w, s)

    def accurate(block):
        return Rooted(block.values, in_float64(block.root)) if _is_rooted(block) else block

    blocks = jax.tree.map(accurate, (features.nngp, features.ntk), is_leaf=_is_rooted)
    columns = in_float64(w), None if s is None else in_float64(s)
    with float64():
        numpy = namespace(columns[0])
        values = features.replace(nngp=blocks[0], ntk=blocks[1]).fold(*columns, numpy)
    arrays = jax.tree.leaves((w, s, features.nngp, features.ntk))

    def differentiable(at: int) -> Any:
        return with_derivative(
            values[at], lambda *_: features.fold(w, s)[at], *arrays, dtype=w.dtype
        )

    return PerKernel(differentiable(0), None if values.ntk is None else differentiable(1))


def _is_rooted(block) -> bool:
    return isinstance(block, Rooted)
