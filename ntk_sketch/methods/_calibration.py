"""Features fitted to the kernel's own values on positions that are not landmarks."""

from typing import Any

import equinox as eqx
import numpy as np

from .._features import Features
from .._precision import matmul
from .._typing import Inputs
from ..activations import DualActivation
from ._landmarks import LandmarkExpansion

#: Positions on each side of the fit, at least; and for each feature.
_POSITIONS, _POSITIONS_PER_FEATURE = 2048, 4

#: Regularisation, relative to the mean eigenvalue of the features' Gram matrix. That of landmarks
#: only guards against rounding. Random features stand for directions that the fit cannot see;
#: their noise averages out over positions and examples while the fit would suppress both, so that
#: it may correct only what stands far above the mean.
_RIDGE, _RIDGE_RANDOM = 1e-4, 3.0


def calibrated(
    expansion: LandmarkExpansion,
    dual: DualActivation,
    features: Features,
    candidates: np.ndarray,
    rng: np.random.Generator,
) -> LandmarkExpansion:
    """The expansion with its features transformed to fit the kernel in the least-squares sense.

    Nyström features reproduce the kernel at the landmarks and lose energy everywhere else. With
    `A` and `B` the features of two sets of other positions and `E` the kernel between them, the
    transformed features `z R`, `R² = I + D`, minimise

        ‖A (I + D) Bᵀ - E‖²_F

    over symmetric `D`, regularised towards 0. This is the modified Nyström method (Wang and Zhang,
    *Improving CUR matrix decomposition and the Nyström approximation via adaptive sampling*, JMLR
    2013) on a sample of the kernel's entries (Wang, Zhang and Zhang, *Towards more efficient SPSD
    matrix approximation and CUR matrix decomposition*, JMLR 2016). `A` and `B` come from different
    examples, so that the kernel's diagonal has no part in the fit. The matrices of the expansion
    absorb `R`: the features cost the same.

    Returns the expansion unchanged where `candidates` (flat indices of positions) are fewer than
    four for each feature on either side.
    """
    space = features.nngp_vectors().space
    examples = features.nngp[0].shape[0]
    width = expansion.filters.shape[1]
    wanted = max(_POSITIONS, _POSITIONS_PER_FEATURE * width)
    owner = candidates // max(int(np.prod(space)), 1)
    sides = [candidates[owner < examples // 2], candidates[owner >= examples // 2]]
    sides = [rng.permutation(side)[:wanted] for side in sides]
    count = min(map(len, sides))
    if count < _POSITIONS_PER_FEATURE * width:
        return expansion
    count = min(count // width * width, wanted)  # few shapes to compile
    index, other = (np.unravel_index(side[:count], (examples, *space)) for side in sides)
    pairs = _features_and_kernels(expansion, dual, features, index, other)
    ridge = _RIDGE if expansion.roots.projection is None else _RIDGE_RANDOM
    roots = expansion.roots.then(_transform(*pairs[0], ridge))
    roots_ntk = expansion.roots_ntk
    if roots_ntk is not None and pairs[1] is not None:
        roots_ntk = roots_ntk.then(_transform(*pairs[1], ridge))
    return eqx.tree_at(
        lambda e: (e.roots, e.roots_ntk),
        expansion,
        (roots, roots_ntk),
        is_leaf=lambda leaf: leaf is None,
    )


@eqx.filter_jit
def _features_and_kernels(
    expansion: LandmarkExpansion,
    dual: DualActivation,
    features: Features,
    index: tuple[Inputs, ...],
    other: tuple[Inputs, ...],
):
    """`(A, B, E)` of the NNGP kernel and, or `None`, of the NTK."""
    diagonals = features.variances.diagonals()

    def at(index):
        z = features.nngp_vectors().at(index)
        q, independent, ntk = diagonals
        q, independent, ntk = q[index], independent[index], None if ntk is None else ntk[index]
        u, z_ntk, v = matmul(z, expansion.filters, "full"), None, None
        if features.ntk is not None and expansion.filters_ntk is not None:
            z_ntk = features.ntk_vectors().at(index)
            v = matmul(z_ntk, expansion.filters_ntk, "full")
        return z, z_ntk, q, expansion.of_projections(u, v, q, independent, ntk)

    z_a, z_ntk_a, q_a, (nngp_a, ntk_a) = at(index)
    z_b, z_ntk_b, q_b, (nngp_b, ntk_b) = at(other)
    k, k_derivative = dual(matmul(z_a, z_b.T, "full"), q_a[:, None], q_b[None, :])
    if z_ntk_a is None or z_ntk_b is None:
        return (nngp_a, nngp_b, k), None
    k_ntk = k_derivative * matmul(z_ntk_a, z_ntk_b.T, "full")
    return (nngp_a, nngp_b, k), (ntk_a, ntk_b, k_ntk)


def _transform(a: Any, b: Any, kernel: Any, ridge: float) -> np.ndarray:
    """`R`, symmetric, with `R² = I + D`; negative eigenvalues of `I + D` become 0."""
    left, right, wanted = (np.asarray(array, np.float64) for array in (a, b, kernel))
    missed = _pseudo_inverse(left, ridge) @ (wanted - left @ right.T)
    missed = missed @ _pseudo_inverse(right, ridge).T
    values, vectors = np.linalg.eigh(np.eye(len(missed)) + (missed + missed.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _pseudo_inverse(z: np.ndarray, ridge: float) -> np.ndarray:
    """Of `z` (count, p), regularised by `ridge` times the mean energy of a direction."""
    gram = z.T @ z
    shift = max(ridge * np.trace(gram) / len(gram), np.finfo(float).tiny)
    return np.linalg.solve(gram + shift * np.eye(len(gram)), z.T)
