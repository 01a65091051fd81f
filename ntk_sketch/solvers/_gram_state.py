"""The sufficient statistics of ridge regression; streaming, sharding and resuming are `merge`."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ..numerics import _linalg
from ..numerics._precision import promoted
from ..numerics._two_sum import Pair
from ..parallel._mesh import beside
from ..storage._saved import save
from ..streaming._sample_weights import checked_weights
from ._adding import merged, updated
from ._host_sums import HostSums
from ._origin import Origin, check_same, fingerprint_of, unknown
from ._targets import Units


class GramState(eqx.Module):
    """The sums over examples that determine a ridge regression from features Z (n, p) to Y (n, k).

    Use this if data come in pieces: make a state for each (by `accumulate`), `merge` them, and
    `solve`.

    | field | sum | shape |
    |---|---|---|
    | `gram` | ZᵀDZ | (p, p) |
    | `cross` | ZᵀDT | (p, k) |
    | `target_norm`, `target_sum` | Σᵢ wᵢ Tᵢₒ² and Σᵢ wᵢ Tᵢₒ, one per output | (k,) |
    | `feature_norm` | Σᵢ wᵢ ‖zᵢ‖² | () |
    | `feature_sum` | Σᵢ wᵢ zᵢ | (p,) |
    | `weight` | Σᵢ wᵢ | () |
    | `n_examples` | rows with wᵢ > 0 | () |
    | `origin` | digests of the feature map, zeros if unknown | (4, 2) |
    | `rounding` | Σ over blocks of b rows, weight v: (eps / 2)² b v²; less if centred | () |

    D = diag(w) are the weights of the examples, all 1 if none are given. An example of weight 2
    counts as two.

    Targets are summed in scaled units, `T = (Y - target_shift) / 2^target_exponent`, so that no sum
    overflows, underflows or loses its digits to a large mean. `merge` converts both states to the
    same units.

    The sums are pairs of floats (`Pair`). In float32, which every accelerator has, the *sum over
    blocks* then has a negligible error for any number of examples. The rounding within the matrix
    product of a block remains, and `rounding_error` estimates it. With float64 features the pairs
    are float64. The user's `jax_enable_x64` is neither needed nor changed.

    A state is a pytree of arrays, which can be saved, sent and merged.

    Memory: 2 p² numbers (8 p² bytes in float32), and p² more during an update.

    Example:
      >>> import numpy as np
      >>> from ntk_sketch.solvers import GramState
      >>> z, y = np.eye(4, 3), np.ones((4, 1))
      >>> state = GramState.init(n_features=3, n_outputs=1).update(z, y)
      >>> int(state.merge(state).n_examples)
      8
    """

    gram: Pair
    cross: Pair
    target_norm: Pair
    target_sum: Pair
    feature_norm: Pair
    feature_sum: Pair
    weight: Pair
    target_shift: Pair
    target_exponent: Int[Array, ""]
    n_examples: Int[Array, ""]
    rounding: Float[Array, ""]
    origin: Origin
    #: Targets were given as (n,), so that weights are (p,).
    one_output: bool = eqx.field(static=True, default=False)
    #: Examples were given weights.
    weighted: bool = eqx.field(static=True, default=False)

    @staticmethod
    def init(
        n_features: int, n_outputs: int | None, dtype=jnp.float32, weighted: bool = False
    ) -> GramState:
        """The state of no examples.

        Args:
          n_features: p.
          n_outputs: k; None for targets of shape (n,).
          dtype: of the features, float32 or float64; narrower ones are summed in float32.
          weighted: whether examples will have weights. An `update` with weights sets it.
        """
        dtype, k = promoted(dtype, jnp.float32), 1 if n_outputs is None else n_outputs
        return GramState(
            gram=Pair.zeros((n_features, n_features), dtype),
            cross=Pair.zeros((n_features, k), dtype),
            target_norm=Pair.zeros((k,), dtype),
            target_sum=Pair.zeros((k,), dtype),
            feature_norm=Pair.zeros((), dtype),
            feature_sum=Pair.zeros((n_features,), dtype),
            weight=Pair.zeros((), dtype),
            target_shift=Pair.zeros((k,), dtype),
            target_exponent=jnp.zeros((), jnp.int32),
            n_examples=jnp.zeros((), jnp.int32),
            rounding=jnp.zeros((), dtype),
            origin=unknown(),
            one_output=n_outputs is None,
            weighted=weighted,
        )

    @staticmethod
    def of_host(
        sums: HostSums,
        units: Units,
        n: int,
        dtype,
        one_output: bool,
        rounding: float,
        weighted: bool = False,
    ) -> GramState:
        """The state of sums that were computed on the host."""
        pairs = {
            name: Pair.of_host(np.asarray(value), dtype) for name, value in sums._asdict().items()
        }
        p, k = sums.cross.shape
        empty = GramState.init(p, k, dtype)
        state = dataclasses.replace(
            empty,
            **pairs,
            n_examples=jnp.asarray(n, jnp.int32),
            rounding=jnp.asarray(rounding, empty.rounding.dtype),
            one_output=one_output,
            weighted=weighted,
        )
        return state.with_units(units)

    def with_units(self, units: Units) -> GramState:
        """The same sums with other units of the targets."""
        return dataclasses.replace(
            self,
            target_shift=Pair.of_host(units.shift, self.target_shift.high.dtype),
            target_exponent=jnp.asarray(units.exponent, jnp.int32),
        )

    def update(
        self,
        z: Float[Array, "n p"],
        y: Float[Array, "n ..."],
        n_examples: Int[Array, ""] | int | None = None,
        sample_weight: Any = None,
    ) -> GramState:
        """The state with one more block of examples, at the highest matrix product precision.

        Use this with features of your own; `accumulate` computes and adds those of a map.

        Cost for b rows: 2 b p (p + k) FLOPs, and 24 p² bytes of memory traffic in float32 for the
        pair and the product. With b = 1,024 that is 85 FLOPs a byte, bound by arithmetic on every
        current device; with b = 64 it is 5, bound by memory. So give blocks of 1,024 rows or more
        (`accumulate` gathers small batches into such blocks).

        Args:
          z: features of the block.
          y: targets of the block, (n, k) or (n,).
          n_examples: number of examples if `z` and `y` are padded with rows of zeros to a fixed
            shape; None: all rows.
          sample_weight: weights (n,) of the examples, >= 0; None: all 1.

        Raises:
          TypeError, ValueError: weights are negative, not finite, or not one for each row. If they
            are traced by JAX, only their shape is checked.
        """
        added = jnp.asarray(z.shape[0] if n_examples is None else n_examples, jnp.int32)
        dtype = self.gram.high.dtype
        if sample_weight is None:
            return updated(self, z, y, jnp.ones(z.shape[0], dtype), added)
        if not isinstance(sample_weight, Tracer):
            sample_weight = checked_weights(sample_weight, z.shape[0], whole=False)
        if sample_weight.shape != z.shape[:1]:
            raise ValueError(
                f"sample_weight has shape {sample_weight.shape}; needed: {z.shape[:1]}"
            )
        weights = jnp.asarray(sample_weight).astype(dtype)
        return dataclasses.replace(updated(self, z, y, weights, added), weighted=True)

    def merge(self, other: GramState) -> GramState:
        """The state of the examples of both, associative and commutative to rounding.

        Raises:
          ValueError: the states have different numbers of features or outputs, or different feature
            maps; the message says how the maps differ.
        """
        if self.cross.high.shape != other.cross.high.shape:
            raise ValueError(
                f"cannot merge a state of {self._shape_text()} with one of {other._shape_text()}: "
                "both must come from the same feature map and targets of the same width"
            )
        check_same(self.origin, other.origin, "cannot merge these statistics")
        return merged(self, beside(self, other))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the sums to a file, which `ntk_sketch.load` reads, bit for bit.

        Use this to merge the statistics of other processes, or to add later data. A loaded state
        merges with those of the same feature map, and is refused by others. The file is written as
        by `FeatureMap.save`.

        Raises:
          OSError: the folder does not exist, or the disk is full.

        Example:
          >>> import os
          >>> import tempfile
          >>> import numpy as np
          >>> import ntk_sketch as ns
          >>> from ntk_sketch.solvers import GramState
          >>> state = GramState.init(n_features=3, n_outputs=1)
          >>> state = state.update(np.eye(4, 3), np.ones((4, 1)))
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     state.save(os.path.join(folder, "first.safetensors"))
          ...     loaded = ns.load(os.path.join(folder, "first.safetensors"))
          >>> int(loaded.merge(state).n_examples)
          8
        """
        save(self, path, fingerprint_of(self.origin))

    def units(self) -> Units:
        """The units of the targets, on the host."""
        return Units(self.target_shift.to_host(), int(self.target_exponent))

    def in_float64(self) -> HostSums:
        """The sums with targets in `units`, on the host; ZᵀZ stays on a GPU."""
        others = (getattr(self, name).to_host() for name in HostSums._fields[1:])
        return HostSums(self.gram.in_place(), *others)

    def rounding_error(self) -> float:
        """An estimate of the spectral norm of the error of `gram`, in the units of ZᵀZ.

        Within a block, a sum of b products of equal sign has a random rounding error of about
        (eps / 2) √b / 3 times the sum. Errors of blocks are independent, so that the error of entry
        (i, j) of G = ZᵀZ is at most about (eps / 2) √(Σ b³) / (3 n) · √(Gᵢᵢ Gⱼⱼ). A symmetric
        matrix of independent errors has a spectral norm of about twice its largest row norm.
        Rounded up, that gives (eps / 2) √(Σ b³) / n · √(maxᵢ Gᵢᵢ trace G) with the eps of the
        products, which `accumulate` makes in float64 for few features on a CPU. With weights, a
        block has the share v / Σ v of the sums instead of b / n, where v is its total weight.

        Measured on a CPU in float32, b = 256 to 4,096, p = 256 to 1,024: 2 to 20 times the error
        for features with a large mean, 3 to 60 times for a decaying spectrum, up to 200 times for
        white noise (whose products have no common sign).

        Probabilistic rounding analysis: N. J. Higham and T. Mary, SIAM J. Sci. Comput. 41 (2019),
        A2815; norms of random matrices: A. Bandeira and R. van Handel, Ann. Probab. 44 (2016),
        2479.
        """
        total = float(self.weight.to_host()) or 1.0
        diagonal = _linalg.diagonal(self.gram.high)
        # a pair itself is rounded to eps² / 2
        pair = float(jnp.finfo(self.gram.high.dtype).eps) ** 2 / 2
        relative = max(np.sqrt(float(self.rounding)) / total, pair)
        return float(relative * np.sqrt(diagonal.max() * diagonal.sum()))

    def _shape_text(self) -> str:
        n_features, n_outputs = self.cross.high.shape
        return f"{n_features} features and {n_outputs} outputs"
