"""One pass over test examples: means, covariances and random functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..numerics._precision import on_device
from ..solvers._sums import project
from ._gaussians import Parts, Process
from ._kernel_stream import KernelStream
from ._missing import Missing

Weights = dict[str, np.ndarray]
"""Of q functions that are linear in the features of some kernels: (p, q) for each of these."""


def evaluate(
    stream: KernelStream,
    x: Any,
    functions: Sequence[Weights],
    dtype: np.dtype,
    each: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> list[np.ndarray]:
    """Values of the functions at x.

    Args:
      each: called with every batch too.
    """
    on = [{name: on_device(w, dtype) for name, w in weights.items()} for weights in functions]
    on = stream.features.devices.put_whole(on)
    found = [np.empty((len(x), next(iter(w.values())).shape[1]), dtype) for w in functions]
    for start, stop, z in stream(x):
        for values, weights in zip(found, on, strict=True):
            products = [project(z[name].astype(dtype), w) for name, w in weights.items()]
            values[start:stop] = np.sum(list(map(np.asarray, products)), axis=0)[: stop - start]
        if each is not None:
            each(start, stop, z)
    return found


class Spread:
    """Covariances of processes at test examples, batch by batch.

    Args:
      missing: what features miss of the prior variances, to be added; it gets the batches from
        here. None: nothing is added.
      full: of all pairs of examples; else the variances, with the memory of one batch.
    """

    def __init__(
        self,
        found: Sequence[Process],
        m: int,
        times: Float[np.ndarray, " t"],
        missing: Missing | None,
        full: bool,
    ):
        self._processes, self._times, self._missing, self._full = found, times, missing, full
        self._parts: list[list[Parts]] = [[] for _ in found]
        self._variances = [np.zeros((len(times), m)) for _ in found]

    def __call__(self, start: int, stop: int, z: dict[str, Any]) -> None:
        """Takes the features of a batch."""
        if self._missing is not None:
            self._missing(start, stop, z)
        for i, process in enumerate(self._processes):
            parts = Parts(*(part[: stop - start] for part in process.parts(z)))
            if self._full:
                self._parts[i].append(parts)
                continue
            for t, tau in enumerate(self._times):
                factor = process.factor(parts, tau)
                self._variances[i][t, start:stop] = np.sum(factor**2, axis=1)

    def covariances(self) -> list[np.ndarray]:
        """(times, m, m) or (times, m) for each process, after the last batch."""
        found = self._variances
        if self._full:
            found = list(map(self._of_pairs, self._processes, self._parts))
        if self._missing is None:
            return found
        added = [self._missing.variances[process.prior] for process in self._processes]
        if self._full:
            added = list(map(np.diag, added))
        return [cov + more for cov, more in zip(found, added, strict=True)]

    def _of_pairs(self, process: Process, batches: list[Parts]) -> Float[np.ndarray, "t m m"]:
        parts = Parts(*map(np.concatenate, zip(*batches, strict=True)))
        factors = (process.factor(parts, tau) for tau in self._times)
        return np.stack([factor @ factor.T for factor in factors])
