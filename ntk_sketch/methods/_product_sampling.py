"""Choosing the landmarks of a product of branches."""

import functools
import math

import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array
from ..features._hidden import HiddenFeatures
from ..numerics._compiling import fitting_jit
from ..numerics._linalg import in_place
from ._landmarks import HELD_OUT
from ._products import kernels, vectors_at
from ._sampling import Sampling, sampled
from ._survey import Kernel, distinct


def product_positions(
    name: str,
    branches: list[HiddenFeatures],
    count: int,
    sampling: Sampling,
    rng: np.random.Generator,
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """At most `count` landmarks (example, *position), chosen as for a nonlinearity, and other
    positions to measure rounding at.
    """
    q, directions = map(np.asarray, _survey(branches, _projections(branches)))
    usable = np.flatnonzero(q > 0)
    if not len(usable):
        raise ValueError(
            f"all positions of the sample have variance 0 at {name}, or in one of its branches: its"
            " examples are 0, or so small that their squares are 0 in this dtype. Give feature_map"
            " other examples, or scale them up."
        )
    usable = usable[distinct(directions[usable], q[usable])]
    shape = (branches[0].nngp[0].shape[0], *branches[0].space)
    chosen = usable
    if count < len(usable):
        diagonal, kernel_of = q.astype(np.float64), functools.partial(_kernel_of, branches, shape)
        eps = float(jnp.finfo(q.dtype).eps)
        chosen = sampled(usable, diagonal, kernel_of, count, sampling, eps, rng)
    others = np.setdiff1d(usable, chosen)
    seen = rng.permutation(others if len(others) else chosen)[:HELD_OUT]
    index, seen = (np.unravel_index(where, shape) for where in (chosen, seen))
    return index, seen


def _kernel_of(
    branches: list[HiddenFeatures], shape: tuple[int, ...], pool: np.ndarray, columns: int
) -> Kernel:
    """The product of the branches' kernels at positions `pool`, as a function of indices."""
    del columns  # products of these kernels need no blocks
    vectors = vectors_at(branches, np.unravel_index(pool, shape))

    def kernel(rows: np.ndarray, columns: np.ndarray):
        own, other = (jax.tree.map(lambda leaf, at=at: leaf[at], vectors) for at in (rows, columns))
        return in_place(kernels(own, other, False)[0])

    return kernel


def _projections(branches: list[HiddenFeatures]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(b.nngp_vectors().dimension, b.dtype) for b in branches]
    return [rng.normal(size=(d, 3)).astype(dtype) for d, dtype in sizes]


@functools.partial(fitting_jit, level=0)
def _survey(branches: list[HiddenFeatures], projections) -> tuple[Array, Array]:
    """Variances of the product (N,), and random projections of each branch's directions."""
    variances = [b.variances.diagonal(b.variances.same).reshape(-1) for b in branches]
    directions = []
    for branch, q, matrix in zip(branches, variances, projections, strict=True):
        projected = branch.nngp_vectors().project(matrix).reshape(math.prod(q.shape), -1)
        directions.append(projected / jnp.sqrt(jnp.where(q > 0, q, 1))[:, None])
    return functools.reduce(jnp.multiply, variances), jnp.concatenate(directions, axis=1)
