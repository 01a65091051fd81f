"""x → features, in batches of one shape: one compilation, and inputs larger than device memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Int, Shaped

from .._arguments import checked_examples, checked_integer
from .._typing import KERNELS
from ..identity._structure import once_per_structure
from ..parallel._devices import ONE, Devices
from ._batches import Batches, is_batches
from ._blocks import blocks_of, placed
from ._computed import FeatureMapLike, computed, kernel_features
from ._feature_cache import CachedFeatures, FeatureCache, checked_cache
from ._progress import Progress, reporting

FALLBACK_BATCH = 256  # for a feature map without a `batch_size` method

Inputs = Shaped[Array | np.ndarray, "..."]
Batch = tuple[int, int, Array]


def feature_spec(
    feature_map: FeatureMapLike, x: Inputs | jax.ShapeDtypeStruct, get: str, rows: int
) -> jax.ShapeDtypeStruct:
    """Shape (rows, p) and dtype of the features of a batch, without computing any.

    Raises:
      ValueError: the features have more axes than (n, p), or no width.
    """
    if get not in KERNELS:
        raise ValueError(f"get={get!r} is unknown; known: {', '.join(map(repr, KERNELS))}")
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return _feature_spec(feature_map, (rows, *x.shape[1:]), dtype, get)


@once_per_structure
def _feature_spec(feature_map: Any, shape: tuple[int, ...], dtype: Any, get: str):
    def of(rows: int):
        def features(feature_map, x):  # the array alone: what holds it need not be a pytree
            return kernel_features(feature_map(x), get)

        examples = jax.ShapeDtypeStruct((rows, *shape[1:]), dtype)
        return eqx.filter_eval_shape(features, feature_map, examples)

    rows, spec = shape[0], of(shape[0])
    if spec.shape == (rows, rows) and of(rows + 1).shape == (rows + 1, rows + 1):
        raise TypeError(
            "feature_map is a kernel function: it gives n numbers for each of n examples; "
            "needed: a feature map, such as ntk_sketch.feature_map(model, ...)"
        )
    if spec.ndim != 2:
        raise ValueError(
            f"{rows} examples of shape {shape[1:]} have {get} features of shape {spec.shape} "
            "but a regression needs one vector per example, (n, p): end the architecture in "
            "Flatten, GlobalAvgPool or GlobalSumPool (and Dense)"
        )
    if spec.shape[0] != rows or spec.shape[1] == 0:
        raise ValueError(
            f"{rows} examples have {get} features of shape {spec.shape}; needed: ({rows}, p)"
        )
    return spec


def batch_rows(
    feature_map: FeatureMapLike, n: int | None, batch_size: Any, devices: Devices = ONE
) -> int:
    """Rows of a batch: `batch_size`, else what the feature map proposes for each device; for fewer
    examples the next power of two above n, so that few programs serve every n. None: of an unknown
    number. As many on every device."""
    if batch_size is None and n == 1:
        return devices.rounded(1)
    if batch_size is None:
        propose = getattr(feature_map, "batch_size", None)
        proposed = propose() if callable(propose) else FALLBACK_BATCH
        batch_size = devices.count * checked_integer(proposed, "batch_size()")
    rows = checked_integer(batch_size, "batch_size")
    return devices.rounded(rows if n is None else min(rows, 1 << (n - 1).bit_length()))


def held_in(
    cache: FeatureCache,
    feature_map: FeatureMapLike,
    get: str,
    kind: Any,
    rows: int,
    devices: Devices,
) -> CachedFeatures:
    """The cache for features of these examples.

    Args:
      kind: shape and dtype of an example.
      rows: of a batch.

    Raises:
      ValueError: it holds something else.
    """
    examples = jax.ShapeDtypeStruct((rows, *kind.shape), kind.dtype)
    spec = feature_spec(feature_map, examples, get, rows)
    held = CachedFeatures(cache, feature_map, get, spec, kind, devices)
    held.stored()
    return held


def stream(
    feature_map: FeatureMapLike,
    x: Any,
    *,
    get: str = "ntk",
    batch_size: int | None = None,
    order: Int[np.ndarray, " n"] | None = None,
    progress: Progress = None,
    mesh: Any = None,
    cache: FeatureCache | str | os.PathLike | None = None,
    dtype: str | None = None,
) -> Iterator[Batch]:
    """Computes features of any number of examples, batch by batch.

    Use this if the features of all examples do not fit in memory, or if inputs come from a loader.
    It yields `(start, stop, z)` with features z (stop - start, p) of the examples
    `order[start:stop]`.

    All batches run one compiled program; the last one is padded, and its padding is cut off. Maps
    of the same structure share the program. On a CPU one batch is computed on each core, elsewhere
    two at a time. The next batches are computed while you use a batch.

    Args:
      feature_map, get, batch_size: as in `ridge`.
      x: inputs (n, ...); or batches of them, as in `RidgeSolution.predict`, which are regrouped.
      order: any number of indices into x; None: all of x. Not with batches.
      mesh: as in `ridge`: z is split among its devices by rows. Each of several processes streams
        its own x.
      progress: True: a bar with the rate and the time left. None: a bar on a terminal, if it takes
        more than a second. False: none. A function: called after every batch with its number of
        examples.
      cache: path of a file, or `FeatureCache(path, dtype=...)`. Features are read from the file, or
        written to it if it does not exist.
      dtype: of the numbers in the cache: 'float32', 'bfloat16', 'uint8'; None: that of the
        features. `FeatureCache` has the errors of each.

    Raises:
      TypeError, ValueError: x is not a batch of finite floating point examples.
      ValueError: features are not finite (the message names the examples); the cache holds other
        features (the message says what differs) or other examples.
      OSError: the disk is full. There is then no cache file.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from ntk_sketch.streaming import stream
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> [(start, stop, z.shape) for start, stop, z in stream(features, x, batch_size=32)]
      [(0, 32, (32, 16)), (32, 50, (18, 16))]
      >>> loader = lambda: (x[i : i + 20] for i in range(0, 50, 20))
      >>> [(start, stop) for start, stop, _ in stream(features, loader, batch_size=32)]
      [(0, 32), (32, 50)]
    """
    devices = Devices.of(mesh).alone()
    if is_batches(x):
        if order is not None:
            raise ValueError("order=... is one of an array; batches come in their own")
        rows, total = batch_rows(feature_map, None, batch_size, devices), None
        x = Batches(x, targets=False)
        kind: Any = None if cache is None else x.opened(rows, None, devices).kind
        source, alone = x.blocks(rows, None, devices), False
    else:
        x = checked_examples(x)
        total = len(x) if order is None else len(order)
        rows = batch_rows(feature_map, total, batch_size, devices)
        kind = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        source, alone = placed(blocks_of(x, None, rows, order), None, devices), total <= rows
    held = None
    if cache is not None or dtype is not None:
        checked = checked_cache(cache, dtype)
        held = held_in(checked, feature_map, get, kind, rows, devices)

    def parts():
        with reporting(progress, total, "features") as report:

            def compute(blocks):
                options = {"get": get, "progress": report, "alone": alone, "devices": devices}
                return computed(feature_map, blocks, **options)

            if held is None:
                found = compute(source)
            elif held.stored() is not None:
                found = held.read(source, report)
            else:
                found = held.written(source, compute)
            for part in found:
                start, stop, z = part.start, part.stop, part.z
                yield start, stop, z if len(z) == stop - start else z[: stop - start]

    return parts()


def batches(
    feature_map: FeatureMapLike,
    x: Inputs,
    *,
    get: str,
    batch_size: int | None,
    order: Int[np.ndarray, " n"] | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Iterator[Batch]:
    """`stream` of examples that were checked, every z of the same number of rows: those behind
    the last example are 0.
    """
    n = len(x) if order is None else len(order)
    rows = batch_rows(feature_map, n, batch_size)
    source = placed(blocks_of(x, None, rows, order), None)
    for part in computed(feature_map, source, get=get, progress=progress, alone=n <= rows):
        yield part.start, part.stop, part.z
