"""Features in a file: written while a pass computes them, read by the passes after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._arguments import checked_choice
from ..parallel._devices import ONE, Devices
from ..storage._atomic import replacing
from ._blocks import Block
from ._computed import Part
from ._prefetch import prefetched
from ._stored import Stored, Writer, differences, keys_of

_DTYPES = ("float32", "bfloat16", "uint8")


class FeatureCache:
    """A file that keeps features for several passes over the same examples.

    Use this if computing features costs more than reading them: for `select='loo'`, for conjugate
    gradients (`ConjugateGradient`), or for several regressions with one map (other targets, weights
    or regularisers). The first pass over all examples writes the file, and later passes map it into
    memory. Features are found by the values of their example (a key of 64 bits of BLAKE2b), so that
    passes may take examples in another order, in other batches, or only some of them. An example
    that is not in the file is refused. The pass that writes the file returns features as they are
    read from it.

    The file appears when its pass has ended; an interrupted pass leaves none. It holds the
    fingerprint of the feature map and is refused by another map. (A map that is a function has no
    fingerprint, and you must take care yourself.) It has the safetensors format.

    `dtype` decides the size, n p numbers, and the rounding. `'uint8'` rounds each feature, within a
    batch, to 256 levels from its smallest to its largest value there (8 p more bytes for these
    two). Predictions on other examples use unrounded features. The table was measured on
    `protein_raw` (9,600 of 12,000 examples fitted, 768 features of two ReLU layers) and `sml`
    (3,309 of 4,137). It has the relative change of the weights and of the predictions on the other
    examples, and the change of their root mean squared error:

    | dtype | `diag_reg` | weights | predictions | error |
    |---|---|---|---|---|
    | `float32` (as computed) | all | 0 | 0 | 0 |
    | `bfloat16` | 1e-2 | 0.06, 0.02 | 3e-3, 5e-4 | 0.0 %, 0.0 % |
    | `bfloat16` | 1e-4 | 0.19, 0.12 | 2e-2, 4e-3 | -0.1 %, +0.1 % |
    | `bfloat16` | 1e-6 | 1.0, 0.21 | 5e-2, 8e-3 | -0.2 %, -0.2 % |
    | `uint8` | 1e-2 | 0.19, 0.06 | 1e-2, 2e-3 | 0.0 %, +0.1 % |
    | `uint8` | 1e-4 | 0.40, 0.30 | 6e-2, 1e-2 | +0.1 %, +0.9 % |
    | `uint8` | 1e-6 | 0.55, 0.42 | 9e-2, 2e-2 | -0.1 %, +0.7 % |

    (`python -m benchmarks.cached_features`.) Weights change along directions that hardly matter for
    predictions. A scale for each example, a scale for each feature over all examples, and 8-bit
    floats are all less accurate than such levels.

    Args:
      path: of the file, in a folder that exists.
      dtype: of the numbers in the file: 'float32', 'bfloat16', 'uint8'; None: that of the features.
        Choose a narrower one if the file would be too large.

    Raises:
      ValueError: the path is a folder, its folder does not exist, or the dtype is unknown.

    Example:
      >>> import os
      >>> import tempfile
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> from ntk_sketch.streaming import FeatureCache, stream
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     cache = FeatureCache(os.path.join(folder, "z.safetensors"), dtype="bfloat16")
      ...     first = [z for _, _, z in stream(features, x, cache=cache)]  # writes the file
      ...     again = [z for _, _, z in stream(features, x[::-1].copy(), cache=cache)]  # reads it
      >>> bool(np.allclose(again[0][::-1], first[0], rtol=2**-8))
      True
    """

    def __init__(self, path: str | os.PathLike, dtype: str | None = None):
        self.path = Path(path)
        self.dtype = None if dtype is None else checked_choice(dtype, "dtype", _DTYPES)
        if self.path.is_dir():
            raise ValueError(f"cache={str(path)!r} is a folder; needed: the path of a file")
        if not self.path.absolute().parent.is_dir():
            raise ValueError(
                f"cache={str(path)!r}: its folder {self.path.absolute().parent} does not exist;"
                " make it first"
            )


def checked_cache(cache: Any, dtype: str | None = None) -> FeatureCache:
    """A `FeatureCache`, also of a plain path.

    Raises:
      TypeError: it is neither.
    """
    if isinstance(cache, FeatureCache) and dtype is None:
        return cache
    if isinstance(cache, str | os.PathLike):
        return FeatureCache(cache, dtype)
    raise TypeError(
        f"got cache={cache!r} and dtype={dtype!r}; needed: a path and perhaps a dtype, or"
        " FeatureCache(path, dtype=...)"
    )


class CachedFeatures:
    """A cache for the features of one map and kernel.

    Args:
      spec: of a batch of features.
      x: examples or their kind, for shape and dtype.
      devices: among which batches of features are split.
    """

    def __init__(
        self,
        cache: FeatureCache,
        feature_map: Any,
        get: str,
        spec: Any,
        x: Any,
        devices: Devices = ONE,
    ):
        fingerprint = getattr(feature_map, "fingerprint", None)
        self._cache, self._spec, self._devices = cache, spec, devices
        self._dtype = cache.dtype or str(spec.dtype)
        self._about = {
            "feature map": None if fingerprint is None else str(fingerprint),
            "kernel": get,
            "number of features": spec.shape[1],
            "dtype of features": str(spec.dtype),
            "shape of examples": list(x.shape),
            "dtype of examples": str(jax.dtypes.canonicalize_dtype(x.dtype)),
            "dtype of the file": self._dtype,
        }
        self._stored: Stored | None = None

    def stored(self) -> Stored | None:
        """What the file holds; None: there is none.

        Raises:
          ValueError: a file of something else, or with what it differs in.
        """
        path = self._cache.path
        if self._stored is None and path.exists():
            found = Stored(path)
            differing = differences(found.about, self._about)
            if differing:
                raise ValueError(
                    f"cache {path} is of other features ({'; '.join(differing)}). Give another"
                    " path, or remove the file"
                )
            self._stored = found
        return self._stored

    def read(
        self, blocks: Generator[Block, None, None], progress: Callable[[int], Any]
    ) -> Generator[Part, None, None]:
        """The features of blocks, from the file, in a thread of its own."""
        stored = self.stored()
        assert stored is not None

        def parts():
            with contextlib.closing(blocks):
                for block in blocks:
                    start, stop, x = block[:3]
                    z = np.zeros((len(x), self._spec.shape[1]), self._spec.dtype)
                    z[: stop - start] = stored.features(np.asarray(x)[: stop - start], start)
                    placed = self._devices.put(z)
                    yield Part(start, stop, placed, block.y, block.sample_weight, block.digest)

        with contextlib.closing(prefetched(parts())) as found:
            for part in found:
                progress(part.stop - part.start)
                yield part

    def written(
        self,
        blocks: Generator[Block, None, None],
        compute: Callable[[Generator[Block, None, None]], Generator[Part, None, None]],
    ) -> Generator[Part, None, None]:
        """The features of blocks as `compute` makes them; at their end there is a file of them."""
        keys: list[np.ndarray] = []

        def watched():
            with contextlib.closing(blocks):
                for block in blocks:
                    keys.append(keys_of(np.asarray(block.x)[: block.stop - block.start]))
                    yield block

        with replacing(self._cache.path) as temporary, open(temporary, "rb+") as file:
            p, writer = self._spec.shape[1], None
            with contextlib.closing(compute(watched())) as parts:
                for part in parts:
                    if writer is None:
                        writer = Writer(file, p, self._about, self._dtype, len(part.z))
                    z = np.array(part.z)
                    z[: part.stop - part.start] = writer.add(z[: part.stop - part.start])
                    yield part._replace(z=self._devices.put(z))
            assert writer is not None
            writer.finish(np.concatenate(keys))
