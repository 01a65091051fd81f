"""The error on examples that are not fitted: others, or a share held out."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from .._arguments import checked_examples, checked_key
from .._typing import PRNGKey
from ..identity._example_keys import example_keys
from ..numerics._host_random import generator
from ..numerics._precision import on_device
from ..streaming._batches import Batches, BatchesLike, of_user
from ..streaming._feature_stream import FeatureStream
from ..streaming._sample_weights import checked_weights
from ..streaming._stream import Inputs
from ..streaming._targets import checked_targets
from ._checks import checked_groups
from ._decomposition import Decomposition
from ._loss import checked_loss, loss_of, summed
from ._sums import project


class Validation:
    """The mean error on other examples (x, y), which takes one pass over their features.

    Use this to choose a regulariser if you have a separate validation set.

    Args:
      x, y: the examples; or, in place of both, batches of them as in `ridge`, which can be read
        again.
      loss: 'squared' or 'zero_one', as in `LeaveOneOut`.
      sample_weight: weights (n,) of the examples, for a weighted mean. Batches hold theirs.

    Example:
      >>> import numpy as np
      >>> from ntk_sketch.solvers import Validation
      >>> import jax
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> y, path = np.sin(x), [1e-3, 1e-2, 0.1]
      >>> select = Validation(x[:20], y[:20])
      >>> ns.ridge(features, x[20:], y[20:], diag_reg=path, select=select).n_examples
      40
    """

    takes_any_decomposition = True

    def __init__(
        self,
        x: Inputs | BatchesLike | Batches,
        y: Inputs | None = None,
        *,
        loss: str = "squared",
        sample_weight: Inputs | None = None,
    ):
        self.loss = checked_loss(loss)
        self.sample_weight: Float[np.ndarray, " n"] | None = None
        x = of_user(x, y)
        if isinstance(x, Batches):
            x.check_passes("a validation, whose examples may be needed again,")
            self.x: Any = x
            self.y: Float[np.ndarray, "n k"] | None = None
            return
        self.x = checked_examples(x, "x_val")
        self.y = checked_targets(y, len(self.x), "y_val")[0]
        loss_of(loss, self.y.shape[1])
        if sample_weight is not None:
            self.sample_weight = checked_weights(sample_weight, len(self.x), "sample_weight_val")

    def scores(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        units = decomposition.units
        weights = np.stack([decomposition.weights(penalty) for penalty in penalties], axis=1)
        weights = np.ldexp(weights, -units.exponent)  # no number too small for float32
        p, m, k = weights.shape
        if self.y is not None and self.y.shape[1] != k:
            raise ValueError(f"y_val has {self.y.shape[1]} outputs but the statistics have {k}")
        every = on_device(weights.reshape(p, m * k), decomposition.dtype)
        at_mean = np.einsum("p,pmk->mk", decomposition.feature_mean, weights)
        loss = loss_of(self.loss, k)

        def losses() -> tuple[Float[np.ndarray, " m"], float]:
            total, count = np.zeros(m), 0.0
            for part in features.with_targets(self.x, self.y, sample_weight=self.sample_weight):
                assert part.y is not None
                if part.y.shape[1] != k:
                    raise ValueError(
                        f"the targets of the validation have {part.y.shape[1]} outputs but the"
                        f" statistics have {k}"
                    )
                mean = np.asarray(project(part.z, every))[: len(part.y)].astype(np.float64)
                residuals = units.of(part.y)[:, None, :] - (mean.reshape(-1, m, k) - at_mean)
                losses = loss(units.scale * residuals, part.y[:, None, :])
                weights = part.sample_weight
                total += (losses if weights is None else losses * weights[:, None]).sum(axis=0)
                count += len(part.y) if weights is None else float(weights.sum())
            return total, count

        total, count = summed(features.devices, losses)
        if not count:
            raise ValueError(
                "no example is held out to choose by, or none of weight > 0: take a larger share,"
                " or select=(x_val, y_val)"
            )
        return total / count


class HoldOut:
    """The mean error on a random share of the examples of `ridge`, which are not fitted.

    Use this to choose a regulariser if there are many examples and leave-one-out costs too much (a
    second pass and 2 n p² FLOPs). With `refit=True` all examples are fitted after the choice. With
    weights the mean is weighted.

    Landmarks of the map and their groups are always fitted: left out, they would be predicted far
    worse than new examples (`LeaveOneOut` says why).

    The held-out examples are copied. Batches are not copied: each example is held out with
    probability `share`, by a hash of its values and the key, so that the same examples are held out
    in every pass and in any order. There is one pass over the batches for the fit, one for the
    scores and one for `refit`, each with the features of its examples only.

    Args:
      share: of the examples, or of the groups, whose examples stay together; 0 < share < 1.
      key: of `jax.random`, for the choice.
      loss: 'squared' or 'zero_one', as in `LeaveOneOut`.

    Example:
      >>> import numpy as np
      >>> from ntk_sketch.solvers import HoldOut
      >>> import jax
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> y, path = np.sin(x), [1e-3, 1e-2, 0.1]
      >>> select = HoldOut(0.25, key=jax.random.key(1))
      >>> ns.ridge(features, x, y, diag_reg=path, select=select, refit=True).n_examples
      60
    """

    def __init__(self, share: float = 0.2, *, key: PRNGKey, loss: str = "squared"):
        if not (isinstance(share, numbers.Real) and 0 < share < 1):
            raise ValueError(f"HoldOut(share): a share, 0 < share < 1, is needed; got {share!r}")
        self.share, self.key = float(share), checked_key(key)
        self.loss = checked_loss(loss)

    def split(
        self,
        x: Inputs,
        y: Float[np.ndarray, "n k"],
        groups: Inputs | None = None,
        landmarks: Bool[np.ndarray, " n"] | None = None,
        sample_weight: Float[np.ndarray, " n"] | None = None,
    ) -> tuple[Int[np.ndarray, " m"], Validation]:
        """Which examples are fitted, and the others; `landmarks` are always fitted."""
        own = checked_groups(groups, len(x))
        names = group = np.arange(len(x))
        if own is not None:
            names, group = np.unique(own, return_inverse=True)
        if len(names) < 2:
            raise ValueError(
                "HoldOut needs two examples, or two groups of them, at least: one to fit and one to"
                f" hold out; got {len(names)}"
            )
        free = np.arange(len(names))
        if landmarks is not None:
            free = np.setdiff1d(free, group[landmarks])
        if not len(free):
            raise ValueError(
                "HoldOut has nothing to hold out: every example (or group) is a landmark of the"
                " feature map. Take landmarks from a part of the examples, or"
                " select=(x_val, y_val)"
            )
        count = min(max(round(self.share * len(names)), 1), len(free), len(names) - 1)
        held = generator(self.key).permutation(free)[:count]
        out = np.isin(group, held)
        weights = None if sample_weight is None else sample_weight[out]
        held_out = Validation(x[out], y[out], loss=self.loss, sample_weight=weights)
        return np.flatnonzero(~out), held_out

    def views(self, x: Batches, features: FeatureStream) -> tuple[Batches, Validation]:
        """The batches that are fitted, and the others."""
        seed = generator(self.key).integers(0, 2**64, dtype=np.uint64)

        def is_held(x: np.ndarray) -> Bool[np.ndarray, " m"]:
            numbers = _mixed(example_keys(x).view(np.uint64)[:, 0] ^ seed)
            return (numbers < self.share) & ~features.landmarks(x)

        return x.where(lambda x: ~is_held(x)), Validation(x.where(is_held), loss=self.loss)


def _mixed(keys: UInt64[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A number from 0 to 1 for each key, of which every bit depends on every bit of the key: the
    finaliser of SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014).
    """
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (keys ^ (keys >> np.uint64(31))).astype(np.float64) / 2.0**64


def validation(select: Sequence) -> Validation:
    """`select=(x_val, y_val)`, or with weights, as an object."""
    if len(select) not in (2, 3):
        raise ValueError(
            f"select is a tuple of {len(select)}; needed: (x_val, y_val), or (x_val, y_val,"
            " sample_weight_val)"
        )
    return Validation(*select[:2], sample_weight=select[2] if len(select) == 3 else None)
