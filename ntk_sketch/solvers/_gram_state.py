"""The sufficient statistics of ridge regression; streaming, sharding and resuming are `merge`."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._two_sum import Pair


class GramState(eqx.Module):
    """Sums over examples that determine a ridge regression from features Z (n, p) to Y (n, k).

    | field | sum | shape |
    |---|---|---|
    | `gram` | ZᵀZ | (p, p) |
    | `cross` | ZᵀY | (p, k) |
    | `target_norm` | Σᵢ Yᵢₒ², one per output | (k,) |
    | `feature_norm` | Σᵢ ‖zᵢ‖² = trace(ZZᵀ) | () |
    | `n_examples`, `n_blocks` | rows, and calls of `update` | () |

    The float sums are pairs (`Pair`): in float32, which every accelerator has, the *sum over
    blocks* adds no error worth counting, whatever the number of examples; the rounding inside one
    block's matrix product stays, and `rounding_error` estimates it. With float64 features the pairs
    are float64. The user's `jax_enable_x64` is neither needed nor changed.

    A state is a pytree of arrays: save it with any checkpoint tool, send it, and `merge` it.
    Memory: 2 p² numbers (8 p² bytes in float32), and p² more during an update.
    """

    gram: Pair
    cross: Pair
    target_norm: Pair
    feature_norm: Pair
    n_examples: Int[Array, ""]
    n_blocks: Int[Array, ""]

    @staticmethod
    def init(n_features: int, n_outputs: int, dtype=jnp.float32) -> GramState:
        """The state of no examples.

        Args:
          n_features: p.
          n_outputs: k.
          dtype: of the features, float32 or float64; what is narrower is summed in float32.
        """
        dtype = jnp.promote_types(dtype, jnp.float32)
        return GramState(
            gram=Pair.zeros((n_features, n_features), dtype),
            cross=Pair.zeros((n_features, n_outputs), dtype),
            target_norm=Pair.zeros((n_outputs,), dtype),
            feature_norm=Pair.zeros((), dtype),
            n_examples=jnp.zeros((), jnp.int32),
            n_blocks=jnp.zeros((), jnp.int32),
        )

    def update(
        self,
        z: Float[Array, "n p"],
        y: Float[Array, "n k"],
        n_examples: Int[Array, ""] | int | None = None,
    ) -> GramState:
        """The state with one more block of examples, at the highest matrix product precision.

        Cost for b rows: 2 b p (p + k) FLOPs, and 24 p² bytes of memory traffic in float32 for the
        pair and the product. With b = 1,024 that is 85 FLOPs a byte, bound by arithmetic on every
        current device; with b = 64 it is 5, bound by memory. So give blocks of 1,024 rows or more
        (`accumulate` gathers small batches into such blocks).

        Args:
          z: features of the block.
          y: targets of the block.
          n_examples: number of examples where `z` and `y` are padded with rows of zeros to a fixed
            shape; None: all rows.
        """
        added = z.shape[0] if n_examples is None else n_examples
        return _updated(self, z, y, jnp.asarray(added, jnp.int32))

    def merge(self, other: GramState) -> GramState:
        """The state of the examples of both; associative and commutative to rounding."""
        if self.cross.high.shape != other.cross.high.shape:
            raise ValueError(
                f"cannot merge a state of {self._shape_text()} with one of {other._shape_text()}: "
                "both must come from the same feature map and targets of the same width"
            )
        return _merged(self, other)

    def rounding_error(self) -> float:
        """Estimate of the spectral norm of the error of `gram`, in the units of ZᵀZ.

        Within a block of b rows a sum of b products of like sign gathers random rounding errors of
        about (eps / 2) √b / 3 times the sum; errors of the n / b blocks are independent, so that
        the error of entry (i, j) of G = ZᵀZ is about (eps / 2) √b / 3 · √(b / n) · √(Gᵢᵢ Gⱼⱼ) or
        less. A symmetric matrix of independent errors has a spectral norm of about twice its
        largest row norm. Rounded up: (eps / 2) b / √n · √(maxᵢ Gᵢᵢ trace G).

        Measured on a CPU in float32, b = 256 to 4,096, p = 256 to 1,024: 2 to 20 times the error
        for features with a large mean, 3 to 60 times for a decaying spectrum, up to 200 times for
        white noise (whose products have no common sign).

        Probabilistic rounding analysis: N. J. Higham and T. Mary, SIAM J. Sci. Comput. 41 (2019),
        A2815; norms of random matrices: A. Bandeira and R. van Handel, Ann. Probab. 44 (2016),
        2479.
        """
        n, n_blocks = max(int(self.n_examples), 1), max(int(self.n_blocks), 1)
        unit = float(jnp.finfo(self.gram.high.dtype).eps) / 2
        diagonal = np.diagonal(np.asarray(self.gram.high)).astype(np.float64)
        return float(unit * np.sqrt(n) / n_blocks * np.sqrt(diagonal.max() * diagonal.sum()))

    def _shape_text(self) -> str:
        n_features, n_outputs = self.cross.high.shape
        return f"{n_features} features and {n_outputs} outputs"


def _transposed_product(a: Float[Array, "n p"], b: Float[Array, "n k"]) -> Float[Array, "p k"]:
    return jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _updated(
    state: GramState, z: Float[Array, "n p"], y: Float[Array, "n k"], added: Int[Array, ""]
) -> GramState:
    dtype = state.gram.high.dtype
    z, y = z.astype(dtype), y.astype(dtype)
    return GramState(
        gram=state.gram.add(_transposed_product(z, z)),
        cross=state.cross.add(_transposed_product(z, y)),
        target_norm=state.target_norm.add(jnp.sum(y * y, axis=0)),
        feature_norm=state.feature_norm.add(jnp.sum(z * z)),
        n_examples=state.n_examples + added,
        n_blocks=state.n_blocks + 1,
    )


@jax.jit
def _merged(state: GramState, other: GramState) -> GramState:
    return GramState(
        gram=state.gram.merge(other.gram),
        cross=state.cross.merge(other.cross),
        target_norm=state.target_norm.merge(other.target_norm),
        feature_norm=state.feature_norm.merge(other.feature_norm),
        n_examples=state.n_examples + other.n_examples,
        n_blocks=state.n_blocks + other.n_blocks,
    )
