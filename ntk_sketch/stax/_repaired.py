"""Layers of NT that do not do what they say, repaired."""

import functools
from collections.abc import Callable

from .._nt import nt_stax


def in_order(kernel_fn: Callable) -> Callable:
    """`kernel_fn` of a layer with the axes put in order before: behind an odd number of
    convolutions NT stores them in reverse, which some of its layers do not look at.
    """

    @functools.wraps(kernel_fn)
    def kernel_fn_in_order(x1, *more, **options):
        if getattr(x1, "is_reversed", False) and not x1.diagonal_spatial:
            x1 = x1.reverse()
        return kernel_fn(x1, *more, **options)

    return kernel_fn_in_order


@functools.wraps(nt_stax.ConvLocal)
def ConvLocal(*args, **kwargs):
    """NT's layer. Its kernel would take the filter's axes for those of a reversed kernel."""
    init_fn, apply_fn, kernel_fn = nt_stax.ConvLocal(*args, **kwargs)
    return init_fn, apply_fn, in_order(kernel_fn)


@functools.wraps(nt_stax.DotGeneral)
def DotGeneral(*, lhs=None, rhs=None, **kwargs):
    """NT's layer. Without a factor it is the identity, which NT asks of `jax.numpy.array(None)`."""
    return nt_stax.DotGeneral(lhs=lhs, rhs=1.0 if lhs is None and rhs is None else rhs, **kwargs)
