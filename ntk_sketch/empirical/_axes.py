"""Axes of outputs: the kernel is a mean over traced axes and keeps the others."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jax import numpy as jnp

from .._arguments import checked_integer
from .._typing import Array


class Axes(eqx.Module):
    """How a kernel treats the axes of outputs (n, *out), as in `nt.empirical_ntk_fn`.

    Attributes:
        trace: axes that the kernel is a mean over.
        diagonal: axes along which it has only pairs of equal positions.
        shape: of the outputs of one example.
    """

    trace: tuple[int, ...] = eqx.field(static=True)
    diagonal: tuple[int, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def traced(self) -> int:
        """The number of outputs that the kernel is a mean over."""
        return int(np.prod([self.shape[axis - 1] for axis in self.trace], dtype=int))

    @property
    def kept(self) -> tuple[int, ...]:
        """Axes of outputs that are axes of features too."""
        return tuple(axis for axis in range(1, len(self.shape) + 1) if axis not in self.trace)

    def features(self, z: Array) -> Array:
        """Products z (n, *out, width) as features (n, *kept, traced outputs · width)."""
        z = jnp.transpose(z, (0, *self.kept, *self.trace, z.ndim - 1))
        kept = z.shape[: 1 + len(self.kept)]
        return z.reshape(*kept, self.traced * z.shape[-1]) * self.traced**-0.5

    def kernel(self, z1: Array, z2: Array) -> Array:
        """Inner products of features, with axes in the order of Neural Tangents."""
        axes = (0, *self.kept)
        first, second, result = [], [], []
        for number, axis in enumerate(axes):
            pair = [2 * number, 2 * number + (axis not in self.diagonal)]
            first.append(pair[0])
            second.append(pair[1])
            result += pair[:1] if axis in self.diagonal else pair
        p = 2 * len(axes)
        return jnp.einsum(z1, [*first, p], z2, [*second, p], result, precision="highest")


def checked_axes(trace_axes: Any, diagonal_axes: Any, shape: tuple[int, ...]) -> Axes:
    """The axes of outputs (n, *shape), checked and counted from 0."""
    trace = _counted(trace_axes, "trace_axes", shape)
    diagonal = _counted(diagonal_axes, "diagonal_axes", shape)
    if both := set(trace) & set(diagonal):
        raise ValueError(
            f"axis {min(both)} of the outputs is in trace_axes={trace_axes!r} and in"
            f" diagonal_axes={diagonal_axes!r}: a mean over it leaves no diagonal. Keep it in one."
        )
    return Axes(trace, diagonal, shape)


def _counted(axes: Any, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    ndim = 1 + len(shape)
    outputs = f"outputs (n, {', '.join(map(str, shape))})"
    found = []
    for axis in axes if isinstance(axes, Sequence | np.ndarray) else (axes,):
        number = checked_integer(axis, f"an axis in {name}", least=-ndim)
        if not -ndim <= number < ndim:
            raise ValueError(f"{name}={axes!r}: {outputs} have axes {-ndim} to {ndim - 1}.")
        found.append(number % ndim)
    if 0 in found:
        raise NotImplementedError(
            f"{name}={axes!r} has the axis of examples, 0: features are of single examples, and"
            " what a sum over examples leaves is no kernel of them. Sum the kernel that kernel_fn"
            " returns."
        )
    if len(set(found)) < len(found):
        raise ValueError(f"{name}={axes!r} has an axis twice.")
    return tuple(sorted(found))
