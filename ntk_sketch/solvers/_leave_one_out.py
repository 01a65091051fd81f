"""Leave-one-out, and leave-one-group-out."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_examples
from ..streaming._batches import Batches, BatchesLike, of_user
from ..streaming._feature_stream import FeatureStream
from ..streaming._stream import Inputs
from ..streaming._targets import checked_targets
from ._checks import checked_groups
from ._decomposition import Decomposition
from ._left_out import LeftOut, counted, too_few
from ._spectrum import Spectrum


class LeaveOneOut:
    """Exact leave-one-out, or leave-one-group-out, mean squared error at fixed λ.

    With H(λ) = Z (ZᵀZ + λI)⁻¹ Zᵀ and e = (I - H) Y, the residual of example i under the regression
    that never saw it is eᵢ / (1 - Hᵢᵢ), that of a group g is (I - H_gg)⁻¹ e_g. λ is kept as it
    is: a *relative* regulariser would move a little with every example taken away.
    Infinite where a group cannot be left out (I - H_gg singular to rounding).

    The mean runs over the examples that are not landmarks of the map, if it has landmarks and at
    least 32 other examples are given. A landmark has a feature of its own: its leverage is near 1,
    and left out it is predicted far worse than a new example. On ten UCI data sets with landmarks
    from the training examples the mean over all was 3 to 46 times the test error at
    `diag_reg=1e-4`, that over the others 0.5 to 1.3 times (`experiments/selection`).

    Cost in the primal form: a second pass over the features and 2 n p² FLOPs on the device, then
    2 n p m (k + size of the groups) on the host for m regularisers. Nothing of that size in the
    dual form.

    Args:
      x, y: the examples of the statistics; or in place of both batches of them, as in `ridge`, that
        can be read again (then without groups).
      groups: integers (n,); examples with equal numbers are left out together, as augmented copies
        of one image must be.

    Source: R. D. Cook, S. Weisberg, Residuals and Influence in Regression (1982), eq. 2.2.23; the
    block form is the same Woodbury identity.

    Example:
      >>> import numpy as np
      >>> from ntk_sketch.solvers import LeaveOneOut
      >>> import jax
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> y, path = np.sin(x), [1e-3, 1e-2, 0.1]
      >>> copies = np.arange(60) // 2  # two of each, left out together
      >>> len(ns.ridge(features, x, y, diag_reg=path, select=LeaveOneOut(x, y, copies)).scores)
      3
    """

    def __init__(
        self,
        x: Inputs | BatchesLike | Batches,
        y: Inputs | None = None,
        groups: Inputs | None = None,
    ):
        x = of_user(x, y)
        if isinstance(x, Batches):
            x.check_passes("leave-one-out, a second pass,")
            if groups is not None:
                raise ValueError("groups of batches are not available: give arrays x and y")
            self.x, self.y, self.groups = x, None, None
            return
        self.x = checked_examples(x)
        self.y = checked_targets(y, len(self.x))[0]
        self.groups = checked_groups(groups, len(self.x))

    def scores(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        if not isinstance(decomposition, Spectrum):
            raise TypeError(f"leave-one-out needs a Spectrum, got {type(decomposition).__name__}")
        if isinstance(self.x, Batches):
            return self._of_batches(self.x, decomposition, penalties, features)
        assert self.y is not None
        n, k = self.y.shape
        if n != decomposition.n_examples:
            raise ValueError(
                f"leave-one-out was given {n} examples but the statistics are of "
                f"{decomposition.n_examples}; needed: the same examples"
            )
        counts = counted(features, self.x, n, self.groups)
        if self.groups is None:
            order = np.flatnonzero(counts)
            sizes = np.ones(len(order), int)
        else:
            order = np.argsort(self.groups, kind="stable")
            order = order[counts[order]]
            sizes = np.unique(self.groups[order], return_counts=True)[1]
        system = LeftOut(decomposition, penalties)

        total = np.zeros(len(penalties))
        chunks = decomposition.example_rows(lambda order: features(self.x, order), order)
        for start, rows, chunk_sizes in _whole_groups(chunks, sizes):
            targets = self.y[order[start : start + len(rows)]]
            for index in _by_size(chunk_sizes):
                total += system.sum_squares(rows[index], targets[index])
        return total / (len(order) * k) * decomposition.units.scale**2

    def _of_batches(
        self,
        x: Batches,
        spectrum: Spectrum,
        penalties: Sequence[float],
        features: FeatureStream,
    ) -> Float[np.ndarray, " m"]:
        system, n = LeftOut(spectrum, penalties), spectrum.n_examples
        others = x.where(lambda x: ~features.landmarks(x))
        total = _sum_of_squares(others, spectrum, system, features)
        if others.n_read != n:
            raise ValueError(
                f"leave-one-out was given {others.n_read} examples in its pass over the batches,"
                f" but the statistics are of {n}; needed: the same examples in every pass"
            )
        count = others.n_examples
        if too_few(count, n):
            landmarks = x.where(features.landmarks)
            total, count = total + _sum_of_squares(landmarks, spectrum, system, features), n
        return total / (count * len(spectrum.units.shift)) * spectrum.units.scale**2


def _sum_of_squares(
    x: Batches, spectrum: Spectrum, system: LeftOut, features: FeatureStream
) -> Float[np.ndarray, " m"]:
    """Over the examples of batches, each left out by itself."""
    total, targets = np.zeros(system.diagonals.shape[1]), collections.deque()

    def rows(_):
        for part in features.with_targets(x):
            targets.append(part.y)
            yield part.start, part.stop, part.z

    for _, _, r in spectrum.example_rows(rows, np.zeros(0, int)):
        total += system.sum_squares(r[:, None], targets.popleft()[:, None])
    return total


def _whole_groups(
    chunks: Iterator[tuple[int, int, Float[np.ndarray, "b r"]]], sizes: Int[np.ndarray, " g"]
) -> Iterator[tuple[int, Float[np.ndarray, "b r"], Int[np.ndarray, " h"]]]:
    """Regroups chunks of consecutive rows so that no group of consecutive rows is cut.

    Yields `(start, rows, sizes)`: number of the first row, rows, and sizes of the groups in them.
    """
    ends = np.cumsum(sizes)
    start, done, kept = 0, 0, []
    for _, stop, rows in chunks:
        kept.append(rows)
        complete = int(np.searchsorted(ends, stop, side="right"))
        if complete == done:
            continue
        held = np.concatenate(kept) if len(kept) > 1 else rows
        count = int(ends[complete - 1]) - start
        yield start, held[:count], sizes[done:complete]
        start, done, kept = start + count, complete, [held[count:]]


def _by_size(sizes: Int[np.ndarray, " g"]) -> Iterator[Int[np.ndarray, "h size"]]:
    """Row numbers (groups, size) of the groups of each size, for batched linear algebra."""
    firsts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        yield firsts[sizes == size][:, None] + np.arange(size)
