"""Calibration: landmark features are fitted to kernel values at other positions."""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from .._typing import Inputs, PerKernel
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures
from ..features._rooted import formed
from ..numerics._compiling import fitting_jit
from ..numerics._linalg import eigh, in_float64, namespace
from ..numerics._precision import float64, matmul, on_device
from ._expansion import LandmarkExpansion
from ._roots import with_derivative

#: Up to 2,048 positions on each side of the fit, or 4 for each feature if that is more.
_POSITIONS, _POSITIONS_PER_FEATURE = 2048, 4

#: Regularisation of the fit, relative to the mean eigenvalue of the features' Gram matrix. Without
#: residual features it only guards against rounding. With them it must be large: their noise
#: averages out over positions and examples, and a less regularised fit would suppress signal and
#: noise alike. Before `Flatten`, where residual features are the default, 3 is best among 1e-4,
#: 1e-2, 0.3, 3 and 30: on digits an NTK error of 0.022 against 0.052, 0.053, 0.038 and 0.026 (60
#: images, width 32, mean of 3 keys; a smaller case is in `tests/methods/test_before_flatten.py`).
#: Before a global pool less would do: 0.012 against 0.0065 at 1e-4.
_RIDGE, _RIDGE_RANDOM = 1e-4, 3.0


def calibrated(
    expansion: LandmarkExpansion,
    dual: DualKernels,
    features: HiddenFeatures,
    candidates: np.ndarray,
    rng: np.random.Generator,
) -> LandmarkExpansion:
    """The expansion with its features transformed to fit the kernel in the least-squares sense.

    Nyström features reproduce the kernel at the landmarks and underestimate it elsewhere. Let `A`
    and `B` be the features of two other sets of positions, and `E` the kernel between them. The
    transformed features are `z R` with `R² = I + D` and

        A (I + D) Bᵀ ≈ E.

    `D` is the symmetric part of the minimiser over all matrices, `A⁺ (E - A Bᵀ) B⁺ᵀ`. The
    pseudo-inverses are regularised, which shrinks `D` towards 0. (The minimiser over symmetric
    matrices solves a Sylvester equation; both agree if `AᵀA = BᵀB`, as for many positions.)
    Negative eigenvalues of `I + D` become 0. The matrices of the expansion absorb `R`, so that the
    features cost the same.

    `A` and `B` come from two random halves of the examples, so that the kernel's diagonal has no
    part in the fit. `candidates` holds equal positions once, so that copies of an example have none
    either.

    Returns the expansion unchanged if either half has fewer than four `candidates` (flat indices of
    positions) for each feature.

    Source: the modified Nyström method (Wang and Zhang, *Improving CUR matrix decomposition and the
    Nyström approximation via adaptive sampling*, JMLR 2013) on a sample of the kernel's entries
    (Wang, Zhang and Zhang, *Towards more efficient SPSD matrix approximation and CUR matrix
    decomposition*, JMLR 2016).
    """
    space = features.nngp_vectors().space
    examples = features.nngp[0].shape[0]
    width = expansion.width
    wanted = max(_POSITIONS, _POSITIONS_PER_FEATURE * width)
    owner = candidates // max(math.prod(space), 1)
    owners = rng.permutation(np.unique(owner))
    first = np.isin(owner, owners[: len(owners) // 2])
    sides = [candidates[first], candidates[~first]]
    sides = [rng.permutation(side)[:wanted] for side in sides]
    count = min(map(len, sides))
    if count < _POSITIONS_PER_FEATURE * width:
        return expansion
    count = min(count // width * width, wanted)  # few shapes to compile
    flat = np.concatenate([side[:count] for side in sides])
    index = np.unravel_index(flat, (examples, *space))
    pairs = _features_and_kernels(expansion, dual, features, index)
    ridge = _RIDGE if expansion.roots.projection is None else _RIDGE_RANDOM
    roots = expansion.roots.then(_transform(*pairs.nngp, ridge=ridge))
    roots_ntk = expansion.roots_ntk
    if roots_ntk is not None and pairs.ntk is not None:
        roots_ntk = roots_ntk.then(_transform(*pairs.ntk, ridge=ridge))
    return eqx.tree_at(
        lambda e: (e.roots, e.roots_ntk),
        expansion,
        (roots, roots_ntk),
        is_leaf=lambda leaf: leaf is None,
    )


@fitting_jit
def _features_and_kernels(
    expansion: LandmarkExpansion,
    dual: DualKernels,
    features: HiddenFeatures,
    index: tuple[Inputs, ...],
) -> PerKernel:
    """`(A, B, E)` of each kernel.

    `A` holds the features of the first half of the positions `index`, `B` those of the second.
    """
    count = len(index[0]) // 2
    q, independent, ntk = jax.tree.map(lambda k: k[index], features.variances.diagonals())
    z, z_ntk, v = features.nngp_vectors().at(index), None, None
    if features.ntk is not None and expansion.filters_ntk is not None:
        z_ntk = features.ntk_vectors().at(index)
        v = matmul(z_ntk, expansion.filters_ntk, "full")
    u, v = expansion.mixed(matmul(z, expansion.filters, "full"), v)
    norms = PerKernel(None, None)
    if expansion.function is not None:
        norm, derivative = dual(independent, q, q)
        norms = PerKernel(norm, None if ntk is None else derivative * ntk)
    made, made_ntk = map(formed, expansion.of_projections(u, v, q, norms))
    covariance = matmul(z[:count], z[count:].T, "full")
    k, k_derivative = dual(covariance, q[:count, None], q[None, count:])
    pair = (made[:count], made[count:], k)
    if z_ntk is None or made_ntk is None:
        return PerKernel(pair, None)
    k_ntk = k_derivative * matmul(z_ntk[:count], z_ntk[count:].T, "full")
    return PerKernel(pair, (made_ntk[:count], made_ntk[count:], k_ntk))


def _transform(a: Any, b: Any, kernel: Any, *, ridge: float) -> Inputs:
    """`R`, symmetric, with `R² = I + D`; negative eigenvalues of `I + D` become 0."""
    accurate_a, accurate_b, accurate_kernel = map(in_float64, (a, b, kernel))
    numpy = namespace(accurate_a)
    with float64():
        missed = _correction(numpy, accurate_a, accurate_b, accurate_kernel, ridge)
        values, vectors = eigh(numpy.eye(len(missed)) + missed, overwrite=True)
        roots = np.sqrt(np.maximum(values, 0.0))
        transform = (vectors * roots[None, :]) @ vectors.T
    if not any(isinstance(array, Tracer) for array in (a, b, kernel)):
        return transform

    def derivative(a, b, kernel):
        """`R dR + dR R = dD` in the basis of the eigenvectors."""
        v, sums = on_device(vectors, a.dtype), on_device(roots[:, None] + roots, a.dtype)
        inner = v.T @ _correction(jnp, a, b, kernel, ridge) @ v
        return v @ (inner / jnp.where(sums > 0, sums, jnp.inf)) @ v.T

    return with_derivative(transform, derivative, a, b, kernel, dtype=a.dtype)


def _correction(numpy: Any, a: Any, b: Any, kernel: Any, ridge: float) -> Any:
    """`D`, computed by NumPy or by JAX."""

    def pseudo_inverse(z):
        """That of `z` (count, p), regularised by `ridge` times the mean eigenvalue of `zᵀz`."""
        gram = z.T @ z
        shift = numpy.maximum(ridge * numpy.trace(gram) / len(gram), numpy.finfo(gram.dtype).tiny)
        return numpy.linalg.solve(gram + shift * numpy.eye(len(gram), dtype=gram.dtype), z.T)

    left, right = pseudo_inverse(a), pseudo_inverse(b)
    # A Bᵀ is never formed: it is as large as the kernel
    missed = left @ kernel @ right.T - (left @ a) @ (right @ b).T
    return (missed + missed.T) / 2
