"""The error on examples that are not fitted: others, or a share held out."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from .._arguments import checked_examples, checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ..numerics._precision import on_device
from ..streaming._feature_stream import FeatureStream
from ..streaming._stream import Inputs
from ._checks import checked_groups, checked_targets
from ._decomposition import Decomposition
from ._loss import checked_loss
from ._sums import project


class Validation:
    """Mean error on other examples (x, y). One pass over their features.

    Args:
      x, y: the examples.
      loss: 'squared' or 'zero_one', as in `LeaveOneOut`.

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

    def __init__(self, x: Inputs, y: Inputs, *, loss: str = "squared"):
        self.x = checked_examples(x, "x_val")
        self.y = checked_targets(y, len(self.x), "y_val")[0]
        self.loss = checked_loss(loss, self.y)

    def scores(
        self, decomposition: Decomposition, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        units = decomposition.units
        weights = np.stack([decomposition.weights(penalty) for penalty in penalties], axis=1)
        weights = np.ldexp(weights, -units.exponent)  # no number too small for float32
        p, m, k = weights.shape
        if self.y.shape[1] != k:
            raise ValueError(f"y_val has {self.y.shape[1]} outputs but the statistics have {k}")
        every = on_device(weights.reshape(p, m * k), decomposition.dtype)
        at_mean = np.einsum("p,pmk->mk", decomposition.feature_mean, weights)
        total = np.zeros(m)
        for start, stop, z in features(self.x):
            mean = np.asarray(project(z, every))[: stop - start].astype(np.float64)
            targets = self.y[start:stop]
            residuals = units.of(targets)[:, None, :] - (mean.reshape(-1, m, k) - at_mean)
            total += self.loss(units.scale * residuals, targets[:, None, :]).sum(axis=0)
        return total / len(self.y)


class HoldOut:
    """Mean error on a random share of the examples of `ridge`, which are not fitted.

    Landmarks of the map are always fitted, with what is in their groups: left out, they would be
    predicted far worse than new examples (`LeaveOneOut` says why).

    Use it where leave-one-out costs too much (a second pass, 2 n p² FLOPs) and examples are many.
    With `refit=True` the regression of the choice is that of all examples.

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
        checked_loss(loss)
        self.share, self.key, self.loss = float(share), checked_key(key), loss

    def split(
        self,
        x: Inputs,
        y: Float[np.ndarray, "n k"],
        groups: Inputs | None = None,
        landmarks: Bool[np.ndarray, " n"] | None = None,
    ) -> tuple[Int[np.ndarray, " m"], Validation]:
        """Which examples are fitted, and the others; `landmarks` are always fitted."""
        own = checked_groups(groups, len(x))
        names, group = np.unique(np.arange(len(x)) if own is None else own, return_inverse=True)
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
        return np.flatnonzero(~out), Validation(x[out], y[out], loss=self.loss)


def validation(select: Sequence) -> Validation:
    """`select=(x_val, y_val)` as an object."""
    if len(select) != 2:
        raise ValueError(f"select is a tuple of {len(select)}; needed: (x_val, y_val)")
    return Validation(*select)
