"""Leave-one-out, and leave-one-group-out."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_examples, checked_integer, checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ..streaming._batches import Batches, BatchesLike, of_user
from ..streaming._feature_stream import FeatureStream
from ..streaming._stream import Inputs
from ..streaming._targets import checked_targets
from ._checks import checked_groups
from ._decomposition import Decomposition
from ._left_out import LeftOut, counted, too_few
from ._loss import checked_loss, loss_of
from ._spectrum import Spectrum


class LeaveOneOut:
    """Exact leave-one-out, or leave-one-group-out, mean error at fixed λ.

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
    dual form. With a `sample` of b examples, one at a time: a pass over these, and beyond 4,096
    features b p² FLOPs on the host for each regulariser and its factor, without eigenvectors.

    Args:
      x, y: the examples of the statistics; or in place of both batches of them, as in `ridge`, that
        can be read again (then without groups).
      groups: integers (n,); examples with equal numbers are left out together, as augmented copies
        of one image must be.
      loss: 'squared', in the units of y²; or, with one column of y for each class, 'zero_one': the
        share of examples whose largest prediction is not that of their class. The regulariser
        that is best for one is not best for the other.
      sample: the mean runs over so many examples, or groups; None: over all.
      key: of `jax.random`, which the sample is drawn with.

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
        *,
        loss: str = "squared",
        sample: int | None = None,
        key: PRNGKey | None = None,
    ):
        self.loss = checked_loss(loss)
        self.sample = None if sample is None else checked_integer(sample, "sample")
        if (sample is None) != (key is None):
            raise ValueError(
                "LeaveOneOut: sample=count and key=jax.random.key(...) go together, count examples"
                f" are drawn with the key; got sample={sample!r} and key={key!r}"
            )
        self.key = None if key is None else checked_key(key)
        x = of_user(x, y)
        if isinstance(x, Batches):
            x.check_passes("leave-one-out, a second pass,")
            for name, value in (("groups", groups), ("a sample", sample)):
                if value is not None:
                    raise ValueError(f"{name} of batches: not available; give arrays x and y")
            self.x, self.y, self.groups = x, None, None
            return
        self.x = checked_examples(x)
        self.y = checked_targets(y, len(self.x))[0]
        self.groups = checked_groups(groups, len(self.x))
        loss_of(loss, self.y.shape[1])

    @property
    def takes_any_decomposition(self) -> bool:
        """A factor for every λ costs less where few examples are left out, one at a time."""
        return self.sample is not None and self.groups is None

    def order(
        self, features: FeatureStream, stacklevel: int = 6
    ) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " g"]]:
        """The examples that the mean runs over, those of a group together, and sizes of groups."""
        assert not isinstance(self.x, Batches)
        counts = counted(features, self.x, len(self.x), self.groups, stacklevel)
        if self.sample is not None and self.key is not None:
            rng = generator(self.key)
            if self.groups is None:
                drawn = np.zeros(len(counts), bool)
                drawn[rng.permutation(np.flatnonzero(counts))[: self.sample]] = True
            else:
                names = np.unique(self.groups[counts])
                drawn = np.isin(self.groups, rng.permutation(names)[: self.sample])
            counts = counts & drawn
        if self.groups is None:
            order = np.flatnonzero(counts)
            return order, np.ones(len(order), int)
        order = np.argsort(self.groups, kind="stable")
        order = order[counts[order]]
        return order, np.unique(self.groups[order], return_counts=True)[1]

    def scores(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        if isinstance(self.x, Batches):
            assert isinstance(decomposition, Spectrum)
            return self._of_batches(self.x, decomposition, penalties, features)
        assert self.y is not None
        if len(self.y) != decomposition.n_examples:
            raise ValueError(
                f"leave-one-out was given {len(self.y)} examples but the statistics are of "
                f"{decomposition.n_examples}; needed: the same examples"
            )
        order, sizes = self.order(features, stacklevel=7)
        chunks = decomposition.example_rows(lambda order: features(self.x, order), order)
        if isinstance(decomposition, Spectrum):
            total = self._by_spectrum(decomposition, penalties, chunks, self.y[order], sizes)
        elif self.groups is None:
            rows = np.concatenate([rows for _, _, rows in chunks])
            y = self.y[order].astype(np.float64)
            total = [self._of_one(decomposition, p, rows, y) for p in penalties]
        else:
            raise TypeError(
                f"leaving groups out needs a Spectrum, got {type(decomposition).__name__}"
            )
        return np.asarray(total) / len(order)

    def _by_spectrum(self, spectrum: Spectrum, penalties, chunks, y, sizes):
        """Losses for all λ in one pass over the rows."""
        system = LeftOut(spectrum, penalties, loss_of(self.loss, y.shape[1]))
        total = np.zeros(len(penalties))
        for start, rows, chunk_sizes in _whole_groups(chunks, sizes):
            targets = y[start : start + len(rows)].astype(np.float64)
            for index in _by_size(chunk_sizes):
                total += system.sum_losses(rows[index], targets[index])
        return total

    def _of_one(self, decomposition: Decomposition, penalty: float, rows, y) -> float:
        """Losses for one λ, before the next: decompositions may keep one factor alone."""
        residuals, complement = decomposition.left_out(rows, y, penalty)
        if complement.min() <= decomposition.leverage_tolerance:
            return np.inf
        residuals = decomposition.units.scale * residuals / complement[:, None]
        return float(loss_of(self.loss, y.shape[1])(residuals, y).sum())

    def _of_batches(
        self,
        x: Batches,
        spectrum: Spectrum,
        penalties: Sequence[float],
        features: FeatureStream,
    ) -> Float[np.ndarray, " m"]:
        loss, n = loss_of(self.loss, len(spectrum.units.shift)), spectrum.n_examples
        system = LeftOut(spectrum, penalties, loss)
        others = x.where(lambda x: ~features.landmarks(x))
        total = _sum_of_losses(others, spectrum, system, features)
        if others.n_read != n:
            raise ValueError(
                f"leave-one-out was given {others.n_read} examples in its pass over the batches,"
                f" but the statistics are of {n}; needed: the same examples in every pass"
            )
        count = others.n_examples
        if too_few(count, n):
            landmarks = x.where(features.landmarks)
            total, count = total + _sum_of_losses(landmarks, spectrum, system, features), n
        return total / count


def _sum_of_losses(
    x: Batches, spectrum: Spectrum, system: LeftOut, features: FeatureStream
) -> Float[np.ndarray, " m"]:
    """Over the examples of batches, each left out by itself."""
    total, targets = np.zeros(system.diagonals.shape[1]), collections.deque()

    def rows(_):
        for part in features.with_targets(x):
            targets.append(part.y)
            yield part.start, part.stop, part.z

    for _, _, r in spectrum.example_rows(rows, np.zeros(0, int)):
        total += system.sum_losses(r[:, None], targets.popleft()[:, None])
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
