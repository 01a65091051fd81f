"""What is known of all positions of a sample before a nonlinearity."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from jax import numpy as jnp

from .._typing import Array, Inputs
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures
from ..numerics._compiling import fitting_jit
from ..numerics._linalg import in_place, is_finite, namespace, stacked
from ..numerics._precision import USE_FLOAT64, matmul

#: Kernel values are computed for this many rows at a time, or as many as landmarks if more.
_ROWS = 1024

Kernel: TypeAlias = Callable[[np.ndarray, np.ndarray], Inputs]


@dataclasses.dataclass(frozen=True)
class Survey:
    """All positions of a sample before a nonlinearity, on the host.

    Attributes:
        q: exact variances (N,).
        diagonal: of the kernel (N,), `k_σ(x, x)`.
        usable: flat indices of the positions that can be landmarks: those with variance above 0
            (for a whole net, a kernel above 0), one of several equal ones.
        kernel: of all positions (N, N), in the dtype of the features, or `None`.
    """

    q: np.ndarray
    diagonal: np.ndarray
    usable: np.ndarray
    kernel: Inputs | None = None


def surveyed(dual: DualKernels, features: HiddenFeatures, *, whole: bool = False) -> Survey:
    """The survey of a sample before a nonlinearity, with equal positions found by `distinct`.

    Args:
        whole: compute the kernel of all positions, if they are few, in the same program.
    """
    vectors, dtype = features.nngp_vectors(), features.nngp[0].dtype
    whole = whole and features.nngp[0].shape[0] * math.prod(vectors.space) <= _ROWS
    projections = np.random.default_rng(0).normal(size=(vectors.dimension, 3)).astype(dtype)
    program = _survey_of_pairs if whole else _survey
    *found, kernel = program(dual, features, projections, whole)
    directions, q, diagonal = map(np.asarray, found)
    smallest = jnp.finfo(q.dtype).tiny
    zeros = dual.sees_zero & (diagonal > smallest / jnp.finfo(q.dtype).eps)
    usable = np.flatnonzero((q > 0) | zeros)
    usable = usable[distinct(directions[usable], q[usable])]
    return Survey(q, diagonal.astype(np.float64), usable, kernel)


def distinct(directions: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Indices of distinct positions, one of several equal ones.

    Positions are equal if their variances `q` (N,), and random projections (N, k) of their vectors'
    directions, agree to √eps. They are compared by the cells of a grid. Rounding may put an equal
    pair into two neighbouring cells, but hardly in both of two shifted grids.
    """
    smallest = jnp.finfo(q.dtype).tiny
    coordinates = np.concatenate([directions, np.log(np.maximum(q, smallest))[:, None]], axis=1)
    cells = coordinates.astype(np.float64) / float(jnp.finfo(q.dtype).eps) ** 0.5
    kept = np.arange(len(q))
    for shift in (0.0, 0.5):
        rounded = np.floor(cells[kept] + shift).astype(np.int64)
        _, first = np.unique(rounded, axis=0, return_index=True)
        kept = kept[np.sort(first)]
    return kept


def _of_positions(
    dual: DualKernels, features: HiddenFeatures, matrix: Inputs, whole: bool
) -> tuple[Array, Array, Array, Array | None]:
    """For every position: its direction times `matrix` (N, 3), its variance (N,) and the kernel's
    diagonal (N,); with `whole` the kernel of all positions (N, N).
    """
    variances, vectors = features.variances, features.nngp_vectors()
    q = variances.diagonal(variances.same).reshape(-1)
    projected = vectors.project(matrix).reshape(len(q), 3)
    directions = projected / jnp.sqrt(jnp.where(q > 0, q, 1))[:, None]
    kernel = None
    if whole:
        everywhere = np.arange(len(q))
        index = np.unravel_index(everywhere, (features.nngp[0].shape[0], *vectors.space))
        kernel = _kernel_between(dual, features, everywhere, index, everywhere, index)
    return directions, q, dual(q, q, q)[0], kernel


_survey = fitting_jit(_of_positions, level=0)
_survey_of_pairs = fitting_jit(_of_positions)


def kernel_of(dual, features: HiddenFeatures, survey: Survey, pool: np.ndarray, count: int):
    """`k_σ` between positions of `pool`, as a function of row and column indices.

    Unless the survey holds it, it is computed in blocks of one shape, so that equal layers share
    one program. Values are in float64 on the host, or on a GPU in the dtype of the features.
    """
    space = features.nngp_vectors().space
    height = max(_ROWS, count)

    def positions(indices: np.ndarray, size: int):
        flat = pool[np.resize(indices, size)]
        return flat, np.unravel_index(flat, (features.nngp[0].shape[0], *space))

    def strips(rows: np.ndarray, columns: np.ndarray) -> Iterator[Inputs]:
        """All columns of `height` rows at a time."""
        if survey.kernel is not None:
            yield in_place(survey.kernel)[np.ix_(pool[rows], pool[columns])]
            return
        for top in range(0, len(rows), height):
            down, blocks = rows[top : top + height], []
            for left in range(0, len(columns), count):
                across = columns[left : left + count]
                block = _block(dual, features, *positions(down, height), *positions(across, count))
                blocks.append(in_place(block)[: len(down), : len(across)])
            yield namespace(blocks[0]).concatenate(blocks, axis=1)

    def kernel(rows: np.ndarray, columns: np.ndarray) -> Inputs:
        values = stacked(strips(rows, columns), len(rows))
        check_kernel(values, dual, survey.q)
        return values

    return kernel


def _kernel_between(
    dual: DualKernels, features: HiddenFeatures, flat, index, flat_other, index_other
) -> Array:
    """`k_σ` between two sets of positions, with the exact variance where both are the same."""
    variances, vectors = features.variances, features.nngp_vectors()
    same, own = (variances.diagonal(v) for v in (variances.same, variances.independent))
    covariance = matmul(vectors.at(index), vectors.at(index_other).T, "full")
    covariance = jnp.where(flat[:, None] == flat_other[None, :], own[index][:, None], covariance)
    return dual(covariance, same[index][:, None], same[index_other][None, :])[0]


_block = fitting_jit(_kernel_between)


def check_kernel(values: Inputs, dual: DualKernels, q: Any) -> None:
    """Refuses kernel values that are NaN or infinite; `q` are variances for the message."""
    if not is_finite(values):
        raise ValueError(
            f"the kernel of {dual.name} is NaN or infinite in {q.dtype} at some positions of the"
            f" sample, whose variances there go up to {float(np.max(q)):.3g}. Standardise the"
            f" inputs, or {USE_FLOAT64}."
        )
