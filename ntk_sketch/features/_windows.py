"""Sliding windows, the geometry of convolutions, pools, patches and their variances."""

import dataclasses
import functools
import math

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, Inputs, Offsets
from ..numerics._precision import Precision, convolve


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of `shape`, moved by `strides`, over positions padded as NT pads them.

    `padding` is `"SAME"` (zeros), `"VALID"` (none) or `"CIRCULAR"` (periodic, sizes as `"SAME"`).
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def pads(self, space: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Positions added before and after each spatial axis."""
        kind = "VALID" if self.padding == "VALID" else "SAME"
        pads = lax.padtype_to_pads(space, self.shape, self.strides, kind)
        return tuple((int(low), int(high)) for low, high in pads)

    def output_space(self, space: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(len(self.taps(space, axis)) for axis in range(len(space)))

    def taps(self, space: tuple[int, ...], axis: int) -> np.ndarray:
        """Input position of each tap of each window: (outputs, taps), -1 in the padding."""
        return _taps(
            space[axis],
            self.shape[axis],
            self.strides[axis],
            self.pads(space)[axis],
            self.padding == "CIRCULAR",
        )

    def masks(self, mask: Array | None) -> Array | None:
        """Which windows are masked (n, *outputs), from `mask` (n, *space).

        As in NT, a window is masked if the position in its middle is (the first of two, if the
        window is even).
        """
        if mask is None or self.output_space(mask.shape[1:]) == mask.shape[1:]:
            return mask
        space = mask.shape[1:]
        for axis, (size, stride, pads, outputs) in enumerate(
            zip(self.shape, self.strides, self.pads(space), self.output_space(space), strict=True)
        ):
            middle = (size - 1) // 2 - pads[0]
            mask = jnp.take(mask, middle + stride * np.arange(outputs), axis=1 + axis)
        return mask

    def pad(self, x: Array) -> Array:
        """`x` (n, *space, p) with padded positions, for windows with padding `"VALID"`."""
        pads = self.pads(x.shape[1:-1])
        if not any(low or high for low, high in pads):
            return x
        mode = "wrap" if self.padding == "CIRCULAR" else "constant"
        return jnp.pad(x, ((0, 0), *pads, (0, 0)), mode=mode)

    def convolve(
        self,
        x: Float[Array, "n *space p"],
        filters: Float[Array, "*window p m"],
        precision: Precision = "full",
    ) -> Float[Array, "n *outputs m"]:
        """Inner products of every patch of `x` (n, *space, p) with `filters` (*shape, p, m).

        Cost: 2 n |outputs| |window| p m FLOPs; the patches are never formed.
        """
        letters = "HWDTUV"[: len(self.shape)]
        spec = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        if self.padding == "CIRCULAR":
            x, pads = self.pad(x), ((0, 0),) * len(self.shape)
        else:
            pads = self.pads(x.shape[1:-1])
        return convolve(
            x,
            filters,
            precision,
            window_strides=self.strides,
            padding=pads,
            dimension_numbers=spec,
        )

    def project(
        self,
        x: Float[Array, "n *space p"],
        matrix: Float[Array, "d m"],
        precision: Precision = "full",
    ) -> Float[Array, "n *outputs m"]:
        """Inner products of every patch with the columns of `matrix`, which are the filters of a
        convolution.
        """
        return self.convolve(x, matrix.reshape(*self.shape, x.shape[-1], -1), precision)

    def patches(self, x: Float[Array, "n *space p"]) -> Float[Array, "n *outputs d"]:
        """All patches of `x` (n, *space, p), as vectors (n, *outputs, |window| p)."""
        outputs = self.output_space(x.shape[1:-1])
        x = self.pad(x)
        taps = [
            x[(slice(None), *_strided(offset, self.strides, outputs))]
            for offset in np.ndindex(*self.shape)
        ]
        return jnp.concatenate(taps, axis=-1)

    def patches_at(self, x: Array, index: tuple[Inputs, ...]) -> Array:
        """Patches (m, |window| p) at m positions `index` = (example, *output position)."""
        x = self.pad(x)
        example, *position = index
        offsets = np.indices(self.shape).reshape(len(self.shape), 1, -1)
        places = [
            at[:, None] * stride + offset.astype(at.dtype)
            for at, stride, offset in zip(position, self.strides, offsets, strict=True)
        ]
        taps = x[(example[:, None], *places)]  # one gather of (m, |window|, p)
        return taps.reshape(len(example), -1)


def _strided(offset, strides, outputs):
    return tuple(
        slice(o, o + stride * (count - 1) + 1, stride)
        for o, stride, count in zip(offset, strides, outputs, strict=True)
    )


@functools.lru_cache(maxsize=1024)
def _taps(size: int, window: int, stride: int, pads: tuple[int, int], circular: bool) -> np.ndarray:
    low, high = pads
    count = (size + low + high - window) // stride + 1
    taps = np.arange(max(count, 0))[:, None] * stride + np.arange(window) - low
    if circular:
        return taps % size
    return np.where((taps >= 0) & (taps < size), taps, -1)


def union(*offsets: Offsets) -> Offsets:
    """The smallest product of offsets that holds all of `offsets`."""
    wanted = [o for o in offsets if o is not None]
    if not wanted:
        return None
    return tuple(tuple(sorted(set().union(*axes))) for axes in zip(*wanted, strict=True))
