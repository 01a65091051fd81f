"""The sums of a regression, accumulated block by block."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._typing import Inputs
from ._adding import with_block, with_exponent
from ._gram_state import GramState
from ._host_sums import HostSums
from ._reference import of_features, pairs_of_features, reference_of
from ._targets import Units, centred_units, exponent_of

FLOAT64_FEATURES = 1024  # up to so many features CPUs multiply in float64, which costs little
_GROWTH = 20  # powers of two by which targets may outgrow their units


class RunningSums(abc.ABC):
    """The sums of `GramState`, for targets in units and features minus a reference.

    The units are given or, for targets that come block by block, those of the first block. They
    grow if a later block is much larger. The reference is the mean of the first block, see
    `_reference`.

    Attributes:
      n: number of examples so far.
    """

    def __init__(self, units: Units | None, p: int, product: np.dtype):
        """Starts empty sums.

        Args:
          p: number of features.
          product: dtype in which features are multiplied.
        """
        self.units, self._fixed = units, units is not None
        self.n, self._product = 0, np.dtype(product)
        self._reference = np.zeros(p, self._product)

    def add(
        self,
        z: Sequence[Array],
        y: Float[np.ndarray, "n k"],
        sample_weight: Float[np.ndarray, " n"] | None = None,
    ) -> None:
        """Adds one block: features in batches of one size, with zeros after the last example."""
        if self.units is None:
            self._set_units(centred_units(y, self._dtype()))
        elif not self._fixed:
            growth = exponent_of(y - self.units.shift) - self.units.exponent
            if growth > _GROWTH or (growth and self._all_targets_zero()):
                self._enlarge(growth)
        assert self.units is not None
        if not self.n:
            first = np.concatenate([np.asarray(batch) for batch in z])[: len(y)]
            self._reference = reference_of(first, self._product)
        self._add(z, self.units.of(y), sample_weight)
        self.n += len(y)

    def _enlarge(self, growth: int) -> None:
        """Makes the units larger by a power of two."""
        assert self.units is not None
        self._rescale(growth)
        self._set_units(self.units._replace(exponent=self.units.exponent + growth))

    @abc.abstractmethod
    def _dtype(self) -> np.dtype:
        """The dtype of the state."""

    @abc.abstractmethod
    def _set_units(self, units: Units) -> None: ...

    @abc.abstractmethod
    def _all_targets_zero(self) -> bool:
        """Whether all targets so far are 0 in their units: any exponent is then right."""

    @abc.abstractmethod
    def _rescale(self, growth: int) -> None:
        """Converts the sums to units that are 2^growth times as large."""

    @abc.abstractmethod
    def _add(self, z: Sequence[Array], t: Float[np.ndarray, "n k"], sample_weight: Any) -> None:
        """`add` for targets in units."""

    @abc.abstractmethod
    def state(self) -> GramState:
        """The `GramState` of the examples so far."""

    @abc.abstractmethod
    def arrays(self) -> list[np.ndarray]:
        """Arrays from which `restore` continues, with the same bits."""

    @abc.abstractmethod
    def restore(self, arrays: Sequence[np.ndarray], n: int) -> None:
        """Continues from `arrays`, which were saved after n examples."""


class OnHost(RunningSums):
    """Sums on the host, in float64. `zᵀz` is a symmetric product with half the FLOPs of others."""

    def __init__(self, p: int, k: int | None, dtype: np.dtype, units: Units | None, weighted: bool):
        super().__init__(units, p, np.dtype(np.float64 if p <= FLOAT64_FEATURES else dtype))
        self._of_state, self._weighted = dtype, weighted
        self._one_output, k = k is None, 1 if k is None else k
        shapes = HostSums((p, p), (p, k), (k,), (k,), (), (p,), ())  # pyright: ignore[reportArgumentType]
        self._sums = HostSums(*map(np.zeros, shapes))
        self._cubes, self._count = 0.0, 0

    def _dtype(self) -> np.dtype:
        return self._of_state

    def _set_units(self, units: Units) -> None:
        self.units = units

    def _all_targets_zero(self) -> bool:
        return not self._sums.target_norm.any()

    def _rescale(self, growth: int) -> None:
        for name, power in [("cross", 1), ("target_sum", 1), ("target_norm", 2)]:
            array = getattr(self._sums, name)
            np.ldexp(array, -power * growth, out=array)

    def _add(self, z: Sequence[Array], t: Float[np.ndarray, "n k"], sample_weight: Any) -> None:
        host = [np.asarray(batch) for batch in z]
        block = (host[0] if len(host) == 1 else np.concatenate(host))[: len(t)]
        block = block.astype(self._product, copy=False) - self._reference
        count, weight, z_sum, t_sum = len(t), float(len(t)), block, t
        if sample_weight is not None:
            root = np.sqrt(sample_weight)[:, None]
            block, t = block * root.astype(self._product), t * root
            z_sum, t_sum = block * root, t * root
            count, weight = int(np.sum(sample_weight > 0)), float(np.sum(sample_weight))
        targets = t.astype(self._product, copy=False)
        squares, sums = block.T @ block, self._sums
        for total, more in [
            (sums.gram, squares),
            (sums.cross, block.T @ targets),
            (sums.target_norm, np.sum(t**2, axis=0)),
            (sums.target_sum, np.sum(t_sum, axis=0)),
            (sums.feature_norm, np.trace(squares, dtype=np.float64)),
            (sums.feature_sum, np.sum(z_sum, axis=0, dtype=np.float64)),
            (sums.weight, weight),
        ]:
            total += more
        self._cubes += count * weight**2
        self._count += count

    def state(self) -> GramState:
        assert self.units is not None
        if not self._fixed and self._sums.target_norm.any():
            rms = np.sqrt(self._sums.target_norm.max() / self._sums.weight)
            growth = exponent_of(np.asarray(rms))
            if abs(growth) > _GROWTH:
                self._enlarge(growth)
        rounding = (float(np.finfo(self._product).eps) / 2) ** 2 * self._cubes
        rounding *= _size(self._sums.gram)
        self._sums = of_features(self._sums, self._reference)
        self._reference = np.zeros_like(self._reference)
        rounding /= _size(self._sums.gram) or 1.0  # `GramState.rounding_error` multiplies by it
        kind = self._of_state, self._one_output
        return GramState.of_host(
            self._sums, self.units, self._count, *kind, rounding, self._weighted
        )

    def arrays(self) -> list[np.ndarray]:
        assert self.units is not None
        scalars = np.array([self._cubes, self.units.exponent, self._count])
        return [*map(np.asarray, self._sums), self._reference, self.units.shift, scalars]

    def restore(self, arrays: Sequence[np.ndarray], n: int) -> None:
        *sums, self._reference, shift, (self._cubes, exponent, count) = arrays
        self._sums, self.units, self.n = HostSums(*sums), Units(shift, int(exponent)), n
        self._count = int(count)


def _size(gram: Float[Inputs, "p p"]) -> float:
    """The square of the number to which rounding errors are relative."""
    diagonal = np.asarray(gram).diagonal()
    return float(diagonal.max() * diagonal.sum())


class OnDevice(RunningSums):
    """Sums on the device, as pairs. Small batches are gathered into blocks of one size."""

    def __init__(
        self,
        p: int,
        k: int | None,
        dtype: np.dtype,
        units: Units | None,
        weighted: bool,
        batches: int,
    ):
        self._batches = batches
        self._state = GramState.init(p, k, dtype, weighted)
        super().__init__(units, p, self._dtype())
        if units is not None:
            self._set_units(units)

    def _dtype(self) -> np.dtype:
        return np.dtype(self._state.gram.high.dtype)

    def _set_units(self, units: Units) -> None:
        self.units, self._state = units, self._state.with_units(units)

    def _all_targets_zero(self) -> bool:
        return not self._state.target_norm.to_host().any()

    def _rescale(self, growth: int) -> None:
        self._state = _rescaled(self._state, self._state.target_exponent + np.int32(growth))

    def _add(self, z: Sequence[Array], t: Float[np.ndarray, "n k"], sample_weight: Any) -> None:
        block = (*z, *[jnp.zeros_like(z[0])] * (self._batches - len(z)))
        rows = sum(map(len, block))
        targets = np.zeros((rows, t.shape[1]), self._dtype())
        targets[: len(t)] = t
        weights = np.zeros(rows, self._dtype())
        weights[: len(t)] = 1.0 if sample_weight is None else sample_weight
        self._state = _with_block_in_place(self._state, block, targets, weights, self._reference)

    def state(self) -> GramState:
        self._state = pairs_of_features(self._state, self._reference)
        self._reference = np.zeros_like(self._reference)
        return self._state

    def arrays(self) -> list[np.ndarray]:
        return [*map(np.asarray, jax.tree.leaves(self._state)), self._reference]

    def restore(self, arrays: Sequence[np.ndarray], n: int) -> None:
        *leaves, self._reference = arrays
        structure = jax.tree.structure(self._state)
        self._state: Any = jax.tree.unflatten(structure, list(map(jax.device_put, leaves)))
        self.units, self.n = self._state.units(), n


def _with_block(state: GramState, batches: tuple[Array, ...], t: Any, weights: Any, reference: Any):
    return with_block(state, jnp.concatenate(batches), t, weights, reference)


_with_block_in_place = jax.jit(_with_block, donate_argnums=0)
_rescaled = jax.jit(with_exponent)
