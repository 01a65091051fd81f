"""`Devices`: the devices and processes that a call works on."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from ._mesh import AXES, COLUMNS, ROWS, checked_mesh, on_every, own_part, split_rows
from ._processes import Processes


class Devices:
    """The devices of this process, and the processes that work together.

    Attributes:
      mesh: the mesh of this process, with both axes; None: only JAX's default device.
      processes: all processes; None: only this one.
    """

    def __init__(
        self,
        mesh: Mesh | None = None,
        processes: Processes | None = None,
        everywhere: Mesh | None = None,
    ):
        self.mesh, self.processes, self._everywhere = mesh, processes, everywhere

    @classmethod
    def of(cls, mesh: Any) -> Devices:
        """The devices of a user's mesh.

        Raises:
          TypeError, ValueError: it is not a mesh, or has the wrong axes or processes.
        """
        if mesh is None:
            return cls()
        mesh = checked_mesh(mesh)
        own, processes = own_part(mesh), {device.process_index for device in mesh.devices.flat}
        if len(processes) == 1:
            return cls(_unless_default(own))
        numbers = collections.Counter(device.process_index for device in jax.devices())
        if len(set(numbers.values())) > 1:
            raise ValueError(
                f"processes have different numbers of devices, {dict(sorted(numbers.items()))};"
                " needed: as many in each (CUDA_VISIBLE_DEVICES, or local_device_ids of"
                " jax.distributed.initialize)"
            )
        if len(processes) < jax.process_count():
            raise ValueError(
                f"the mesh is of processes {sorted(processes)} of {jax.process_count()}; needed:"
                " devices of all of them, as jax.devices() lists, or of this one alone, as"
                " jax.local_devices() does"
            )
        return cls(_unless_default(own), Processes(), mesh)

    def alone(self) -> Devices:
        """The devices of this process only."""
        return Devices(self.mesh)

    @property
    def count(self) -> int:
        """The number of devices of this process."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def rows(self) -> int:
        """The number of parts that examples are split into in this process."""
        return 1 if self.mesh is None else self.mesh.shape[ROWS]

    def first_rows(self) -> Mesh:
        """The first row of devices of each process, which hold its statistics."""
        assert self._everywhere is not None
        first: dict[int, Any] = {}
        for row in self._everywhere.devices:
            first.setdefault(row[0].process_index, row)
        return Mesh(np.stack([first[process] for process in sorted(first)]), AXES)

    def __str__(self) -> str:
        """A short description, for one process."""
        parts = []
        if self.mesh is not None:
            parts.append(f"a mesh of {self.mesh.shape[ROWS]} x {self.mesh.shape[COLUMNS]} devices")
        if self.processes is not None:
            parts.append(f"process {jax.process_index()} of {jax.process_count()}")
        return ", ".join(parts)

    def rounded(self, rows: int) -> int:
        """The number of rows rounded up, so that all devices have equally many."""
        return -(-rows // self.count) * self.count

    def put(self, x: Any) -> jax.Array:
        """Puts a batch of examples on the devices, split among them."""
        return jax.device_put(x, None if self.mesh is None else split_rows(self.mesh))

    def put_whole(self, tree: Any) -> Any:
        """Puts whole arrays on every device."""
        return tree if self.mesh is None else jax.device_put(tree, on_every(self.mesh))

    def check_width(self, p: int) -> None:
        """
        Raises:
          ValueError: the columns of the Gram matrix cannot be split evenly.
        """
        columns = 1 if self.mesh is None else self.mesh.shape[COLUMNS]
        if p % columns:
            fitting = [c for c in range(1, columns) if p % c == 0]
            raise ValueError(
                f"the second axis of the mesh, of {columns} devices, does not divide the {p}"
                f" features, whose Gram matrix it splits by columns; needed: a second axis of"
                f" {' or '.join(map(str, fitting))} devices, or a map of another width"
            )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context for work of each process, in which an error of one ends the work of all."""
        with contextlib.nullcontext() if self.processes is None else self.processes.together():
            yield

    def step(self) -> None:
        """To be called often during work, for errors of other processes."""
        if self.processes is not None:
            self.processes.step()

    def common(self, numbers: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """The numbers of the first process, for all: machines may round differently."""
        return numbers if self.processes is None else self.processes.gathered_arrays(numbers)[0]

    def summed(self, numbers: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """The sum over all processes."""
        return numbers if self.processes is None else self.processes.summed(numbers)


ONE = Devices()


def _unless_default(mesh: Mesh) -> Mesh | None:
    default = jax.config.jax_default_device or jax.local_devices()[0]  # pyright: ignore[reportAttributeAccessIssue]
    return None if list(mesh.devices.flat) == [default] else mesh
