"""`Features`: what a feature map returns."""

import equinox as eqx

from .._typing import Array


class Features(eqx.Module):
    """Features of a batch: `nngp @ nngp.T` and `ntk @ ntk.T` approximate the two kernels.

    Attributes:
        nngp: of the NNGP kernel (n, *space, p), (n, p) after a Flatten or a global pool; `None` if
            the map was made without it.
        ntk: likewise of the NTK; its part that the last Dense adds is included.
    """

    nngp: Array | None
    ntk: Array | None
