"""The rule of ImageResize: one matrix of weights for each spatial axis."""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._nt import nt_stax
from .._typing import Array, Offsets
from ..features._hidden import HiddenFeatures
from ..features._position_map import map_numbers, map_offsets, through_map
from ..features._sources import Sources, sources_of
from ..features._variance_matrices import (
    Matrices,
    matrix_numbers,
    matrix_offsets,
    through_matrices,
)
from ..numerics._precision import float64
from ._repaired import in_order
from ._rule import Covariances, Rule, check_axes


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of `jax.image.resize`. Axes of size -1 in `shape` are not resized."""

    shape: tuple[int, ...]
    method: str
    antialias: bool

    def sources(self, space: tuple[int, ...], out: Offsets) -> Sources | None:
        """The weights as a sparse map if that takes fewer numbers for offsets `out`, as along a
        long axis; else None.
        """
        if out is None:
            return None
        matrices = self.matrices(space)
        resized = [matrix for matrix in matrices if matrix is not None]
        terms = math.prod(int((matrix != 0).sum(axis=1).max()) for matrix in resized)
        pairs = terms**2 * math.prod((*self.outputs(space), *map(len, out)))
        return _sources(self, space) if pairs < matrix_numbers(matrices, out) else None

    def outputs(self, space: tuple[int, ...]) -> tuple[int, ...]:
        sizes = zip(space, self.shape[1:-1], strict=True)
        return tuple(size if out == -1 else out for size, out in sizes)

    def matrices(self, space: tuple[int, ...]) -> Matrices:
        """A matrix (outputs, inputs) for each spatial axis that is resized, in float64."""
        return tuple(
            None if size == out else _matrix(size, out, self.method, self.antialias)
            for size, out in zip(space, self.outputs(space), strict=True)
        )


@functools.lru_cache(maxsize=64)
def _sources(weights: Weights, space: tuple[int, ...]) -> Sources:
    return sources_of(functools.partial(resized, matrices=weights.matrices(space)), space)


@functools.lru_cache(maxsize=64)
def _matrix(size: int, out: int, method: str, antialias: bool) -> np.ndarray:
    """The matrix (out, size) of `jax.image.resize`, in float64.

    It is computed by one program that is compiled ahead, also while JAX traces another function.
    Operation by operation, JAX would compile 25.
    """
    options = {"shape": (out, size), "method": method, "antialias": antialias}
    with float64():
        unit = np.eye(size)
        resize = jax.jit(functools.partial(jax.image.resize, **options))
        return np.asarray(resize.lower(unit).compile()(unit))


class Resize(Rule):
    """`K'(S, T) = Σ_st W[S, s] W[T, t] K(s, t)` with the weights `W` of the interpolation.

    With antialiasing this is a blur with a stride, to a grid of any size.
    """

    positions, masks = "pooled", True

    def __init__(self, layer, shape, method, antialias: bool, axes):
        self.name, self.axes = layer.name, axes
        method = getattr(method, "name", method).lower()
        self.weights = Weights(tuple(map(int, shape)), method, bool(antialias))

    def needs(self, offsets, shape, *, method):
        check_axes(self.name, shape, *self.axes)
        if self.weights.shape[0] != -1:
            raise NotImplementedError(
                f"{self.name}: features of an example cannot depend on the others of its batch,"
                f" but shape={self.weights.shape} resizes the batch axis. Give -1 there."
            )
        space = tuple(shape[1:-1])
        sources = self.weights.sources(space, offsets)
        if sources is not None:
            return map_offsets(sources, offsets)
        return matrix_offsets(self.weights.matrices(space), offsets)

    def covariances(self, offsets, shape, *, method):
        space = tuple(shape[1:-1])
        if offsets is None:
            return Covariances(0, 0)
        sources = self.weights.sources(space, offsets)
        if sources is not None:
            return Covariances(0, *map_numbers(sources, offsets))
        return Covariances(0, 0, matrix_numbers(self.weights.matrices(space), offsets))

    def fit(self, features, *, method, offsets, key):
        return ResizeTransform(self.weights, offsets)


class ResizeTransform(eqx.Module):
    weights: Weights = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features, variances = features.applied(), None
        matrices = self.weights.matrices(features.space)
        if self.offsets is not None:
            sources = self.weights.sources(features.space, self.offsets)
            variances = (
                through_matrices(features.variances, matrices, self.offsets)
                if sources is None
                else through_map(features.variances, sources, self.offsets)
            )
        mask = features.mask
        if mask is not None:  # masked if all of its inputs are masked
            met = tuple(None if m is None else (m != 0).astype(np.float32) for m in matrices)
            mask = resized((~mask)[..., None].astype(jnp.float32), met)[..., 0] == 0
        resizing = features.map(lambda block: resized(block, matrices))
        return resizing.replace(variances=variances, mask=mask)


def resized(x: Array, matrices: Matrices) -> Array:
    """`x` (n, *space, c) times one matrix along each spatial axis that has one.

    It is one matrix product for each line of positions. `jax.image.resize` would move axes, which
    XLA on a CPU fuses into a slow loop with the kernel values before it. But a matrix larger than
    what it multiplies is not repeated for every line.
    """
    for axis, matrix in reversed(list(enumerate(matrices, start=1))):
        if matrix is None:
            continue
        if matrix.size > math.prod(x.shape[axis:]):
            weights = jnp.asarray(matrix.T, x.dtype)
            x = jnp.moveaxis(jnp.tensordot(x, weights, (axis, 0), precision="highest"), -1, axis)
            continue
        lines = x.reshape(*x.shape[: axis + 1], -1)
        weights = jnp.broadcast_to(jnp.asarray(matrix, x.dtype), (*x.shape[:axis], *matrix.shape))
        shape = (*x.shape[:axis], len(matrix), *x.shape[axis + 1 :])
        x = jnp.matmul(weights, lines, precision="highest").reshape(shape)
    return x


@functools.wraps(nt_stax.ImageResize)
def ImageResize(shape, method, *args, **kwargs):
    """NT's layer with two repairs.

    NT resizes the axes of a kernel in the order in which they are stored, which is reversed after
    an odd number of convolutions: they are put in order first. NT's kernel takes only the name of a
    method: a `jax.image.ResizeMethod` is replaced by its name.
    """
    name = str(getattr(method, "name", method)).lower()
    init_fn, apply_fn, kernel_fn = nt_stax.ImageResize(shape, name, *args, **kwargs)
    return init_fn, apply_fn, in_order(kernel_fn)


def image_resize(layer, shape, method, antialias, precision, batch_axis, channel_axis):
    return Resize(layer, shape, method, antialias, (batch_axis, channel_axis))
