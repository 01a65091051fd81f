"""`Features`: what a feature map returns."""

import equinox as eqx

from .._typing import Array


class Features(eqx.Module):
    """Features of a batch: `nngp @ nngp.T` and `ntk @ ntk.T` approximate the two kernels.

    Returned by a call of a feature map. Use `ntk` for networks trained by gradient descent, `nngp`
    for Gaussian processes of networks at initialisation.

    Attributes:
        nngp: features of the NNGP kernel (n, *space, p), or (n, p) after a Flatten or a global
            pool; `None` if the map was made without it.
        ntk: features of the NTK, likewise. They include the NNGP part that the last Dense adds.

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
