"""Variances after patches are taken."""

from typing import Any

import jax

from .._typing import Offsets
from ..numerics._stored import stored
from ._patch_operator import PatchOperator
from ._position_map import map_numbers, map_offsets, through_map
from ._sources import operator_sources
from ._variance_windows import through_convolution, window_offsets
from ._windows import Windows


def patch_offsets(operator: PatchOperator | None, space: tuple[int, ...], out: Offsets) -> Offsets:
    """Input offsets that output offsets `out` of patches need."""
    if operator is not None:
        operator.output_space(space)  # raises for a space that does not fit
    if operator is None or out is None:
        return out
    if isinstance(operator, Windows):
        return window_offsets(operator, space, out, pool=False)
    return map_offsets(operator_sources(operator, space), out)


def patch_numbers(
    operator: PatchOperator | None, space: tuple[int, ...], out: Offsets
) -> tuple[int, int]:
    """About how many numbers `through_patches` holds at once beside the bands: for each example,
    and for all of them together.
    """
    if operator is None or isinstance(operator, Windows) or out is None:
        return 0, 0
    return map_numbers(operator_sources(operator, space), out)


def through_patches(operator: PatchOperator | None, variances: Any, out) -> Any:
    """Covariances after patches: sums over equal entries of two patches, stored."""
    if operator is None:
        after = variances.select(out)
    elif isinstance(operator, Windows):
        after = through_convolution(variances, operator, out)
        if operator.size > 1:  # sums over windows, which are stored as they are
            return after
    else:
        after = through_map(variances, operator_sources(operator, variances.space), out)
    return jax.tree.map(stored, after)
