"""Statistics of a regression on a mesh of devices."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from ..numerics._precision import float64
from ..numerics._two_sum import Pair
from ..parallel._mesh import AXES, COLUMNS, ROWS, shard_map, split_rows
from ._adding import with_block, with_exponent
from ._gram_state import GramState
from ._merging import merged_rows, stacked_specs
from ._running_sums import FLOAT64_FEATURES, RunningSums
from ._targets import Units


class OnMesh(RunningSums):
    """Pairs on every device: a row of devices sums its share of the examples, each of them its
    columns of ZᵀZ. `state` merges the rows. Few features are summed in float64 on a CPU, as without
    a mesh.
    """

    def __init__(
        self,
        p: int,
        k: int | None,
        dtype: np.dtype,
        units: Units | None,
        weighted: bool,
        batches: int,
        mesh: Mesh,
    ):
        on_cpu = all(device.platform == "cpu" for device in mesh.devices.flat)
        wide = np.float64 if on_cpu and p <= FLOAT64_FEATURES else dtype
        super().__init__(units, p, np.dtype(wide))
        self._mesh, self._batches, self._of_state = mesh, batches, np.dtype(dtype)
        with self._precision():
            one = jax.eval_shape(lambda: GramState.init(p, k, self._product, weighted))
            self._shardings = jax.tree.map(
                lambda spec: NamedSharding(mesh, spec),
                stacked_specs(one),
                is_leaf=lambda value: isinstance(value, P),
            )
            self._state: Any = _zeros(one, mesh.shape[ROWS], self._shardings)
        if units is not None:
            self._set_units(units)

    def _precision(self) -> contextlib.AbstractContextManager:
        """In which JAX has the dtype of the sums."""
        return float64() if self._product == np.float64 else contextlib.nullcontext()

    def _dtype(self) -> np.dtype:
        return self._of_state

    def _set_units(self, units: Units) -> None:
        rows = self._mesh.shape[ROWS]
        exponent = np.full(rows, units.exponent, np.int32)
        with self._precision():
            shift = Pair.of_host(np.tile(units.shift, (rows, 1)), self._product)
            state = eqx.tree_at(_units, self._state, (shift, exponent))
            self.units, self._state = units, jax.device_put(state, self._shardings)

    def _all_targets_zero(self) -> bool:
        return not self._state.target_norm.to_host().any()

    def _rescale(self, growth: int) -> None:
        larger = np.asarray(self._state.target_exponent) + np.int32(growth)
        with self._precision():
            larger = jax.device_put(larger, self._shardings.target_exponent)
            self._state = jax.device_put(_rescaled(self._state, larger), self._shardings)

    def _add(self, z: Sequence[Array], t: Float[np.ndarray, "n k"], sample_weight: Any) -> None:
        rows, by_rows = len(z[0]), split_rows(self._mesh)
        none = [np.zeros(z[0].shape, z[0].dtype)] * (self._batches - len(z))
        targets = np.zeros((self._batches * rows, t.shape[1]), self._product)
        targets[: len(t)] = t
        weights = np.zeros(len(targets), self._product)
        weights[: len(t)] = 1.0 if sample_weight is None else sample_weight
        beside = (a.reshape(self._batches, rows, -1) for a in (targets, weights))
        with self._precision():
            block = tuple(jax.device_put(batch, by_rows) for batch in [*z, *none])
            given = jax.device_put(tuple(beside), split_rows(self._mesh, 1))
            given = *given, self._reference
            self._state = _with_block_in_place(self._mesh, self._state, block, *given)

    def state(self) -> GramState:
        with self._precision():
            return merged_rows(self._mesh, self._state, self._of_state, self._reference)

    def arrays(self) -> list[np.ndarray]:
        return [*map(np.asarray, jax.tree.leaves(self._state)), self._reference]

    def restore(self, arrays: Sequence[np.ndarray], n: int) -> None:
        *leaves, self._reference = arrays
        structure = jax.tree.structure(self._state)
        with self._precision():
            self._state = jax.device_put(jax.tree.unflatten(structure, leaves), self._shardings)
        shift, exponents = (
            self._state.target_shift.to_host(),
            np.asarray(self._state.target_exponent),
        )
        self.units, self.n = Units(shift[0], int(exponents[0])), n


def _units(state: Any) -> Any:
    return state.target_shift, state.target_exponent


def _zeros(one: GramState, rows: int, shardings: Any) -> GramState:
    """On their devices at once: no device holds what is another's."""

    def zeros():
        return jax.tree.map(lambda a: jnp.zeros((rows, *a.shape), a.dtype), one)

    return jax.jit(zeros, out_shardings=shardings)()


_rescaled = jax.jit(jax.vmap(with_exponent))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _with_block_in_place(
    mesh: Mesh, state: Any, batches: Any, targets: Array, weights: Array, reference: Any
):
    states = stacked_specs(state)
    inputs = states, tuple(P(AXES) for _ in batches), P(None, AXES), P(None, AXES), P()
    share = shard_map(_with_share, mesh, inputs, states)
    return share(state, batches, targets, weights, reference)


def _with_share(state: Any, batches: Any, targets: Array, weights: Array, reference: Array) -> Any:
    """As one device does it: the examples of its row, for its columns."""
    own = jnp.concatenate(batches), targets.reshape(-1, targets.shape[2]), weights.reshape(-1)
    z, t, weights = (lax.all_gather(a, COLUMNS, tiled=True) for a in own)
    state = jax.tree.map(lambda a: a[0], state)
    return jax.tree.map(lambda a: a[None], with_block(state, z, t, weights, reference))
