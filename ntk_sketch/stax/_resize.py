"""The rule of ImageResize: one matrix of weights for each spatial axis."""

import dataclasses
import functools

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._nt import nt_stax
from .._typing import Array, Offsets
from ..features._hidden import HiddenFeatures
from ..features._variance_matrices import matrix_offsets, through_matrices
from ..numerics._precision import float64
from ._repaired import in_order
from ._rule import Rule, check_axes


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of `jax.image.resize`. Axes of size -1 in `shape` are not resized."""

    shape: tuple[int, ...]
    method: str
    antialias: bool

    def matrices(self, space: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """A matrix (outputs, inputs) for each spatial axis, in float64."""
        return tuple(
            np.eye(size) if out in (-1, size) else _matrix(size, out, self.method, self.antialias)
            for size, out in zip(space, self.shape[1:-1], strict=True)
        )


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
        return matrix_offsets(self.weights.matrices(shape[1:-1]), offsets)

    def fit(self, features, *, method, offsets, key):
        return ResizeTransform(self.weights, offsets)


class ResizeTransform(eqx.Module):
    weights: Weights = eqx.field(static=True)
    offsets: Offsets = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, **kwargs) -> HiddenFeatures:
        features, variances = features.applied(), None
        matrices = self.weights.matrices(features.space)
        if self.offsets is not None:
            variances = through_matrices(features.variances, matrices, self.offsets)
        mask = features.mask
        if mask is not None:  # masked if all of its inputs are masked
            met = tuple((matrix != 0).astype(np.float32) for matrix in matrices)
            mask = resized((~mask)[..., None].astype(jnp.float32), met)[..., 0] == 0
        resizing = features.map(lambda block: resized(block, matrices))
        return resizing.replace(variances=variances, mask=mask)


def resized(x: Array, matrices: tuple[np.ndarray, ...]) -> Array:
    """`x` (n, *space, c) times one matrix (outputs, inputs) along each spatial axis.

    It is one matrix product for each line of positions. `jax.image.resize` would move axes, which
    XLA on a CPU fuses into a slow loop with the kernel values before it.
    """
    for axis, matrix in reversed(list(enumerate(matrices, start=1))):
        if len(matrix) == x.shape[axis] and (matrix == np.eye(len(matrix))).all():
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
