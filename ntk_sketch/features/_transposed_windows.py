"""The windows of a transposed convolution."""

import dataclasses

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, Inputs
from ..numerics._precision import Precision
from ._windows import Windows


@dataclasses.dataclass(frozen=True)
class TransposedWindows:
    """Windows of `shape` over inputs spread `strides` apart, with zeros in between.

    These are the patches of a transposed convolution, padded as in `jax.lax.conv_transpose`.

    `padding` is `"SAME"` (stride times as many outputs as inputs), `"VALID"` (all outputs that an
    input reaches) or `"CIRCULAR"` (periodic, sizes as `"SAME"`).

    Cost of a projection: that of a convolution of the outputs' size, zeros included.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str

    @property
    def size(self) -> int:
        return self._windows.size

    @property
    def _windows(self) -> Windows:
        return Windows(self.shape, (1,) * len(self.shape), "VALID")

    def output_space(self, space: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            n * stride + (max(window - stride, 0) if self.padding == "VALID" else 0)
            for n, window, stride in zip(space, self.shape, self.strides, strict=True)
        )

    def masks(self, mask: Array | None) -> Array | None:
        """Which outputs are masked (n, *outputs), from `mask` (n, *space).

        As in NT, an output is masked if its window holds a masked input.
        """
        if mask is None:
            return None
        seen = self.patches(mask[..., None].astype(jnp.float32))
        return jnp.any(seen > 0, axis=-1)

    def spread(self, x: Float[Array, "n *space p"]) -> Float[Array, "n *wide p"]:
        """Inputs with zeros in between and around, ready for windows of stride 1."""
        space = x.shape[1:-1]
        outputs, pads, laps = self.output_space(space), [(0, 0, 0)], [(0, 0)]
        axes = zip(space, outputs, self.shape, self.strides, strict=True)
        for n, outside, window, stride in axes:
            low = self._low(window, stride)
            lap = 0
            if self.padding == "CIRCULAR":  # copies on either side, then cut to size
                lap = -(-low // stride)
                low -= lap * stride
            wide = (n + 2 * lap - 1) * stride + 1
            pads.append((low, outside + window - 1 - wide - low, stride - 1))
            laps.append((lap, lap))
        if any(lap for lap, _ in laps):
            x = jnp.pad(x, (*laps, (0, 0)), mode="wrap")
        return lax.pad(x, np.zeros((), x.dtype), (*pads, (0, 0, 0)))

    def _low(self, window: int, stride: int) -> int:
        """Zeros before the first input."""
        if self.padding == "VALID":
            return window - 1
        if self.padding == "CIRCULAR":  # the middle outputs of "VALID"; the others wrap around
            return window - 1 - max(window - stride, 0) // 2
        return window - 1 if stride > window - 1 else -(-(window + stride - 2) // 2)

    def project(
        self,
        x: Float[Array, "n *space p"],
        matrix: Float[Array, "d m"],
        precision: Precision = "full",
    ) -> Float[Array, "n *outputs m"]:
        return self._windows.project(self.spread(x), matrix, precision)

    def patches(self, x: Float[Array, "n *space p"]) -> Float[Array, "n *outputs d"]:
        return self._windows.patches(self.spread(x))

    def patches_at(self, x: Array, index: tuple[Inputs, ...]) -> Array:
        return self._windows.patches_at(self.spread(x), index)
