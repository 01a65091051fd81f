"""Iterations that one process leads and all of them work for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float

from ._devices import Devices

Map = Callable[[Float[np.ndarray, "p k"]], Float[np.ndarray, "p k"]]


class Led:
    """Sums of maps of all processes, such as products with the examples of each.

    The first process iterates and the others answer what it asks, so that they cannot part where
    machines round differently. Every sum is exchanged as float64, q arrays of q processes.

    Args:
      maps: the share of this process, of each map that is asked for.
    """

    def __init__(self, maps: Sequence[Map], devices: Devices):
        self._maps, self._devices = maps, devices
        self._exchanging = False

    def found(
        self, work: Callable[..., Sequence[Float[np.ndarray, ...]]]
    ) -> list[Float[np.ndarray, ...]]:
        """What `work(*maps)` returns, given the sums of the maps: arrays, the same in all."""
        processes = self._devices.processes
        if processes is None:
            return list(work(*self._maps))
        result: Sequence[np.ndarray] = ()
        error = ""
        if jax.process_index() == 0:
            try:
                result = work(*(self._asking(i) for i in range(len(self._maps))))
            except Exception as caught:
                if self._exchanging:  # which all have heard of
                    raise
                processes.gathered(None)
                processes.gathered(f"{type(caught).__name__}: {caught}")
                raise
            processes.gathered(None)
        else:
            while (which := processes.gathered(None)[0]) is not None:
                (v,) = processes.gathered_arrays(None)
                self._summed(which, v)
        error = processes.gathered("")[0]
        if error:
            raise RuntimeError(f"the work of all processes ends: process 0 ended by {error}")
        count = processes.gathered(len(result))[0]
        own = [*result, *[None] * (count - len(result))]
        return [processes.gathered_arrays(one)[0] for one in own]

    def _asking(self, which: int) -> Map:
        def asked(v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
            processes = self._devices.processes
            assert processes is not None
            self._exchanging = True
            processes.gathered(which)
            processes.gathered_arrays(v)
            total = self._summed(which, v)
            self._exchanging = False
            return total

        return asked

    def _summed(self, which: int, v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
        with self._devices.together():
            own = self._maps[which](v)
        return self._devices.summed(own)
