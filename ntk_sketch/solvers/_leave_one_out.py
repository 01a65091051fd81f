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
from ..streaming._sample_weights import checked_weights
from ..streaming._stream import Inputs
from ..streaming._targets import checked_targets
from ._checks import checked_groups
from ._decomposition import Decomposition, scaled
from ._left_out import LeftOut, beside_landmarks, check_enough, check_weighting, counted, too_few
from ._loss import checked_loss, loss_of, summed
from ._spectrum import Spectrum


class LeaveOneOut:
    """Exact leave-one-out, or leave-one-group-out, mean error at fixed λ.

    Use this to choose a regulariser if fits are close to interpolation, for augmented data with
    groups, or for the classification error. `GCV` needs no second pass.

    With H(λ) = Z (ZᵀZ + λI)⁻¹ Zᵀ and e = (I - H) Y, the residual of example i under the regression
    without it is eᵢ / (1 - Hᵢᵢ), and that of a group g is (I - H_gg)⁻¹ e_g. λ itself is fixed,
    although a *relative* regulariser would change a little with every example. The error is
    infinite if a group cannot be left out (I - H_gg is singular to rounding).

    With weights an example is left out with its weight: H is that of √D Z, and the mean is weighted
    by w. An example of weight 2 scores as a group of two copies.

    The mean is over the examples that are not landmarks of the map, if at least 32 such examples
    are given. A landmark has a feature of its own: its leverage is near 1, and left out it is
    predicted far worse than a new example. On ten UCI data sets with landmarks from the training
    examples, the mean over all examples was 3 to 46 times the test error at `diag_reg=1e-4`, and
    the mean over the others 0.5 to 1.3 times (`experiments/selection`).

    Cost in the primal form: a second pass over the features and 2 n p² FLOPs on the device, then
    2 n p m (k + size of the groups) on the host for m regularisers. The dual form costs much less.
    With a `sample` of b single examples: a pass over these, and beyond 4,096 features b p² FLOPs on
    the host for each regulariser and its factor, without eigenvectors.

    Args:
      x, y: the examples of the statistics; or, in place of both, batches of them as in `ridge`,
        which can be read again (then without groups).
      groups: integers (n,). Examples with equal numbers are left out together, as is needed for
        augmented copies of one image.
      sample_weight: weights of the examples, if the regression has weights. Batches hold theirs.
      loss: 'squared', in the units of y²; or, with one column of y for each class, 'zero_one': the
        share of examples whose largest prediction is not that of their class. The two may choose
        different regularisers.
      sample: the number of examples, or groups, in the mean; None: all. Set it for wide features.
      key: of `jax.random`, for the sample.

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
        sample_weight: Inputs | None = None,
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
            if sample_weight is not None:
                raise ValueError("sample_weight of batches is in them: give (x, y, sample_weight)")
            self.x, self.y, self.groups, self.sample_weight = x, None, None, None
            return
        self.x = checked_examples(x)
        self.y = checked_targets(y, len(self.x))[0]
        self.groups = checked_groups(groups, len(self.x))
        self.sample_weight = None
        if sample_weight is not None:
            self.sample_weight = checked_weights(sample_weight, len(self.x))
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
        weights = self.sample_weight
        if features.devices.processes is None:
            counts = counted(
                features, self.x, self._n_examples(), self.groups, stacklevel, sample_weight=weights
            )
        else:  # whether they are enough is for all processes to say
            counts = ~beside_landmarks(features, self.x, self.groups)
            counts = counts if weights is None else counts & (weights > 0)
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

    def _n_examples(self) -> int:
        """Those of weight > 0."""
        assert self.y is not None
        weights = self.sample_weight
        return len(self.y) if weights is None else int(np.sum(weights > 0))

    def scores(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        losses = self._of_batches if isinstance(self.x, Batches) else self._of_arrays
        total, weight, count = summed(
            features.devices, lambda: losses(decomposition, penalties, features)
        )
        if features.devices.processes is not None:
            check_enough(int(count), decomposition.n_examples)
        return total / weight

    def _of_arrays(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> tuple[Float[np.ndarray, " m"], float, int]:
        assert self.y is not None
        check_weighting(self, decomposition.weighted)
        alone = features.devices.processes is None
        if alone and self._n_examples() != decomposition.n_examples:
            raise ValueError(
                f"leave-one-out was given {self._n_examples()} examples but the statistics are of "
                f"{decomposition.n_examples}; needed: the same examples"
            )
        order, sizes = self.order(features, stacklevel=11)
        weights = None if self.sample_weight is None else self.sample_weight[order]
        roots = None if weights is None else np.sqrt(weights)
        chunks = decomposition.example_rows(lambda order: features(self.x, order), order, roots)
        if isinstance(decomposition, Spectrum):
            system = LeftOut(decomposition, penalties, loss_of(self.loss, self.y.shape[1]))
            total = _of_chunks(system, chunks, self.y[order], weights, sizes)
        elif self.groups is None:
            rows = np.concatenate([rows for _, _, rows in chunks])
            y = self.y[order].astype(np.float64)
            total = [self._of_one(decomposition, p, rows, y, weights) for p in penalties]
        else:
            raise TypeError(
                f"leaving groups out needs a Spectrum, got {type(decomposition).__name__}"
            )
        weight = float(len(order) if weights is None else np.sum(weights))
        return np.asarray(total), weight, len(order)

    def _of_one(self, decomposition: Decomposition, penalty: float, rows, y, weights) -> float:
        """Losses for one λ, before the next: decompositions may keep one factor alone."""
        roots = None if weights is None else np.sqrt(weights)
        residuals, complement = decomposition.left_out(rows, y, penalty, roots)
        if complement.min() <= decomposition.leverage_tolerance:
            return np.inf
        residuals = decomposition.units.scale * residuals / complement[:, None]
        loss = loss_of(self.loss, y.shape[1])
        if weights is None or roots is None:
            return float(loss(residuals, y).sum())
        return float((weights * loss(residuals / roots[:, None], y)).sum())

    def _of_batches(
        self, spectrum: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> tuple[Float[np.ndarray, " m"], float, int]:
        x = self.x
        assert isinstance(spectrum, Spectrum)
        loss, n = loss_of(self.loss, len(spectrum.units.shift)), spectrum.n_examples
        system, read = LeftOut(spectrum, penalties, loss), []
        others = x.where(lambda x: ~features.landmarks(x)).watched(
            lambda x, _, weights: read.append(len(x) if weights is None else np.sum(weights > 0))
        )
        total, weight, count = _sum_of_losses(others, spectrum, system, features)
        if features.devices.processes is not None:
            return total, weight, count
        if sum(read) != n or others.kind.weighted != spectrum.weighted:
            raise ValueError(
                f"leave-one-out was given {sum(read)} examples in its pass over the batches,"
                f" but the statistics are of {n}; needed: the same examples in every pass, with"
                " their weights"
            )
        if too_few(count, n, stacklevel=9):
            landmarks = x.where(features.landmarks)
            more = _sum_of_losses(landmarks, spectrum, system, features)
            total, weight = total + more[0], weight + more[1]
        return total, weight, count


def _sum_of_losses(
    x: Batches, spectrum: Spectrum, system: LeftOut, features: FeatureStream
) -> tuple[Float[np.ndarray, " m"], float, int]:
    """Over the examples of batches, each left out by itself; their weight, and their number."""
    total, weight, count = np.zeros(system.diagonals.shape[1]), 0.0, 0
    beside = collections.deque()

    def rows(_):
        for part in features.with_targets(x):
            beside.append((part.y, part.sample_weight))
            yield part.start, part.stop, part.z

    for _, _, r in spectrum.example_rows(rows, np.zeros(0, int)):
        y, weights = beside.popleft()
        if weights is None:
            total += system.sum_losses(r[:, None], y[:, None])
            weight, count = weight + len(y), count + len(y)
        elif (real := weights > 0).any():
            r, y, weights = scaled(r, np.sqrt(weights))[real], y[real], weights[real]
            total += system.sum_losses(r[:, None], y[:, None], weights[:, None])
            weight, count = weight + float(np.sum(weights)), count + len(y)
    return total, weight, count


def _of_chunks(system: LeftOut, chunks, y, weights, sizes) -> Float[np.ndarray, " m"]:
    """Losses for all λ in one pass over the rows."""
    total = np.zeros(system.diagonals.shape[1])
    for start, rows, chunk_sizes in _whole_groups(chunks, sizes):
        targets = y[start : start + len(rows)].astype(np.float64)
        own = None if weights is None else weights[start : start + len(rows)]
        for index in _by_size(chunk_sizes):
            total += system.sum_losses(
                rows[index], targets[index], None if own is None else own[index]
            )
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
