"""Projections of patches on their principal directions in a sample."""

import functools

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, PRNGKey
from ..features._hidden import HiddenFeatures
from ..features._rooted import Rooted
from ..features._variances import Variances
from ..numerics._compiling import fitting_jit
from ..numerics._host_random import generator
from ..numerics._linalg import eigh, in_float64
from ..numerics._precision import Precision, float64, matmul, on_device
from ._folding import folded
from ._landmarks import check_values, values_of

#: Positions of the sample that directions are found from, or twice the width if that is more.
_POSITIONS = 2048

#: In place of eigenvalues of vectors that are all 0.
_TINY = 1e-30


class PrincipalProjection(eqx.Module):
    """`φ' = Wᵀφ`, `ψ' = Sᵀψ` with orthonormal columns that span what a sample has most of: of all
    projections on so many directions that with the least error of the kernels there.

    Attributes:
        w: of φ (d, m), with roots of the features multiplied in.
        s: of ψ (d_ψ, m'), or `None`.
    """

    w: Array
    s: Array | None
    precision: Precision = eqx.field(static=True)

    def __call__(
        self, branches: list[HiddenFeatures], exact: Variances | None
    ) -> tuple[Array | Rooted, Array | Rooted | None]:
        """Of the one branch: what the directions miss is left to the exact variances."""
        del exact
        (features,) = branches
        if self.precision == "full":
            features = features.raw(self.w.shape[1], None if self.s is None else self.s.shape[1])
        return features.project(self.w, self.s, self.precision)


def principal_projection(
    name: str, features: HiddenFeatures, width: int, precision: Precision, key: PRNGKey
) -> PrincipalProjection:
    """Of a sample's vectors, the pending layer carried out, on at most `width` directions."""
    check_values("Nystroem", name, features, key)
    rng, fixed = generator(key), values_of(features)
    shape = (features.nngp[0].shape[0], *features.space)
    count = int(np.prod(shape))
    chosen = rng.choice(count, min(count, max(_POSITIONS, 2 * width)), replace=False)
    z, z_ntk = _vectors_at(fixed, np.unravel_index(chosen, shape))
    w = _directions(z, width)
    s = None if z_ntk is None else _directions(z_ntk, width)
    own = features if precision == "full" else features.formed()
    return PrincipalProjection(*folded(own, w, s), precision)


@functools.partial(fitting_jit, level=0)
def _vectors_at(features: HiddenFeatures, index):
    ntk = None if features.ntk is None else features.ntk_vectors().at(index)
    return features.nngp_vectors().at(index), ntk


def _directions(z: Float[Array, "n d"], width: int) -> Float[Array, "d m"]:
    """Those of the largest eigenvalues of `zᵀz`, by way of `zzᵀ`, whose size is that of the sample;
    none that is rounding.
    """
    values, vectors = eigh(in_float64(matmul(z, z.T, "full")), overwrite=True)
    least = len(z) * float(jnp.finfo(z.dtype).eps) * max(values[-1], 0.0)
    first = max(int(np.searchsorted(values, least, side="right")), len(z) - width)
    first = min(first, len(z) - 1)
    with float64():
        columns = vectors[:, first:] / np.sqrt(np.maximum(values[first:], max(least, _TINY)))
    return matmul(z.T, on_device(columns, z.dtype), "full")
