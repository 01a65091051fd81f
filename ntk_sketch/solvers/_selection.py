"""Which regulariser: scores that estimate the mean squared error on new examples.

Every selector has `scores(spectrum, penalties, features)`: one number for each λ, smaller is
better, in the units of Y² and averaged over examples and outputs, so that scores of different
selectors can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ._checks import checked_groups, checked_inputs, checked_targets
from ._spectrum import Spectrum
from ._streaming import FeatureStream, Inputs, project


@runtime_checkable
class Selector(Protocol):
    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]: ...


class GCV:
    """Generalised cross-validation, from the statistics alone.

    (1/n) ‖Y - ZW‖² / ((1/n) trace(I - H))² per output, H(λ) = Z (ZᵀZ + λI)⁻¹ Zᵀ. Infinite where H
    interpolates all examples by degrees of freedom alone.

    In the primal form ‖Y - ZW‖² is a difference of sums, resolved to eps ‖Y‖²; scores below that
    are not told apart. Choose leave-one-out where the fit is that close.

    Source: G. H. Golub, M. Heath, G. Wahba, Technometrics 21 (1979), 215-223, eq. 1.4.
    """

    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        return np.array([spectrum.gcv(penalty) for penalty in penalties])


class Validation:
    """Mean squared error on other examples (x, y). One pass over their features."""

    def __init__(self, x: Inputs, y: Inputs):
        self.x = checked_inputs(x, "x_val")
        self.y = checked_targets(y, x.shape[0], "y_val")

    def scores(
        self, spectrum: Spectrum, penalties: Sequence[float], features: FeatureStream
    ) -> Float[np.ndarray, " m"]:
        weights = np.stack([spectrum.weights(penalty) for penalty in penalties], axis=1)
        p, m, k = weights.shape
        if self.y.shape[1] != k:
            raise ValueError(f"y_val has {self.y.shape[1]} outputs but the statistics have {k}")
        on_device = jnp.asarray(weights.reshape(p, m * k).astype(spectrum.dtype))
        total = np.zeros(m)
        for start, stop, z in features(self.x):
            mean = np.asarray(project(z, on_device))[: stop - start].astype(np.float64)
            error = mean.reshape(-1, m, k) - self.y[start:stop, None, :]
            total += np.sum(error**2, axis=(0, 2))
        return total / self.y.size


class LeaveOneOut:
    """Exact leave-one-out, or leave-one-group-out, mean squared error at fixed λ.

    With H(λ) = Z (ZᵀZ + λI)⁻¹ Zᵀ and e = (I - H) Y, the residual of example i under the regression
    that never saw it is eᵢ / (1 - Hᵢᵢ), that of a group g is (I - H_gg)⁻¹ e_g. λ is kept as it
    is: a *relative* regulariser would move a little with every example taken away.
    Infinite where a group cannot be left out (I - H_gg singular to rounding).

    Cost in the primal form: a second pass over the features and 2 n p² FLOPs on the device, then
    2 n p m (k + size of the groups) on the host for m regularisers. Nothing of that size in the
    dual form.

    Args:
      x, y: the examples of the statistics.
      groups: integers (n,); examples with equal numbers are left out together, as augmented copies
        of one image must be.

    Source: R. D. Cook, S. Weisberg, Residuals and Influence in Regression (1982), eq. 2.2.23; the
    block form is the same Woodbury identity.
    """

    def __init__(self, x: Inputs, y: Inputs, groups: Inputs | None = None):
        self.x = x
        self.y = checked_targets(y, x.shape[0])
        self.groups = checked_groups(groups, x.shape[0])

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
        order = np.argsort(groups, kind="stable")
        sizes = np.unique(groups, return_counts=True)[1]
        systems = [spectrum.residual_system(penalty) for penalty in penalties]
        coefficients = np.concatenate([c for c, _ in systems], axis=1)
        diagonals = np.stack([d for _, d in systems], axis=1)

        total = np.zeros(len(systems))
        chunks = spectrum.example_rows(lambda order: features(self.x, order), order)
        for start, rows, chunk_sizes in _whole_groups(chunks, sizes):
            targets = self.y[order[start : start + len(rows)]]
            residuals = (rows @ coefficients).reshape(len(rows), len(systems), k)
            residuals += spectrum.base * targets[:, None, :]
            for index in _by_size(chunk_sizes):
                total += _sum_left_out(
                    rows[index],
                    residuals[index],
                    diagonals,
                    spectrum.base,
                    spectrum.leverage_tolerance,
                )
        return total / self.y.size


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


def _sum_left_out(
    rows: Float[np.ndarray, "g s r"],
    residuals: Float[np.ndarray, "g s m k"],
    diagonals: Float[np.ndarray, "r m"],
    base: float,
    tolerance: float,
) -> Float[np.ndarray, " m"]:
    """Σ over groups ‖(base I + R diag(d) Rᵀ)⁻¹ e‖² for each of m regularisers."""
    size = rows.shape[1]
    total = np.zeros(diagonals.shape[1])
    if size == 1:
        complement = base + rows[:, 0] ** 2 @ diagonals
        smallest = complement.min(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = np.sum((residuals[:, 0] / complement[:, :, None]) ** 2, axis=(0, 2))
    else:
        smallest = np.empty_like(total)
        for j, d in enumerate(diagonals.T):
            complement = base * np.eye(size) + (rows * d) @ rows.transpose(0, 2, 1)
            values, vectors = np.linalg.eigh(complement)
            smallest[j] = values.min()
            with np.errstate(divide="ignore", invalid="ignore"):
                left_out = (vectors.transpose(0, 2, 1) @ residuals[:, :, j]) / values[:, :, None]
            total[j] = np.sum(left_out**2)  # rotating back keeps the norm
    scale = 1.0 if base else np.abs(diagonals).max(axis=0)
    return np.where(smallest <= tolerance * scale, np.inf, total)
