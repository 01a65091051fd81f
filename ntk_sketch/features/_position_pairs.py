"""Covariances of all pairs of positions along some spatial axes, as matrices.

A layer that mixes the P positions along these axes with weights W (n, P, P) maps the covariances K
of an example to `W K Wᵀ`. Arrays have the shape (n, *D, *S, P, P), with the offsets D and the
positions S of the other axes.
"""

import string

import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array, Offsets
from ._band import band_mask, there
from ._hidden import HiddenFeatures
from ._rooted import formed
from ._variance_windows import mirrorable
from ._variances import Variances

Axes = tuple[int, ...]


def pair_offsets(space: tuple[int, ...], axes: Axes, out: Offsets, *, exact: bool) -> Offsets:
    """Input offsets that output offsets `out` need: along `axes` all of them, or only 0 if
    covariances of different positions are estimated from the features.
    """
    if out is None:
        return None
    needed = []
    for axis, (along, size) in enumerate(zip(mirrorable(out), space, strict=True)):
        if axis in axes:
            along = tuple(range(1 - size, size)) if exact else (0,)
        needed.append(along if axis else tuple(sorted(set(map(abs, along)))))
    return tuple(needed)


def pair_matrices(
    features: HiddenFeatures, axes: Axes, out: tuple[tuple[int, ...], ...], *, exact: bool
) -> Variances:
    """The covariances of `features` as matrices.

    Args:
        features: with no layer pending unless `exact`.
        out: the offsets wanted after the layer.
        exact: whether all covariances are exact. Otherwise those of different positions along
            `axes` are inner products of feature vectors.
    """
    if exact:
        return exact_matrices(features.variances, axes, out)
    return _estimated(features, axes, tuple(out[a] for a in _others(len(out), axes)))


def exact_matrices(variances: Variances, axes: Axes, out: tuple[tuple[int, ...], ...]) -> Variances:
    """Covariances at all offsets along `axes`, as matrices; other axes are at the offsets `out`."""
    sizes = [variances.space[a] for a in axes]
    places = np.indices(sizes).reshape(len(axes), -1)
    first = [np.broadcast_to(p[:, None], (p.size, p.size)) for p in places]
    steps = [p[None, :] - p[:, None] for p in places]
    wanted = list(out)
    for axis, size in zip(axes, sizes, strict=True):
        wanted[axis] = tuple(range(1 - size, size))
    if len(axes) == len(out):  # K(s, t) = K(t, s), of which one is there
        wanted[0] = tuple(range(sizes[0]))
        mirrored = steps[0] < 0
        first = [np.where(mirrored, at.T, at) for at in first]
        steps = [np.where(mirrored, -step, step) for step in steps]
    steps = [step - min(wanted[axis]) for axis, step in zip(axes, steps, strict=True)]
    order = _order(len(out), axes)
    return variances.select(tuple(wanted)).linear(
        lambda values: values.transpose(order)[(..., *steps, *first)], out
    )


def pair_bands(
    matrices: Variances, space: tuple[int, ...], axes: Axes, out: tuple[tuple[int, ...], ...]
) -> Variances:
    """The band at offsets `out` of covariances in matrices; other axes are at these offsets."""
    sizes = [space[a] for a in axes]
    places = np.indices(sizes)
    steps = np.stack(np.meshgrid(*(np.array(out[a]) for a in axes), indexing="ij"))
    second = np.expand_dims(steps, tuple(range(-len(axes), 0)))
    second = second + np.expand_dims(places, tuple(range(1, 1 + len(axes))))
    columns = np.ravel_multi_index(tuple(second), sizes, mode="clip")
    rows = np.broadcast_to(np.ravel_multi_index(tuple(places), sizes), columns.shape)
    back, inside = np.argsort(_order(len(out), axes)), band_mask(space, out)

    def apply(values):
        return jnp.where(inside, values[..., rows, columns].transpose(back), 0)

    return matrices.linear(apply, out)


def through_weights(weights: Array, matrices: Variances) -> Variances:
    """`W K Wᵀ` for weights `W` (n, P, P)."""

    def apply(values):
        extra = values.ndim - weights.ndim
        w = weights.reshape(weights.shape[0], *(1,) * extra, *weights.shape[1:])
        left = jnp.matmul(w, values, precision="highest")
        return jnp.matmul(left, jnp.swapaxes(w, -1, -2), precision="highest")

    return matrices.linear(apply, matrices.offsets)


def _others(k: int, axes: Axes) -> Axes:
    return tuple(axis for axis in range(k) if axis not in axes)


def _order(k: int, axes: Axes) -> tuple[int, ...]:
    """The axes of a band (n, D1, D2, ..., S1, S2, ...) as (n, *D, *S, *Da, *Sa)."""
    both = (_others(k, axes), axes)
    return (0, *(first + a for group in both for first in (1, 1 + k) for a in group))


def _estimated(features: HiddenFeatures, axes: Axes, along: tuple[tuple[int, ...], ...]):
    """Inner products of feature vectors, with exact variances on the diagonal."""
    variances, others = features.variances, _others(len(features.space), axes)
    middle = np.ones((), bool)
    for offsets in along:
        middle = np.multiply.outer(middle, np.array([o == 0 for o in offsets]))
    middle = middle.reshape(1, *middle.shape, *(1,) * (2 + len(others)))

    def with_diagonal(products, values):
        q = variances.diagonal(values).transpose(0, *(1 + a for a in (*others, *axes)))
        q = q.reshape(len(q), *(1,) * len(others), *q.shape[1 : 1 + len(others)], -1, 1)
        return jnp.where(middle & np.eye(q.shape[-2], dtype=bool), q, products)

    def total(blocks):
        return sum(_products(formed(block), axes, others, along) for block in blocks)

    nngp = total(features.nngp)
    return Variances(
        same=with_diagonal(nngp, variances.same),
        other=jax.tree.map(lambda values: with_diagonal(nngp, values), variances.other),
        ntk=jax.tree.map(lambda values: with_diagonal(total(features.ntk), values), variances.ntk),
        offsets=variances.offsets,
    )


def _products(block: Array, axes: Axes, others: Axes, along) -> Array:
    """`<x_s, x_t>` (n, *D, *S, P, P) of vectors (n, *space, p)."""
    x = block.transpose(0, *(1 + a for a in (*others, *axes)), block.ndim - 1)
    x = x.reshape(*x.shape[: 1 + len(others)], -1, x.shape[-1])
    moved = there(jnp.moveaxis(x, (-2, -1), (1, 2)), along)
    letters = string.ascii_lowercase
    s, d = letters[: len(others)], letters[len(others) : 2 * len(others)]
    spec = f"N{s}PC,N{d}QC{s}->N{d}{s}PQ"
    return jnp.einsum(spec, x, moved, precision=jax.lax.Precision.HIGHEST)
