"""Features of several kernels in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._typing import KERNELS
from ..features import Features
from ..numerics._precision import promoted
from ..parallel._devices import ONE, Devices
from ..streaming._feature_stream import FeatureStream
from ..streaming._progress import Progress
from ..streaming._stream import FALLBACK_BATCH, FeatureMapLike, Inputs, kernel_features


class _Joined(eqx.Module):
    """The feature map whose `ntk` are the features of several kernels side by side."""

    feature_map: Any
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, x: Any) -> Features:
        features = self.feature_map(x)
        arrays = [kernel_features(features, name) for name in self.names]
        dtype = arrays[0].dtype
        for array in arrays[1:]:
            dtype = promoted(dtype, array.dtype)
        return Features(nngp=None, ntk=jnp.concatenate([a.astype(dtype) for a in arrays], axis=1))

    def batch_size(self) -> Any:
        propose = getattr(self.feature_map, "batch_size", None)
        return propose() if callable(propose) else FALLBACK_BATCH


class KernelStream:
    """Features of the kernels `names` in batches, side by side: z (rows, sum of widths)."""

    def __init__(
        self,
        feature_map: FeatureMapLike,
        names: tuple[str, ...],
        batch_size: int | None,
        progress: Progress,
        what: str = "features",
        devices: Devices = ONE,
    ):
        self.names = names
        joined, get = feature_map, names[0]
        if len(names) > 1:
            joined, get = _Joined(feature_map, names), "ntk"
        self.features = FeatureStream(joined, get, batch_size, progress, what, devices)
        self._each = [FeatureStream(feature_map, name, batch_size) for name in names]

    def widths(self, x: Inputs) -> dict[str, int]:
        return {one.get: one.spec(x).shape[1] for one in self._each}

    def slices(self, x: Inputs) -> dict[str, slice]:
        """The columns of z that belong to each kernel."""
        widths, start, found = self.widths(x), 0, {}
        for name in self.names:
            found[name] = slice(start, start + widths[name])
            start += widths[name]
        return found

    def __call__(self, x: Inputs) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yields `(start, stop, z of each kernel)`, padded with zeros as `FeatureStream` does."""
        slices = self.slices(x)
        for start, stop, z in self.features(x):
            yield start, stop, {name: z[:, columns] for name, columns in slices.items()}

    def all_of(self, x: Inputs) -> dict[str, np.ndarray]:
        """All features on the host."""
        z = self.features.all_of(x)
        return {name: z[:, columns] for name, columns in self.slices(x).items()}


def kernels_of(feature_map: FeatureMapLike, x: Inputs) -> tuple[str, ...]:
    """The kernels that a map has features of, by shapes alone; each of them (n, p).

    Raises:
      ValueError, TypeError: it has none, or they have more axes.
    """

    def arrays(feature_map, x):
        features = feature_map(x)
        return {name: getattr(features, name, None) for name in KERNELS}

    one = jax.ShapeDtypeStruct((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))
    found = eqx.filter_eval_shape(arrays, feature_map, one)
    names = tuple(name for name in KERNELS if found[name] is not None)
    for name in names or KERNELS:
        FeatureStream(feature_map, name, None).spec(x)
    return names
