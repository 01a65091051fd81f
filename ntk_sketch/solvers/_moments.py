"""The sums of a regression but its Gram matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..parallel._devices import Devices
from ..streaming._computed import Part
from ._checks import check_range
from ._targets import Units, centred_units


class Moments(NamedTuple):
    """Sums of one pass, of targets in units."""

    cross: Float[np.ndarray, "p k"]
    feature_sum: Float[np.ndarray, " p"]
    target_sum: Float[np.ndarray, " k"]
    target_norm: Float[np.ndarray, " k"]
    feature_norm: Float[np.ndarray, ""]
    weight: Float[np.ndarray, ""]
    n: int
    units: Units
    dtype: np.dtype
    largest: float  # of the targets

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Moments | None:
        """Of the examples of this process; None: there are none."""
        units, dtype, n, largest = None, np.dtype(np.float32), 0, 0.0
        sums: list[Any] = [np.zeros(())] * 6
        for part in parts:
            y, count = part.y, part.stop - part.start
            assert y is not None
            weights = np.ones(count) if part.sample_weight is None else part.sample_weight
            units, dtype = units or centred_units(y, np.float64), np.dtype(part.z.dtype)
            z, t = part.rows(), units.of(y)
            more = (
                (z * weights[:, None]).T @ t,
                weights @ z,
                weights @ t,
                weights @ t**2,
                weights @ np.sum(z**2, axis=1),
                weights.sum(),
            )
            sums = [total + one for total, one in zip(sums, more, strict=True)]
            n, largest = n + int(np.sum(weights > 0)), max(largest, float(np.abs(y).max()))
        if units is None:
            return None
        return cls(*map(np.asarray, sums), n=n, units=units, dtype=dtype, largest=largest)

    @classmethod
    def over_processes(cls, of_one: Moments | None, devices: Devices) -> Moments | None:
        """Those of all processes, of which some have None: the same bits for each."""
        if devices.processes is None:
            return of_one
        told = None
        if of_one is not None:
            shift, exponent = of_one.units
            told = [str(of_one.dtype), of_one.n, of_one.largest, shift.tolist(), exponent]
        every = [one for one in devices.processes.gathered(told) if one is not None]
        if not every:
            return None
        dtype, _, _, shift, exponent = every[0]
        units = Units(np.array(shift), exponent)
        own: list[np.ndarray | None] = [None] * 6
        if of_one is not None:
            own = list(of_one._in(units)[:6])
        gathered = map(devices.processes.gathered_arrays, own)
        sums = [np.asarray(np.sum(found, axis=0)) for found in gathered]
        n, largest = sum(one[1] for one in every), max(one[2] for one in every)
        return cls(*sums, n=n, units=units, dtype=np.dtype(dtype), largest=largest)

    def _in(self, units: Units) -> Moments:
        """Of the same targets in other units: t' = factor t + change."""
        factor = float(np.ldexp(1.0, self.units.exponent - units.exponent))
        change = np.ldexp(self.units.shift - units.shift, -units.exponent)
        norm = factor**2 * self.target_norm + 2 * factor * change * self.target_sum
        return self._replace(
            cross=factor * self.cross + np.outer(self.feature_sum, change),
            target_sum=factor * self.target_sum + self.weight * change,
            target_norm=norm + self.weight * change**2,
            units=units,
        )


def checked_moments(found: Moments | None) -> Moments:
    """
    Raises:
      ValueError: of no example, or of targets that overflow.
    """
    if found is None or not found.n:
        raise ValueError("no example (of weight > 0) is left to fit: all of them are set aside")
    check_range(found.largest, found.dtype)
    return found
