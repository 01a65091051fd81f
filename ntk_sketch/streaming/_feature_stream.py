"""One map's features of one kernel, of whatever examples are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._progress import Progress, reporting
from ._stream import Batch, FeatureMapLike, Inputs, batch_rows, batches, feature_spec


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
    ):
        self.feature_map, self.get, self.batch_size = feature_map, get, batch_size
        self.progress, self.what = progress, what
        self._kept: list[tuple[Inputs, np.ndarray]] = []
        self._some: _Some | None = None

    def rows(self, n: int) -> int:
        """Rows of a batch of a pass over n examples."""
        return batch_rows(self.feature_map, n, self.batch_size)

    def spec(self, x: Inputs) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a batch of features of x."""
        return feature_spec(self.feature_map, x, self.get, self.rows(len(x)))

    def __call__(self, x: Inputs, order: Int[np.ndarray, " n"] | None = None) -> Iterator[Batch]:
        """Yields `(start, stop, z)` for `x[order]`, or for all of x."""
        n = len(x) if order is None else len(order)
        if n == 0:
            return
        kept = next((z for of, z in self._kept if of is x), None)
        if kept is not None:
            yield from batches_of(kept, self.rows(n), order)
            return
        some = self._some if self._some is not None and self._some.x is x else None
        if some is not None and order is not None and some.holds(order):
            yield from batches_of(some.rows, self.rows(n))
            return
        with reporting(self.progress, n, self.what) as report:
            options = {"batch_size": self.batch_size, "order": order, "progress": report}
            for start, stop, z in batches(self.feature_map, x, get=self.get, **options):
                if some is not None and order is None:
                    some.add(start, stop, z)
                yield start, stop, z

    def all_of(
        self, x: Inputs, order: Int[np.ndarray, " n"] | None = None
    ) -> Float[np.ndarray, "n p"]:
        """All features of `x[order]` on the host: n p numbers."""
        spec = self.spec(x)
        z_all = np.empty((len(x) if order is None else len(order), spec.shape[1]), spec.dtype)
        for start, stop, z in self(x, order):
            z_all[start:stop] = np.asarray(z)[: stop - start]
        return z_all

    def keep(self, x: Inputs, also: Inputs | None = None) -> None:
        """Keeps all features of x on the host for later passes over x; and over `also`, another
        object if it holds the same examples.
        """
        z = self.all_of(x)
        self._kept.append((x, z))
        if also is not None and also is not x and np.array_equal(also, x):
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
        end = int(np.searchsorted(self.order, stop))
        self.rows[self._done : end] = np.asarray(z)[self.order[self._done : end] - start]
        self._done = end


def batches_of(
    z: Float[np.ndarray, "n p"], rows: int, order: Int[np.ndarray, " n"] | None = None
) -> Iterator[Batch]:
    n = len(z) if order is None else len(order)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        part = z[start:stop] if order is None else z[order[start:stop]]
        yield start, stop, jax.device_put(np.pad(part, ((0, rows - len(part)), (0, 0))))
