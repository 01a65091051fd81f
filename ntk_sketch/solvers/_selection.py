"""Which regulariser: scores that estimate the mean squared error on new examples.

Every selector has `scores(spectrum, penalties, features)`: one number for each λ, smaller is
better, in the units of Y² and averaged over examples and outputs, so that scores of different
selectors can be compared.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from .._arguments import checked_examples, checked_key
from .._typing import PRNGKey
from ..numerics._host_random import generator
from ..numerics._precision import on_device
from ..streaming._feature_stream import FeatureStream
from ..streaming._stream import Inputs
from ._checks import checked_groups, checked_targets
from ._spectrum import Spectrum
from ._sums import project


@runtime_checkable
class Selector(Protocol):
    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]: ...


class GCV:
    """Generalised cross-validation, from the statistics alone.

    (1/n) ‖Y - ZW‖² / ((1/n) trace(I - H))² per output, H(λ) = Z (ZᵀZ + λI)⁻¹ Zᵀ (with the constant
    if there is an intercept). Infinite where H interpolates all examples by degrees of freedom
    alone.

    Both sums run over the examples that are not landmarks of the map, and n counts these, if the
    landmarks are given: see `LeaveOneOut`.

    In the primal form ‖Y - ZW‖² is a difference of sums, resolved to eps ‖Y‖²; scores below that
    are not told apart. Choose leave-one-out where the fit is that close.

    Args:
      x, y: examples of the statistics; those that are landmarks of the map are left out of the
        score, at the cost of one pass over their features. None: no example is left out. `ridge`
        gives its own.

    Source: G. H. Golub, M. Heath, G. Wahba, Technometrics 21 (1979), 215-223, eq. 1.4.

    Example:
      >>> import numpy as np
      >>> from ntk_sketch.solvers import GCV
      >>> import jax
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> y, path = np.sin(x), [1e-3, 1e-2, 0.1]
      >>> len(ns.ridge(features, x, y, diag_reg=path, select=GCV()).scores)
      3
    """

    def __init__(self, x: Inputs | None = None, y: Inputs | None = None):
        if (x is None) != (y is None):
            raise ValueError("GCV takes both x and y, or neither")
        self.x = None if x is None else checked_examples(x)
        self.y = None if self.x is None else checked_targets(y, len(self.x))[0]

    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        sums = np.array([spectrum.residual_sums(penalty) for penalty in penalties])
        residual, rounding, freedom = sums.T
        n, k = spectrum.n_examples, len(spectrum.units.shift)
        if self.x is not None and self.y is not None:
            x, landmarks = self.x, np.flatnonzero(~_counted(features, self.x, n))
            system = _LeftOut(spectrum, penalties)
            rows_of = spectrum.example_rows(lambda order: features(x, order), landmarks)
            for start, stop, rows in rows_of:
                residuals, complements = system.of(rows, self.y[landmarks[start:stop]])
                residual = residual - np.sum(residuals**2, axis=(0, 2))
                freedom = freedom - complements.sum(axis=0)
            n -= len(landmarks)
        residual = np.maximum(residual, rounding)
        least = spectrum.leverage_tolerance * (n if spectrum.base else sums[:, 2])
        with np.errstate(divide="ignore", invalid="ignore"):
            score = n * residual / freedom**2 / k * spectrum.units.scale**2
        return np.where(freedom <= least, np.inf, score)


class Validation:
    """Mean squared error on other examples (x, y). One pass over their features.

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

    def __init__(self, x: Inputs, y: Inputs):
        self.x = checked_examples(x, "x_val")
        self.y = checked_targets(y, len(self.x), "y_val")[0]

    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        units = spectrum.units
        weights = np.stack([spectrum.weights(penalty) for penalty in penalties], axis=1)
        weights = np.ldexp(weights, -units.exponent)  # no number too small for float32
        p, m, k = weights.shape
        if self.y.shape[1] != k:
            raise ValueError(f"y_val has {self.y.shape[1]} outputs but the statistics have {k}")
        every = on_device(weights.reshape(p, m * k), spectrum.dtype)
        at_mean = np.einsum("p,pmk->mk", spectrum.feature_mean, weights)
        total = np.zeros(m)
        for start, stop, z in features(self.x):
            mean = np.asarray(project(z, every))[: stop - start].astype(np.float64)
            error = mean.reshape(-1, m, k) - at_mean - units.of(self.y[start:stop])[:, None, :]
            total += np.sum(error**2, axis=(0, 2))
        return total / self.y.size * units.scale**2


class HoldOut:
    """Mean squared error on a random share of the examples of `ridge`, which are not fitted.

    Use it where leave-one-out costs too much (a second pass, 2 n p² FLOPs) and examples are many.
    With `refit=True` the regression of the choice is that of all examples.

    Args:
      share: of the examples, or of the groups, whose examples stay together; 0 < share < 1.
      key: of `jax.random`, for the choice.

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

    def __init__(self, share: float = 0.2, *, key: PRNGKey):
        if not (isinstance(share, numbers.Real) and 0 < share < 1):
            raise ValueError(f"HoldOut(share): a share, 0 < share < 1, is needed; got {share!r}")
        self.share, self.key = float(share), checked_key(key)

    def split(
        self, x: Inputs, y: Float[np.ndarray, "n k"], groups: Inputs | None
    ) -> tuple[Int[np.ndarray, " m"], Validation]:
        """Which examples are fitted, and the others."""
        own = checked_groups(groups, len(x))
        names, group = np.unique(np.arange(len(x)) if own is None else own, return_inverse=True)
        if len(names) < 2:
            raise ValueError(
                "HoldOut needs two examples, or two groups of them, at least: one to fit and one to"
                f" hold out; got {len(names)}"
            )
        count = min(max(round(self.share * len(names)), 1), len(names) - 1)
        held = generator(self.key).permutation(len(names))[:count]
        out = np.isin(group, held)
        return np.flatnonzero(~out), Validation(x[out], y[out])


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
      x, y: the examples of the statistics.
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

    def __init__(self, x: Inputs, y: Inputs, groups: Inputs | None = None):
        self.x = checked_examples(x)
        self.y = checked_targets(y, len(self.x))[0]
        self.groups = checked_groups(groups, len(self.x))

    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        n, k = self.y.shape
        if n != spectrum.n_examples:
            raise ValueError(
                f"leave-one-out was given {n} examples but the statistics are of "
                f"{spectrum.n_examples}; needed: the same examples"
            )
        groups = np.arange(n) if self.groups is None else self.groups
        counted = _counted(features, self.x, n)
        if not counted.all():  # nor what is left out together with a landmark
            counted &= ~np.isin(groups, groups[~counted])
        order = np.argsort(groups, kind="stable")
        order = order[counted[order]]
        sizes = np.unique(groups[order], return_counts=True)[1]
        system = _LeftOut(spectrum, penalties)

        total = np.zeros(len(penalties))
        chunks = spectrum.example_rows(lambda order: features(self.x, order), order)
        for start, rows, chunk_sizes in _whole_groups(chunks, sizes):
            targets = self.y[order[start : start + len(rows)]]
            for index in _by_size(chunk_sizes):
                total += system.sum_squares(rows[index], targets[index])
        return total / (len(order) * k) * spectrum.units.scale**2


_FEWEST = 32  # examples from which an error is estimated


def _counted(features: FeatureStream, x: Inputs, n: int) -> Bool[np.ndarray, " n"]:
    """Which examples are like new ones: all but landmarks, or all if too few remain of n."""
    landmarks = features.landmarks(x)
    left = n - int(landmarks.sum())
    if left < min(_FEWEST, n):
        warnings.warn(
            f"{n - left} of {n} examples are landmarks of the feature map, and too few others are "
            "left to estimate an error from: all count in the scores, which are too large for "
            "small diag_reg. Take landmarks from a part of the examples (a smaller width, or fewer "
            "examples in feature_map), or select=(x_val, y_val)",
            RuntimeWarning,
            stacklevel=5,
        )
        return np.full(len(landmarks), True)
    return ~landmarks


class _LeftOut:
    """Residuals of examples that are left out, for m regularisers at once."""

    def __init__(self, spectrum: Spectrum, penalties: Sequence[float]):
        systems = [spectrum.residual_system(penalty) for penalty in penalties]
        self.spectrum = spectrum
        self.coefficients = np.stack([c for c, _ in systems])
        self.diagonals = np.stack([d for _, d in systems], axis=1)
        largest = np.abs(self.diagonals).max(axis=0)
        self.tolerance = spectrum.leverage_tolerance * (1.0 if spectrum.base else largest)

    def of(
        self, rows: Float[np.ndarray, "b r"], y: Float[np.ndarray, "b k"]
    ) -> tuple[Float[np.ndarray, "b m k"], Float[np.ndarray, "b m"]]:
        """Residuals `(I - H) T` of examples and their `(I - H)ᵢᵢ`."""
        m, r, k = self.coefficients.shape
        flat = self.coefficients.transpose(1, 0, 2).reshape(r, m * k)
        residuals = (rows @ flat).reshape(len(rows), m, k)
        residuals += self.spectrum.base * self.spectrum.units.of(y)[:, None, :]
        return residuals, self.spectrum.base + rows**2 @ self.diagonals

    def sum_squares(
        self, rows: Float[np.ndarray, "g s r"], y: Float[np.ndarray, "g s k"]
    ) -> Float[np.ndarray, " m"]:
        """Σ over groups of equal size ‖(base I + R diag(d) Rᵀ)⁻¹ e‖²."""
        groups, size, _ = rows.shape
        residuals, complement = self.of(
            rows.reshape(groups * size, -1), y.reshape(groups * size, -1)
        )
        if size == 1:
            smallest = complement.min(axis=0)
            with np.errstate(divide="ignore", invalid="ignore"):
                total = np.sum((residuals / complement[:, :, None]) ** 2, axis=(0, 2))
            return np.where(smallest <= self.tolerance, np.inf, total)
        residuals = residuals.reshape(groups, size, *residuals.shape[1:])
        smallest, total = np.empty((2, residuals.shape[2]))
        for j, d in enumerate(self.diagonals.T):
            complement = self.spectrum.base * np.eye(size) + (rows * d) @ rows.transpose(0, 2, 1)
            values, vectors = np.linalg.eigh(complement)
            smallest[j] = values.min()
            with np.errstate(divide="ignore", invalid="ignore"):
                left_out = (vectors.transpose(0, 2, 1) @ residuals[:, :, j]) / values[:, :, None]
            total[j] = np.sum(left_out**2)  # rotating back keeps the norm
        return np.where(smallest <= self.tolerance, np.inf, total)


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
