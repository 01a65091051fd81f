"""One map's features of one kernel, of whatever examples are asked for."""

from __future__ import annotations

import collections
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..parallel._devices import ONE, Devices
from ._batch_checks import Kind
from ._batches import Batches, NoExampleError
from ._blocks import blocks_of, placed
from ._computed import FeatureMapLike, Part, computed
from ._feature_cache import CachedFeatures, FeatureCache
from ._progress import Progress, reporting
from ._stream import Batch, Inputs, batch_rows, feature_spec, held_in


class FeatureStream:
    """Features in batches, from the map or, where a pass kept them, from the host's memory.

    Every z of a pass has the same number of rows: those behind the last example are 0.
    """

    def __init__(
        self,
        feature_map: FeatureMapLike,
        get: str,
        batch_size: int | None,
        progress: Progress = None,
        what: str = "features",
        devices: Devices = ONE,
    ):
        self.feature_map, self.get, self.batch_size = feature_map, get, batch_size
        self.progress, self.what, self.devices = progress, what, devices
        self._kept: list[tuple[Any, np.ndarray]] = []
        self._on_disk: tuple[CachedFeatures, tuple[Any, ...]] | None = None
        self._some: _Some | None = None

    def rows(self, n: int | None) -> int:
        """Rows of a batch of a pass over n examples; None: of an unknown number."""
        return batch_rows(self.feature_map, n, self.batch_size, self.devices)

    def spec(self, x: Inputs | Batches) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a batch of features of x."""
        if isinstance(x, Batches):
            rows, kind = self.rows(None), self.kind(x)
            of = jax.ShapeDtypeStruct((rows, *kind.shape), kind.dtype)
            return feature_spec(self.feature_map, of, self.get, rows)
        return feature_spec(self.feature_map, x, self.get, self.rows(len(x)))

    def kind(self, x: Batches, done: Sequence[bytes] | None = None) -> Kind:
        """That of the batches, which a pass that the next one is begins with."""
        return x.opened(self.rows(None), done, self.devices).kind

    def __call__(
        self, x: Inputs | Batches, order: Int[np.ndarray, " m"] | None = None
    ) -> Iterator[Batch]:
        """Yields `(start, stop, z)` for `x[order]`, or for all of x."""
        for part in self.with_targets(x, None, order):
            yield part.start, part.stop, part.z

    def with_targets(
        self,
        x: Inputs | Batches,
        y: Float[np.ndarray, "n k"] | None = None,
        order: Int[np.ndarray, " m"] | None = None,
        done: Sequence[bytes] | None = None,
        sample_weight: Float[np.ndarray, " n"] | None = None,
    ) -> Generator[Part, None, None]:
        """Features, targets and weights of `x[order]` and so on, or of all; or of batches of them.

        Args:
          done: digests of the first batches, which are left out (`placed`).
        """
        if self._on_disk is not None and self._is_cached(x):
            yield from self._through_disk(x, y, order, done, sample_weight)
            return
        if isinstance(x, Batches):
            n, rows, some = None, self.rows(None), None
            try:
                blocks = x.blocks(rows, done, self.devices)
            except NoExampleError:
                if self.devices.processes is None:
                    raise
                return  # others may have examples
        else:
            n = len(x) if order is None else len(order)
            if n == 0:
                return
            rows = self.rows(n)
            some = self._some if self._some is not None and self._some.x is x else None
            kept = next((z for of, z in self._kept if of is x), None)
            place = order
            if some is not None and order is not None and some.holds(order):
                kept, place = some.rows, None
            if kept is not None:
                for start, stop, z in batches_of(kept, rows, place):
                    index = slice(start, stop) if order is None else order[start:stop]
                    targets = None if y is None else y[index].astype(np.float64)
                    weights = None if sample_weight is None else sample_weight[index]
                    yield Part(start, stop, z, targets, weights)
                return
            blocks = placed(blocks_of(x, y, rows, order, sample_weight), done, self.devices)
        with reporting(self.progress, n, self.what) as report:
            if done:
                report(min(len(done) * rows, len(done) * rows if n is None else n))
            alone = n is not None and n <= rows
            how = {"get": self.get, "progress": report, "alone": alone, "devices": self.devices}
            for part in computed(self.feature_map, blocks, **how):
                self.devices.step()
                if some is not None and order is None:
                    some.add(part.start, part.stop, part.z)
                yield part

    def cached(self, cache: FeatureCache, kind: Any, *given: Any) -> None:
        """Features of the first of these come from this file, or go there: those of passes over it,
        over some of it, and over others that hold examples of it.

        Args:
          kind: shape and dtype of an example.
        """
        settings = self.rows(None), self.devices
        found = held_in(cache, self.feature_map, self.get, kind, *settings)
        self._on_disk = found, tuple(one for one in given if one is not None)

    def _is_cached(self, x: Any) -> bool:
        assert self._on_disk is not None
        one_of = self._on_disk[1]
        if isinstance(x, Batches):
            return any(isinstance(one, Batches) and x.is_view_of(one) for one in one_of)
        return any(x is one for one in one_of)

    def _through_disk(self, x, y, order, done, sample_weight) -> Generator[Part, None, None]:
        assert self._on_disk is not None
        cache, (base, *_) = self._on_disk
        whole = order is None and (x.is_whole if isinstance(x, Batches) else x is base)
        if cache.stored() is None and not whole and not done:
            collections.deque(self._through_disk(base, None, None, None, None), maxlen=0)
        n = None if isinstance(x, Batches) else len(x) if order is None else len(order)
        if n == 0:
            return
        rows = self.rows(n)
        if isinstance(x, Batches):
            blocks = x.blocks(rows, done, self.devices)
        else:
            blocks = placed(blocks_of(x, y, rows, order, sample_weight), done, self.devices)
        with reporting(self.progress, n, self.what) as report:
            if done:
                report(len(done) * rows if n is None else min(len(done) * rows, n))

            def compute(blocks):
                how = {"get": self.get, "progress": report, "devices": self.devices}
                return computed(self.feature_map, blocks, **how)

            if cache.stored() is not None:
                yield from cache.read(blocks, report)
            elif whole and not done:
                yield from cache.written(blocks, compute)
            else:  # a run that goes on has not all of them
                yield from compute(blocks)

    def all_of(
        self, x: Inputs, order: Int[np.ndarray, " m"] | None = None
    ) -> Float[np.ndarray, "n p"]:
        """All features of `x[order]` on the host: n p numbers."""
        spec = self.spec(x)
        z_all = np.empty((len(x) if order is None else len(order), spec.shape[1]), spec.dtype)
        for start, stop, z in self(x, order):
            z_all[start:stop] = np.asarray(z)[: stop - start]
        return z_all

    def keep(self, x: Inputs | Batches, also: Inputs | Batches | None = None) -> None:
        """Keeps all features of x on the host for later passes over x, unless x is batches; and
        over `also`, another object if it holds the same examples.
        """
        if isinstance(x, Batches):
            return
        z = self.all_of(x)
        self._kept.append((x, z))
        if (
            also is not None
            and also is not x
            and not isinstance(also, Batches)
            and np.array_equal(also, x)
        ):
            self._kept.append((also, z))

    def keep_some(self, x: Inputs, order: Int[np.ndarray, " b"]) -> None:
        """The next pass over all of x keeps the features of `x[order]`, for later passes over
        these. `order` ascends.
        """
        spec = self.spec(x)
        self._some = _Some(x, order, np.empty((len(order), spec.shape[1]), spec.dtype))

    def landmarks(self, x: Inputs) -> Bool[np.ndarray, " n"]:
        """Which examples are landmarks of the feature map; none if it does not say."""
        is_landmark = getattr(self.feature_map, "is_landmark", None)
        return np.zeros(len(x), bool) if is_landmark is None else is_landmark(x)


class _Some:
    """Features of some examples, as a pass over all brings them."""

    def __init__(self, x: Inputs, order: Int[np.ndarray, " b"], rows: Float[np.ndarray, "b p"]):
        self.x, self.order, self.rows = x, order, rows
        self._done = 0

    def holds(self, order: Int[np.ndarray, " n"]) -> bool:
        return self._done == len(self.order) and np.array_equal(self.order, order)

    def add(self, start: int, stop: int, z: Float[Array, "n p"]) -> None:
        first, end = map(int, np.searchsorted(self.order, [start, stop]))
        self.rows[first:end] = np.asarray(z)[self.order[first:end] - start]
        if first == self._done:  # not behind a gap, which a run that goes on leaves
            self._done = end


def batches_of(
    z: Float[np.ndarray, "n p"], rows: int, order: Int[np.ndarray, " m"] | None = None
) -> Iterator[Batch]:
    n = len(z) if order is None else len(order)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        part = z[start:stop] if order is None else z[order[start:stop]]
        yield start, stop, jax.device_put(np.pad(part, ((0, rows - len(part)), (0, 0))))
