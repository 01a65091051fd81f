"""Which devices of which processes a call works on."""

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
      mesh: this process's own, with both axes; None: JAX's default device alone.
      processes: None: this one.
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
        """Of what the user gave.

        Raises:
          TypeError, ValueError: no mesh, or one of other axes or processes than are needed.
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
        """Those of this process."""
        return Devices(self.mesh)

    @property
    def count(self) -> int:
        """Of this process."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def rows(self) -> int:
        """Shares of the examples in this process."""
        return 1 if self.mesh is None else self.mesh.shape[ROWS]

    def first_rows(self) -> Mesh:
        """The first row of devices of each process, which hold its statistics."""
        assert self._everywhere is not None
        first: dict[int, Any] = {}
        for row in self._everywhere.devices:
            first.setdefault(row[0].process_index, row)
        return Mesh(np.stack([first[process] for process in sorted(first)]), AXES)

    def __str__(self) -> str:
        """In a few words, of one process."""
        parts = []
        if self.mesh is not None:
            parts.append(f"a mesh of {self.mesh.shape[ROWS]} x {self.mesh.shape[COLUMNS]} devices")
        if self.processes is not None:
            parts.append(f"process {jax.process_index()} of {jax.process_count()}")
        return ", ".join(parts)

    def rounded(self, rows: int) -> int:
        """So many rows, or a few more: as many on every device."""
        return -(-rows // self.count) * self.count

    def put(self, x: Any) -> jax.Array:
        """A batch of examples, split among all devices."""
        return jax.device_put(x, None if self.mesh is None else split_rows(self.mesh))

    def put_whole(self, tree: Any) -> Any:
        """Arrays, whole on every device."""
        return tree if self.mesh is None else jax.device_put(tree, on_every(self.mesh))

    def check_width(self, p: int) -> None:
        """
        Raises:
          ValueError: columns of the Gram matrix that cannot be split.
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
        """Work of each process's own; an error of one ends that of all."""
        with contextlib.nullcontext() if self.processes is None else self.processes.together():
            yield

    def step(self) -> None:
        """To be called often by whoever works."""
        if self.processes is not None:
            self.processes.step()

    def common(self, numbers: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Those of the first process, so that all go on alike: machines may round differently."""
        return numbers if self.processes is None else self.processes.gathered_arrays(numbers)[0]

    def summed(self, numbers: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Over the processes."""
        return numbers if self.processes is None else self.processes.summed(numbers)


ONE = Devices()


def _unless_default(mesh: Mesh) -> Mesh | None:
    default = jax.config.jax_default_device or jax.local_devices()[0]  # pyright: ignore[reportAttributeAccessIssue]
    return None if list(mesh.devices.flat) == [default] else mesh
