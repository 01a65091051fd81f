"""Variances after a linear map of positions with one matrix for each spatial axis."""

import numpy as np
from jax import numpy as jnp

from .._typing import Array, Offsets
from ._band import band_mask, entries
from ._variance_windows import mirrorable
from ._variances import Variances

#: A matrix (outputs, inputs) for each spatial axis; None: positions stay as they are.
Matrices = tuple[np.ndarray | None, ...]


def matrix_offsets(matrices: Matrices, out: Offsets) -> Offsets:
    """Input offsets that output offsets `out` need, for the map `x'_S = Σ_s W[S, s] x_s` with a
    matrix `W` (outputs, inputs) for each spatial axis. Those of the first axis are not negative.
    """
    if out is None:
        return None
    needed = []
    for axis, (along, matrix) in enumerate(zip(mirrorable(out), matrices, strict=True)):
        steps = set(along if matrix is None else _steps(matrix, along))
        steps = steps if axis else set(map(abs, steps))
        needed.append(tuple(sorted(steps)) or (0,))
    return tuple(needed)


def matrix_numbers(matrices: Matrices, out: tuple[tuple[int, ...], ...]) -> int:
    """How many weights of pairs `through_matrices` multiplies with, along all axes together."""
    return sum(
        len(along) * len(_steps(matrix, along)) * matrix.size
        for along, matrix in zip(mirrorable(out), matrices, strict=True)
        if matrix is not None
    )


def through_matrices(
    variances: Variances, matrices: Matrices, out: tuple[tuple[int, ...], ...]
) -> Variances:
    """Covariances after the map, one spatial axis after the other:
    `K(S, S+δ) = Σ_st W[S, s] W[S+δ, t] K(s, t)`.
    """
    have, wanted = variances.offsets, mirrorable(out)
    sizes = zip(variances.space, matrices, strict=True)
    space = tuple(size if matrix is None else len(matrix) for size, matrix in sizes)
    inside = band_mask(space, wanted)

    def apply(values):
        # The first axis comes last, when the arrays to mirror along it are smallest.
        for axis in reversed(range(len(wanted))):
            before, matrix = (*have[: axis + 1], *wanted[axis + 1 :]), matrices[axis]
            values = (
                entries(values, before, axis, wanted[axis])
                if matrix is None
                else _along(values, matrix, axis, before, wanted[axis])
            )
        return jnp.where(inside, values, 0)

    return variances.linear(apply, wanted).select(out)


def _steps(matrix: np.ndarray, along: tuple[int, ...]) -> tuple[int, ...]:
    """Differences `t - s` of the inputs of outputs `S` and `S + δ`, for all `S` and `δ`."""
    sources = [np.flatnonzero(row) for row in matrix]
    steps = {
        int(t - s)
        for at in along
        for first, second in zip(sources[max(-at, 0) :], sources[max(at, 0) :], strict=False)
        for s in first
        for t in second
    }
    return tuple(sorted(steps))


def _along(values: Array, matrix: np.ndarray, axis: int, offsets, along) -> Array:
    """`through_matrices` along one spatial axis, whose offsets become `along`.

    It is one matrix product with `W[S, s] W[S+δ, s+o]`, for all pairs `(o, s)` at once.
    """
    outputs, inputs = matrix.shape
    steps = _steps(matrix, along)
    pairs = np.zeros((len(along), outputs, len(steps), inputs))
    for i, at in enumerate(along):
        for j, step in enumerate(steps):
            first = slice(max(-at, 0), outputs - max(at, 0))
            second = slice(max(at, 0), outputs - max(-at, 0))
            here = slice(max(-step, 0), inputs - max(step, 0))
            there = slice(max(step, 0), inputs - max(-step, 0))
            pairs[i, first, j, here] = matrix[first, here] * matrix[second, there]
    band = entries(values, offsets, axis, steps)
    places = 1 + axis, 1 + len(offsets) + axis
    weights = jnp.asarray(pairs, values.dtype)
    result = jnp.tensordot(band, weights, axes=(places, (2, 3)), precision="highest")
    return jnp.moveaxis(result, (-2, -1), places)
