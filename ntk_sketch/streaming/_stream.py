"""x → features, in batches of one shape: one compilation, and inputs larger than device memory."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from .._arguments import checked_examples, checked_integer
from ..identity._structure import is_abstract_array, once_per_structure
from ..numerics._compiling import compiled_to_stream
from ._progress import Progress, reporting

KERNELS = ("nngp", "ntk")
FALLBACK_BATCH = 256  # for a feature map without a `batch_size` method

FeatureMapLike = Callable[..., Any]
"""`feature_map(x)` returns an object with attributes `nngp` and `ntk`, each (n, p) or None.

If it has them, `batch_size()` proposes the number of examples of a call, and `is_landmark(x)` says
which examples (n,) the map was made from in such a way that they are not like new ones.
"""

Inputs = Shaped[Array | np.ndarray, "..."]
Batch = tuple[int, int, Array]


def kernel_features(features: Any, get: str) -> Any:
    """The array named by `get`, or a ValueError that names what to ask for."""
    array = getattr(features, get, None)
    if array is None:
        there = [name for name in KERNELS if getattr(features, name, None) is not None]
        raise ValueError(
            f"get={get!r}, but this feature map gives {there or 'no features'}: make it with "
            f"get={get!r} (or get={KERNELS}), or pass one of {there or KERNELS} as `get` here"
        )
    return array


def feature_spec(
    feature_map: FeatureMapLike, x: Inputs, get: str, rows: int
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


def batch_rows(feature_map: FeatureMapLike, n: int, batch_size: Any) -> int:
    """Rows of a batch: `batch_size`, else what the feature map proposes; for fewer examples the
    next power of two above n, so that few programs serve every n."""
    if batch_size is None and n == 1:
        return 1
    if batch_size is None:
        propose = getattr(feature_map, "batch_size", None)
        batch_size = propose() if callable(propose) else FALLBACK_BATCH
    return min(checked_integer(batch_size, "batch_size"), 1 << (n - 1).bit_length())


@once_per_structure
def _masked_features(feature_map: Any, x: jax.ShapeDtypeStruct, get: str) -> Callable[..., Any]:
    """The compiled program of a batch: (arrays of the map, x, n_real) to features, padded rows set
    to zero, and whether the real ones are finite.

    Compiled ahead in the thread of the caller: JAX's settings, such as that of float64, hold for
    one thread.
    """
    dynamic, static = eqx.partition(feature_map, is_abstract_array)

    @jax.jit
    def masked_features(dynamic: Any, x: Shaped[Array, "b ..."], n_real: Int[Array, ""]):
        z = kernel_features(eqx.combine(dynamic, static)(x), get)
        z = jnp.where((jnp.arange(z.shape[0], dtype=n_real.dtype) < n_real)[:, None], z, 0)
        return z, jnp.all(jnp.isfinite(z))

    n_real = jax.ShapeDtypeStruct((), jnp.int32)
    return compiled_to_stream(masked_features.lower(dynamic, x, n_real))


def stream(
    feature_map: FeatureMapLike,
    x: Inputs,
    *,
    get: str = "ntk",
    batch_size: int | None = None,
    order: Int[np.ndarray, " n"] | None = None,
    progress: Progress = None,
) -> Iterator[Batch]:
    """Yields `(start, stop, z)`: features z (stop - start, p) of the examples `order[start:stop]`.

    All batches are computed by one program, the last one with copies of its last example behind it
    that are then cut off. Maps of one structure share the program. On a CPU a batch is computed on
    each core, elsewhere two at a time, also while one that was yielded is used.

    Args:
      feature_map, x, get, batch_size: as in `ridge`.
      order: indices into x (n,), in any number; None: all of x.
      progress: True: a bar with the rate and the time left. None: the same on a terminal alone, if
        it takes more than a second. False: none. A function: called after every batch with its
        number of examples.

    Raises:
      TypeError, ValueError: x is not a batch of finite floating point examples.
      ValueError: features that are not finite, with the examples they belong to.

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
    """
    x = checked_examples(x)
    n = len(x) if order is None else len(order)

    def parts():
        with reporting(progress, n, "features") as report:
            options = {"batch_size": batch_size, "order": order, "progress": report}
            for start, stop, z in batches(feature_map, x, get=get, **options):
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
    n, at_once = len(x) if order is None else len(order), _workers()
    rows = batch_rows(feature_map, n, batch_size)
    # NumPy's numbers become JAX's here, for the reason that programs are compiled here
    arrays = _on_device(eqx.filter(feature_map, _is_array))
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    program = _masked_features(feature_map, jax.ShapeDtypeStruct((rows, *x.shape[1:]), dtype), get)

    def inputs(start: int):
        index = np.minimum(np.arange(start, start + rows), n - 1)
        examples = jax.device_put(x[index if order is None else order[index]])
        return arrays, examples, np.int32(min(rows, n - start))

    def checked(start: int, future: Future):
        return _checked(start, future.result(), rows, n, get, progress)

    if 0 < n <= rows:  # one batch needs no thread of its own
        yield _checked(0, _computed(program, inputs(0)), rows, n, get, progress)
        return
    with ThreadPoolExecutor(at_once) as pool:
        pending: collections.deque[tuple[int, Future]] = collections.deque()
        try:
            for start in range(0, n, rows):
                pending.append((start, pool.submit(_computed, program, inputs(start))))
                if len(pending) > at_once:
                    yield checked(*pending.popleft())
            while pending:
                yield checked(*pending.popleft())
        finally:
            for _, future in pending:
                future.cancel()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _on_device(arrays: Any) -> Any:
    """NumPy's arrays as JAX's, sent together: one at a time they take longer than a small batch."""
    leaves, structure = jax.tree.flatten(arrays)
    at = [i for i, leaf in enumerate(leaves) if not isinstance(leaf, jax.Array)]
    for i, leaf in zip(at, jax.device_put([leaves[i] for i in at]), strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)


def _workers() -> int:
    """Batches that `stream` computes at a time.

    On a CPU one for each core: most operations on a batch that fits its caches are too small for
    XLA to divide among cores. Elsewhere two, one of them waiting for the device.
    """
    if jax.default_backend() != "cpu":
        return 2
    usable = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(usable(0)) if usable else os.cpu_count() or 1


def _computed(program: Callable, arguments: tuple) -> tuple[Array, Array]:
    return jax.block_until_ready(program(*arguments))


def _checked(start: int, result: tuple, rows: int, n: int, get: str, progress: Callable | None):
    stop = min(start + rows, n)
    z, finite = result
    if not finite:
        raise ValueError(
            f"the {get} features of examples {start} to {stop - 1} (in the order used) are not "
            f"finite although their inputs are: the feature map overflows {z.dtype}; scale the "
            "inputs or W_std down"
        )
    if progress is not None:
        progress(stop - start)
    return start, stop, z
