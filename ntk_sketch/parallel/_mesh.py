"""Meshes of devices: rows split examples, and columns split columns of the Gram matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

ROWS, COLUMNS = AXES = ("rows", "columns")

_NEEDED = (
    "needed: a jax.sharding.Mesh of one axis, among whose devices examples are split, such as"
    ' jax.make_mesh((4,), ("data",)), or of a second one, among whose devices the columns of the'
    " p x p Gram matrix are split"
)


def checked_mesh(mesh: Any) -> Mesh:
    """The user's mesh with two axes, named `AXES`.

    Raises:
      TypeError: it is not a mesh.
      ValueError: it has more than two axes.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh is a {type(mesh).__name__}; {_NEEDED}")
    devices = mesh.devices
    if devices.ndim > 2:
        shape = " x ".join(map(str, devices.shape))
        raise ValueError(
            f"mesh has {devices.ndim} axes ({shape}, {', '.join(map(str, mesh.axis_names))});"
            f" {_NEEDED}"
        )
    # the user's mesh may have explicit axes, which programs for one device do not support
    return Mesh(devices.reshape(len(devices), -1), AXES)


def own_part(mesh: Mesh) -> Mesh:
    """The rows of a mesh that belong to this process.

    Raises:
      ValueError: there are none, or a row has devices of several processes.
    """
    owners = [{device.process_index for device in row} for row in mesh.devices]
    if any(len(processes) > 1 for processes in owners):
        raise ValueError(
            f"the second axis of the mesh, of {mesh.shape[COLUMNS]} devices, runs over several"
            " processes, which would exchange features for every batch: lay it inside each, for"
            f" instance Mesh(numpy.array(jax.devices()).reshape(-1, c), ('data', 'columns')) with c"
            f" a divisor of jax.local_device_count() = {jax.local_device_count()}"
        )
    here = jax.process_index()
    rows = [i for i, processes in enumerate(owners) if here in processes]
    if not rows:
        raise ValueError(
            f"no device of the mesh is in this process ({here} of {jax.process_count()}): all"
            " processes of a mesh make the call, and no other"
        )
    return Mesh(mesh.devices[rows], AXES)


def on_every(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that are whole on every device."""
    return NamedSharding(mesh, P())


def split_rows(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of arrays whose `axis` of examples is split evenly among all devices."""
    return NamedSharding(mesh, P(*[None] * axis, AXES))


def shard_map(fn: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    """`jax.shard_map`, without its check that outputs held by several devices are equal."""
    if hasattr(jax, "shard_map"):
        return jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    from jax.experimental.shard_map import shard_map as older

    return older(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_rep=False)


def own_columns(z: Any, width: int) -> Any:
    """The columns of features that this device needs for its part of the Gram matrix: all, or
    inside of `shard_map` `width` of them."""
    if z.shape[1] == width:
        return z
    return lax.dynamic_slice_in_dim(z, lax.axis_index(COLUMNS) * width, width, axis=1)


def beside(tree: Any, other: Any) -> Any:
    """`other` on the devices of the arrays of `tree`, which has the same structure.

    A program takes arrays of one set of devices only. Nothing is moved under `jit`.
    """

    def moved(there: Any, array: Any) -> Any:
        if (
            not isinstance(array, jax.Array)
            or isinstance(array, Tracer)
            or isinstance(there, Tracer)
        ):
            return array
        if not isinstance(there, jax.Array):
            return np.asarray(array)
        same = there.sharding.device_set == array.sharding.device_set
        return array if same else jax.device_put(np.asarray(array), there.sharding)

    leaves, structure = jax.tree.flatten(other)
    return jax.tree.unflatten(structure, map(moved, jax.tree.leaves(tree), leaves))
