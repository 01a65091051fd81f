"""Projections of patches on the principal directions of a sample."""

import functools
import math
from typing import Any

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, PerKernel, PRNGKey
from ..features._hidden import HiddenFeatures
from ..features._rooted import Rooted
from ..features._variances import Variances
from ..numerics._compiling import fitting_jit
from ..numerics._host_random import generator
from ..numerics._linalg import eigh, in_float64
from ..numerics._precision import Precision, float64, matmul, on_device
from ._folding import folded
from ._landmarks import check_values, values_of
from ._products import has_ntk

#: Directions come from so many positions of the sample, or twice the width if that is more.
_POSITIONS = 2048

#: So many coordinates of the vectors are converted to float64 at a time.
_CHUNK = 4096


class PrincipalProjection(eqx.Module):
    """`φ' = Wᵀφ` and `ψ' = Sᵀψ`, projections on the principal directions of a sample.

    The columns of W and S are orthonormal. Of all projections on as many directions this one has
    the least error of the kernels on the sample.

    Attributes:
        w: W (d, m), with pending roots of the features multiplied in.
        s: S (d_ψ, m') likewise, or `None`.
    """

    w: Array
    s: Array | None
    precision: Precision = eqx.field(static=True)

    def __call__(
        self, branches: list[HiddenFeatures], exact: Variances | None
    ) -> tuple[Array | Rooted, Array | Rooted | None]:
        """Projects the one branch. Features are not rescaled to their exact norms."""
        del exact
        (features,) = branches
        if self.precision == "full":
            features = features.raw(self.w.shape[1], None if self.s is None else self.s.shape[1])
        return features.project(self.w, self.s, self.precision)


def principal_projection(
    name: str, features: HiddenFeatures, width: int, precision: Precision, key: PRNGKey
) -> PrincipalProjection:
    """Fits a projection on at most `width` directions to a sample.

    The pending layer is applied. Directions come from the vectors of N positions whose variance is
    not 0: up to 2,048, or twice the width if that is more.

    Cost: the N vectors of dimension d are gathered; their inner products take `2 N² d` FLOPs.
    """
    check_values("Nystroem", name, features, key)
    rng, fixed = generator(key), values_of(features)
    shape = (features.nngp[0].shape[0], *features.space)
    usable = np.arange(math.prod(shape))
    if features.variances is not None:  # those of masked positions are 0
        q = np.asarray(fixed.variances.diagonal(fixed.variances.same)).reshape(-1)
        usable = np.flatnonzero(q > 0) if (q > 0).any() else usable
    count = min(len(usable), max(_POSITIONS, 2 * width))
    index = np.unravel_index(rng.choice(usable, count, replace=False), shape)
    z, z_ntk = _vectors_at(fixed, index)
    w = _directions(z, width)
    s = None if z_ntk is None else _directions(z_ntk, width)
    own = features if precision == "full" else features.formed()
    return PrincipalProjection(*folded(own, w, s), precision)


@functools.partial(fitting_jit, level=0)
def _vectors_at(features: HiddenFeatures, index) -> PerKernel:
    ntk = features.ntk_vectors().at(index) if has_ntk(features) else None
    return PerKernel(features.nngp_vectors().at(index), ntk)


def _directions(z: Float[Array, "n d"], width: int) -> Float[Array, "d m"]:
    """Eigenvectors of the largest eigenvalues of `zᵀz`, at most `width`.

    They are computed from `zzᵀ` (n, n) in float64. Eigenvalues below the rounding of `z` are left
    out. If all vectors are 0, the result is one column of zeros.
    """
    largest = jnp.max(jnp.abs(z))
    z = z / jnp.where(largest > 0, largest, 1)
    gram: Any = 0.0
    for start in range(0, z.shape[1], _CHUNK):
        part = in_float64(z[:, start : start + _CHUNK])
        with float64():
            gram = gram + part @ part.T
    values, vectors = eigh(gram, overwrite=True)
    rounding = max(float(jnp.finfo(z.dtype).eps), len(z) * float(np.finfo(np.float64).eps))
    first = int(np.searchsorted(values, rounding * max(values[-1], 0.0), side="right"))
    first = min(max(first, len(z) - width), len(z) - 1)
    kept = values[first:]
    with float64():
        columns = vectors[:, first:] / np.sqrt(np.where(kept > 0, kept, 1.0))
    return matmul(z.T, on_device(columns, z.dtype), "full")
