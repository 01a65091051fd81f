"""`Features`: what a feature map returns."""

import equinox as eqx

from .._typing import Array


class Features(eqx.Module):
    """Features of a batch: `nngp @ nngp.T` and `ntk @ ntk.T` approximate the two kernels.

    Attributes:
        nngp: of the NNGP kernel (n, *space, p), (n, p) after a Flatten or a global pool; `None` if
            the map was made without it.
        ntk: likewise of the NTK; its part that the last Dense adds is included.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
        >>> x = np.eye(3, dtype="float32")
        >>> method = ns.RandomFeatures(8)
        >>> z = ns.feature_map(model, x, method, key=jax.random.key(0), get="nngp")(x)
        >>> z.nngp.shape, z.ntk
        ((3, 8), None)
    """

    nngp: Array | None
    ntk: Array | None
