"""Training examples, and their statistics when somebody asks for them.

Of several processes each has examples of its own, and all have the same statistics.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._arguments import checked_examples, warn_of_lost_variation
from ..numerics._linalg import diagonal, transposed_product
from ..numerics._precision import promoted
from ..numerics._two_sum import Pair
from ..parallel._devices import ONE, Devices
from ..solvers._agreement import agreed
from ..solvers._checks import check_range
from ..solvers._examples import Data
from ..solvers._gram_state import GramState
from ..solvers._sums import gram_of_stream, statistics
from ..solvers._targets import centred_units
from ..streaming._batch_checks import Kind
from ..streaming._computed import Part
from ..streaming._feature_map import check_feature_map
from ..streaming._feature_stream import FeatureStream, batches_of
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from ..streaming._targets import checked_targets
from . import _checks
from ._directions import (
    Directions,
    DualDirections,
    PrimalDirections,
    gram_between,
    rotated_rows,
)
from ._flow import Flow
from ._kernel_stream import KernelStream, kernels_of


class Training:
    """Examples x (n, ...) and targets y (n, k) of a feature map, checked; nothing is computed.

    It is made in `devices.together()`. `join` follows.

    Attributes:
      kernels: those that the map has features of.
      dtype: of predictions.
      n_examples, squared_targets: the number of examples, and Σ y², of all processes.
    """

    def __init__(
        self,
        feature_map: FeatureMapLike,
        x: Any,
        y: Any,
        *,
        diag_reg: Any,
        absolute: bool,
        batch_size: int | None,
        progress: Progress,
        devices: Devices = ONE,
        names: tuple[str, str] = ("x_train", "y_train"),
    ):
        self.devices = devices
        check_feature_map(feature_map)
        _checks.refuse_traced(feature_map, x, y)
        self.diag_reg, self._absolute = _checks.checked_regulariser(diag_reg), absolute
        self.feature_map, self.batch_size, self.progress = feature_map, batch_size, progress
        self.x = checked_examples(x, names[0])
        targets, self.one_output = checked_targets(y, len(self.x), names[1])
        self.y = targets.astype(np.float64)
        warn_of_lost_variation(self.x, names[0])
        self.kernels = kernels_of(feature_map, self.x)
        specs = [FeatureStream(feature_map, k, batch_size).spec(self.x) for k in self.kernels]
        check_range(float(np.abs(self.y).max()), specs[0].dtype)
        for spec in specs:
            devices.check_width(spec.shape[1])
        self._widths = [spec.shape[1] for spec in specs]
        self.dtype = np.dtype(promoted(specs[0].dtype, jnp.float32))
        self._statistics: list[Statistics] = []
        self._warned: set[str] = set()

    def join(self, **call: Any) -> Training:
        """Compares what all processes must have in common, and counts the examples of all.

        Args:
          call: arguments that must be equal, of what JSON can hold.

        Raises:
          ValueError: in all processes, with what differs.
        """
        outputs = self.y.shape[1], self.one_output, False
        kind = Kind(tuple(self.x.shape[1:]), np.dtype(self.x.dtype), *outputs)
        call = {"diag_reg": self.diag_reg, "diag_reg_absolute_scale": bool(self._absolute)} | call
        call |= {"kernels of the map": list(self.kernels), "numbers of features": self._widths}
        about = self.kernels[0], self.batch_size
        features = FeatureStream(self.feature_map, *about, devices=self.devices)
        agreed(features, Data(self.x, self.y, kind), call)
        own = np.array([len(self.x), np.sum(self.y**2)])
        n_examples, self.squared_targets = map(float, self.devices.summed(own))
        self.n_examples = int(n_examples)
        return self

    def stream(
        self, kernels: tuple[str, ...], what: str = "predictions", *, together: bool = False
    ) -> KernelStream:
        """Of examples of this process.

        Args:
          together: other processes make such a pass too, in `devices.together()`.
        """
        devices = self.devices if together else self.devices.alone()
        settings = self.batch_size, self.progress, what, devices
        return KernelStream(self.feature_map, kernels, *settings)

    def share(self, kernels: tuple[str, ...]) -> None:
        """Makes the statistics of these kernels now if there are several processes, which need not
        make the same calls from then on."""
        if self.devices.processes is not None:
            self.statistics(kernels)

    def statistics(self, kernels: tuple[str, ...]) -> Statistics:
        """Those of these kernels and of products between them: one pass over the examples, unless
        an earlier one was of these kernels too."""
        for found in self._statistics:
            if set(kernels) <= set(found.stream.names):
                return found
        found = Statistics(self.stream(kernels, "features", together=True), self.x, self.y)
        # whatever is of fewer kernels goes, with its memory
        self._statistics = [s for s in self._statistics if not set(s.stream.names) <= set(kernels)]
        self._statistics.append(found)
        return found

    def flow(self, statistics: Statistics, kernel: str) -> Flow:
        spectrum = statistics.directions(kernel).spectrum
        penalty = self.diag_reg * (1.0 if self._absolute else spectrum.mean_square_norm)
        return Flow(spectrum.values, spectrum.kept(penalty), penalty)

    def warn_of_rank(self, statistics: Statistics, kernel: str, stacklevel: int) -> None:
        """Once for each kernel, where directions are dropped that examples have."""
        spectrum = statistics.directions(kernel).spectrum
        penalty = self.flow(statistics, kernel).penalty
        what = spectrum.deficiency(penalty)
        if spectrum.rank(penalty) >= self.n_examples:  # of few, which several processes sum too
            what = ""
        if what and kernel not in self._warned:
            self._warned.add(kernel)
            warnings.warn(
                f"the {kernel} kernel of the training features is numerically rank-deficient at"
                f" diag_reg={self.diag_reg:g}: {what}. If they matter, use a larger diag_reg or"
                " float64 features",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )


class Statistics:
    """What one pass over the features of some kernels leaves.

    Of few examples, n <= p for the widest kernel, all features (n, p); else, and of several
    processes, ZᵀZ of all kernels' features side by side. Each kernel is decomposed by its smaller
    side.
    """

    def __init__(self, stream: KernelStream, x: Inputs, y: Float[np.ndarray, "n k"]):
        self.stream, self._y, self.rows = stream, y, stream.features.rows(len(x))
        self._slices, self.widths = stream.slices(x), stream.widths(x)
        self.z: dict[str, np.ndarray] = {}
        self._state: GramState | None = None
        alone = stream.features.devices.processes is None
        if alone and len(x) <= max(self.widths.values()):
            self.z = stream.all_of(x)
        else:
            self._state = statistics(stream.features, x, y, one_output=False)
        self._directions: dict[str, Directions] = {}
        self._cross: dict[tuple[str, str], np.ndarray] = {}

    def directions(self, kernel: str) -> Directions:
        if kernel not in self._directions:
            if self._state is not None:
                found = self._primal(_block(self._state, self._slices[kernel]))
            elif len(self._y) > self.widths[kernel]:
                found = self._primal(self._state_of(self.z[kernel]))
            else:
                found = DualDirections(self.z[kernel], self._y)
            self._directions[kernel] = found
        return self._directions[kernel]

    def _primal(self, state: GramState) -> PrimalDirections:
        return PrimalDirections(state, self.stream.features.devices)

    def cross(self, kernel: str, other: str) -> Float[np.ndarray, "r q"]:
        """Coordinates in the directions of `kernel` of all functions of the other's features:
        VᵀZᵀZ' or UᵀZ'."""
        if (kernel, other) not in self._cross:
            found = self.directions(kernel)
            if isinstance(found, DualDirections):
                made = rotated_rows(found.vectors, self.z[other])
            else:
                assert isinstance(found, PrimalDirections)
                made = transposed_product(found.vectors, self._between(kernel, other))
            self._cross[kernel, other] = made
        return self._cross[kernel, other]

    def _between(self, kernel: str, other: str) -> Float[Inputs, "p q"]:
        if self._state is None:
            return gram_between(self.z[kernel], self.z[other])
        part = self._slices[kernel], self._slices[other]
        return Pair(self._state.gram.high[part], self._state.gram.low[part]).in_place()

    def _state_of(self, z: Float[np.ndarray, "n p"]) -> GramState:
        parts = (Part(a, b, part, self._y[a:b]) for a, b, part in batches_of(z, self.rows))
        spec = jax.ShapeDtypeStruct((self.rows, z.shape[1]), z.dtype)
        (n, k), devices = self._y.shape, self.stream.features.devices
        units = centred_units(self._y, promoted(spec.dtype, jnp.float32))
        return gram_of_stream(parts, k, self.rows, spec, False, units, n, devices=devices)


def _block(state: GramState, columns: slice) -> GramState:
    """The statistics of some of the features."""
    square = columns, columns
    gram = Pair(state.gram.high[square], state.gram.low[square])
    norm = np.asarray(np.sum(diagonal(gram.high) + diagonal(gram.low)))
    return dataclasses.replace(
        state,
        gram=gram,
        cross=Pair(state.cross.high[columns], state.cross.low[columns]),
        feature_norm=Pair.of_host(norm, gram.high.dtype),
        feature_sum=Pair(state.feature_sum.high[columns], state.feature_sum.low[columns]),
    )
