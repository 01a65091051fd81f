"""Features of the same examples, pass after pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from .._arguments import checked_choice, checked_examples
from .._typing import KERNELS
from ._batches import Batches
from ._computed import Part
from ._feature_cache import checked_cache
from ._feature_map import check_feature_map
from ._feature_stream import FeatureStream
from ._progress import Progress
from ._stream import FeatureMapLike, Inputs


class _Source(NamedTuple):
    """Examples, and what goes with them."""

    x: Any
    y: Float[np.ndarray, "n k"] | None = None
    order: Int[np.ndarray, " m"] | None = None
    sample_weight: Float[np.ndarray, " n"] | None = None


class Passes:
    """Iterating is a pass over the features of all examples, in batches: computed again in each, or
    read from where they are kept.
    """

    def __init__(self, features: FeatureStream, sources: tuple[_Source, ...] = ()):
        self.features, self._sources = features, sources

    @classmethod
    def of(
        cls,
        feature_map: FeatureMapLike,
        x: Inputs,
        *,
        get: str,
        batch_size: int | None,
        progress: Progress,
        cache: Any = None,
    ) -> Passes:
        """Of one array and arguments of the user's.

        Raises:
          TypeError, ValueError: what is none of them.
        """
        check_feature_map(feature_map)
        checked_choice(get, "get", KERNELS)
        x = checked_examples(x)
        features = FeatureStream(feature_map, get, batch_size, progress)
        features.spec(x)
        if cache is not None:
            kind = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
            features.cached(checked_cache(cache), kind, x)
        return cls(features, (_Source(x),))

    def plus(self, what: str, *source: Any) -> Passes:
        """With more examples: x, and if there are some y, order and weights.

        Args:
          what: needs several passes, which batches that can be read once are refused for.
        """
        more = _Source(*source)
        if isinstance(more.x, Batches):
            more.x.check_passes(what)
        return Passes(self.features, (*self._sources, more))

    def __iter__(self) -> Iterator[Part]:
        for x, y, order, weights in self._sources:
            yield from self.features.with_targets(x, y, order, sample_weight=weights)

    @property
    def shape(self) -> tuple[int, int]:
        """Of all features of one array: (n, p)."""
        x = self._one()
        return len(x), self.features.spec(x).shape[1]

    def take(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b p"]:
        """Those of some examples of one array, in float64."""
        return self.features.all_of(self._one(), index).astype(np.float64)

    def _one(self) -> Any:
        ((x, *_),) = self._sources
        return x
