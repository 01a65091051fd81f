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
from jaxtyping import Array, Float, Int, Shaped

from .._structure import is_abstract_array, once_per_structure
from ._gram_state import GramState

KERNELS = ("nngp", "ntk")
BLOCK_ROWS = 1024  # rows of one update of the Gram matrix, see GramState.update
FALLBACK_BATCH = 256  # for a feature map without a `batch_size` method

FeatureMapLike = Callable[..., Any]
"""`feature_map(x)` returns an object with attributes `nngp` and `ntk`, each (n, p) or None."""

Inputs = Shaped[Array | np.ndarray, "..."]
Progress = Callable[[int], Any]

FeatureStream = Callable[..., Iterator[tuple[int, int, Array]]]
"""`stream` with everything but the examples, and perhaps their order, already given."""


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


def feature_spec(feature_map: FeatureMapLike, x: Inputs, get: str) -> jax.ShapeDtypeStruct:
    """Shape (2, p) and dtype of the features of two examples, without computing any.

    Raises:
      ValueError: the features have more axes than (n, p), or no width.
    """
    if get not in KERNELS:
        raise ValueError(f"get={get!r} is unknown; known: {', '.join(map(repr, KERNELS))}")
    return _feature_spec(feature_map, x.shape[1:], jax.dtypes.canonicalize_dtype(x.dtype), get)


@once_per_structure
def _feature_spec(feature_map: Any, shape: tuple[int, ...], dtype: Any, get: str):
    struct = jax.ShapeDtypeStruct((2, *shape), dtype)
    spec = kernel_features(eqx.filter_eval_shape(feature_map, struct), get)
    if spec.ndim != 2:
        raise ValueError(
            f"two examples of shape {shape} have {get} features of shape {spec.shape} "
            "but a regression needs one vector per example, (n, p): end the architecture in "
            "Flatten, GlobalAvgPool or GlobalSumPool (and Dense)"
        )
    if spec.shape[0] != 2 or spec.shape[1] == 0:
        raise ValueError(f"two examples have {get} features of shape {spec.shape}; needed: (2, p)")
    return spec


def batch_rows(feature_map: FeatureMapLike, n: int, batch_size: Any) -> int:
    """Rows of a batch: `batch_size`, else what the feature map proposes; for fewer examples the
    next power of two above n, so that few programs serve every n."""
    if batch_size is None:
        propose = getattr(feature_map, "batch_size", None)
        batch_size = propose() if callable(propose) else FALLBACK_BATCH
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
        raise TypeError(f"batch_size={batch_size!r}; needed: a positive integer or None")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; needed: a positive integer or None")
    return min(int(batch_size), 1 << (n - 1).bit_length())


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
        z = jnp.where((jnp.arange(z.shape[0]) < n_real)[:, None], z, 0)
        return z, jnp.all(jnp.isfinite(z))

    return masked_features.lower(dynamic, x, jax.ShapeDtypeStruct((), jnp.int32)).compile()


def stream(
    feature_map: FeatureMapLike,
    x: Inputs,
    *,
    get: str = "ntk",
    batch_size: int | None = None,
    order: Int[np.ndarray, " n"] | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[int, int, Float[Array, "b p"]]]:
    """Yields `(start, stop, z)`: features z (b, p) of the examples `order[start:stop]`.

    The last batch is padded with copies of its last example, whose features are then zeroed: every
    z has the same number b of rows, of which `stop - start` count: `batch_size`, or the next power
    of two above n if that is less. On a CPU a batch is computed on each core, elsewhere two at a
    time, also while one that was yielded is used. One program for each structure of the map, shape
    of a batch and dtype.

    Args:
      feature_map, x, get, batch_size: as in `ridge`.
      order: indices into x (n,), in any number; None: all of x.
      progress: called after every batch with its number of examples; `tqdm(...).update` fits.

    Raises:
      ValueError: features that are not finite, with the examples they belong to.
    """
    n, at_once = len(x) if order is None else len(order), _workers()
    rows = batch_rows(feature_map, n, batch_size)
    arrays = eqx.filter(feature_map, _is_array)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    program = _masked_features(feature_map, jax.ShapeDtypeStruct((rows, *x.shape[1:]), dtype), get)

    def inputs(start: int):
        index = np.minimum(np.arange(start, start + rows), n - 1)
        examples = jax.device_put(x[index if order is None else order[index]])
        return arrays, examples, np.int32(min(rows, n - start))

    with ThreadPoolExecutor(at_once) as pool:
        pending: collections.deque[tuple[int, Future]] = collections.deque()
        try:
            for start in range(0, n, rows):
                pending.append((start, pool.submit(_computed, program, inputs(start))))
                if len(pending) > at_once:
                    yield _checked(*pending.popleft(), rows, n, get, progress)
            while pending:
                yield _checked(*pending.popleft(), rows, n, get, progress)
        finally:
            for _, future in pending:
                future.cancel()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


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


def _checked(start: int, future: Future, rows: int, n: int, get: str, progress: Progress | None):
    stop = min(start + rows, n)
    z, finite = future.result()
    if not finite:
        raise ValueError(
            f"the {get} features of examples {start} to {stop - 1} (in the order used) are not "
            f"finite although their inputs are: the feature map overflows {z.dtype}; scale the "
            "inputs or W_std down"
        )
    if progress is not None:
        progress(stop - start)
    return start, stop, z


@jax.jit
def project(z: Float[Array, "n p"], matrix: Float[Array, "p ..."]) -> Float[Array, "n ..."]:
    """`z @ matrix` at the highest precision."""
    return jnp.matmul(z, matrix, precision=jax.lax.Precision.HIGHEST)


def _updated(state: GramState, batches: tuple[Array, ...], y: Array, n_examples: Array):
    return state.update(jnp.concatenate(batches), y, n_examples)


_update_in_place = jax.jit(_updated, donate_argnums=0)


def gram_of_stream(
    feature_map: FeatureMapLike,
    x: Inputs,
    y: Float[np.ndarray, "n k"],
    *,
    get: str,
    rows: int,
    spec: jax.ShapeDtypeStruct,
    progress: Progress | None = None,
) -> GramState:
    """GramState of checked data. Small batches are gathered into blocks of `BLOCK_ROWS` or more."""
    state = GramState.init(spec.shape[1], y.shape[1], spec.dtype)
    n, y = y.shape[0], y.astype(state.cross.high.dtype)
    batches = -(-n // rows)
    per_block = min(-(-BLOCK_ROWS // rows), 1 << (batches - 1).bit_length())
    block: list[Array] = []
    first = 0
    for start, stop, z in stream(feature_map, x, get=get, batch_size=rows, progress=progress):
        if not block:
            first = start
        block.append(z)
        if len(block) < per_block and stop < n:
            continue
        block.extend([jnp.zeros_like(z)] * (per_block - len(block)))
        y_block = np.zeros((per_block * rows, y.shape[1]), y.dtype)
        y_block[: stop - first] = y[first:stop]
        state = _update_in_place(
            state, tuple(block), jnp.asarray(y_block), jnp.asarray(stop - first)
        )
        block = []
    return state


def collect(
    feature_map: FeatureMapLike, x: Inputs, *, get: str, rows: int, spec: jax.ShapeDtypeStruct
) -> Float[np.ndarray, "n p"]:
    """All features on the host; for fewer examples than features. n p numbers of memory."""
    z_all = np.empty((x.shape[0], spec.shape[1]), spec.dtype)
    for start, stop, z in stream(feature_map, x, get=get, batch_size=rows):
        z_all[start:stop] = np.asarray(z)[: stop - start]
    return z_all
