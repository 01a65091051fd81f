"""The states of several devices, or of several processes, become one."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from ..parallel._devices import Devices
from ..parallel._mesh import AXES, COLUMNS, ROWS
from ._adding import merged
from ._gram_state import GramState
from ._host_sums import HostSums
from ._reference import pairs_of_features


def specs(state: GramState, every: P, gram: P) -> GramState:
    """A partition for the Gram matrix, and one for all other arrays."""
    none = jax.tree.map(lambda _: False, state)
    of_gram = eqx.tree_at(lambda s: (s.gram.high, s.gram.low), none, (True, True))
    return jax.tree.map(lambda is_gram: gram if is_gram else every, of_gram)


def stacked_specs(state: GramState) -> GramState:
    """Of states along a first axis, one for each row of devices; columns of the Gram matrix are
    split among those of a row."""
    return specs(state, P(ROWS), P(ROWS, None, COLUMNS))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _merged_rows(mesh: Mesh, dtype: Any, stack: GramState, reference: Any) -> GramState:
    """The merge of all states, in their order, on every row of devices.

    Each device is sent a part of the rows of every Gram matrix, merges those, and sends the result
    to the others: 32 p² bytes in all for each device, whatever their number.
    """

    def constrained(tree: Any, wanted: Any) -> Any:
        shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), wanted, is_leaf=_is_spec)
        return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings)

    stack = constrained(stack, specs(stack, P(), P(None, ROWS, COLUMNS)))
    states = [jax.tree.map(lambda a, i=i: a[i], stack) for i in range(mesh.shape[ROWS])]
    total = functools.reduce(merged, states)
    if reference is not None:
        total = pairs_of_features(total, reference)
    total = _of_dtype(total, dtype)
    return constrained(total, specs(total, P(), P(None, COLUMNS)))


def _of_dtype(state: GramState, dtype: Any) -> GramState:
    """The same in pairs of a narrower dtype, which hold as many digits as they can."""
    if dtype == state.gram.high.dtype:
        return state
    names = (*HostSums._fields, "target_shift")
    pairs = {name: getattr(state, name).of_dtype(dtype) for name in names}
    return dataclasses.replace(state, **pairs, rounding=state.rounding.astype(dtype))


def _is_spec(value: Any) -> bool:
    return isinstance(value, P)


def merged_rows(
    mesh: Mesh, stack: GramState, dtype: Any, reference: Float[np.ndarray, " p"] | None = None
) -> GramState:
    """The merge in pairs of this dtype, on the first devices of this process: whole, or if a row
    has several devices with the columns of the Gram matrix split among them.

    Args:
      reference: the states are of features minus it.
    """
    total = _merged_rows(mesh, np.dtype(dtype), stack, reference)
    here = jax.process_index()
    row = next(row for row in mesh.devices if row[0].process_index == here)
    own, columns = Mesh(row[None], AXES), specs(total, P(), P(None, COLUMNS))

    def local(array: jax.Array, spec: P) -> jax.Array:
        parts = {shard.device: shard.data for shard in array.addressable_shards}
        arrays = [parts[device] for device in row]
        if len(arrays) == 1:
            return arrays[0]
        sharding = NamedSharding(own, spec)
        return jax.make_array_from_single_device_arrays(array.shape, sharding, arrays)

    return jax.tree.map(local, total, columns)


def over_processes(state: GramState, devices: Devices) -> GramState:
    """The merge of all processes' states, in every process the same bits: 32 p² bytes go over the
    network from each."""
    mesh, wanted = devices.first_rows(), stacked_specs(state)

    def stacked(array: Any, spec: P) -> jax.Array:
        sharding = NamedSharding(mesh, spec)
        shape = (mesh.shape[ROWS], *np.shape(array))
        own = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
        if not isinstance(array, jax.Array) or len(array.sharding.device_set) == 1:
            parts = dict.fromkeys(own, array)
        else:
            parts = {shard.device: shard.data for shard in array.addressable_shards}
        arrays = [jax.device_put(parts[device], device)[None] for device in own]
        return jax.make_array_from_single_device_arrays(shape, sharding, arrays)

    return merged_rows(mesh, jax.tree.map(stacked, state, wanted), state.gram.high.dtype)
