"""Features of blocks of examples: one compilation, several blocks at a time."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from .._typing import KERNELS
from ..identity._structure import is_abstract_array, once_per_structure
from ..numerics._compiling import compiled_to_stream, explained
from ..parallel._devices import ONE, Devices
from ..parallel._mesh import AXES, on_every, shard_map, split_rows
from ._blocks import Block

FeatureMapLike = Callable[..., Any]
"""`feature_map(x)` returns an object with attributes `nngp` and `ntk`, each (n, p) or None.

If it has them, `batch_size()` proposes the number of examples of a call, and `is_landmark(x)` says
which examples (n,) the map was made from in such a way that they are not like new ones.
"""


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


class Part(NamedTuple):
    """Features of a block: z has its rows, 0 behind the last example."""

    start: int
    stop: int
    z: Array
    y: Float[np.ndarray, "m k"] | None = None
    sample_weight: Float[np.ndarray, " m"] | None = None
    digest: bytes = b""

    def rows(self) -> Float[np.ndarray, "m p"]:
        """Of the examples alone, in float64 on the host."""
        return np.asarray(self.z)[: self.stop - self.start].astype(np.float64)


@once_per_structure
def _masked_features(
    feature_map: Any, x: jax.ShapeDtypeStruct, get: str, mesh: Mesh | None
) -> Callable[..., Any]:
    """The compiled program of a batch: (arrays of the map, x, n_real) to features, padded rows set
    to zero, and whether the real ones are finite, on each device.

    Compiled ahead in the thread of the caller: JAX's settings, such as that of float64, hold for
    one thread.
    """
    dynamic, static = eqx.partition(feature_map, is_abstract_array)
    if mesh is not None:  # wherever the arrays are now
        dynamic = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), dynamic)

    def masked_features(dynamic: Any, x: Shaped[Array, "b ..."], n_real: Int[Array, ""]):
        z = kernel_features(eqx.combine(dynamic, static)(x), get)
        z = jnp.where((jnp.arange(z.shape[0], dtype=n_real.dtype) < n_real)[:, None], z, 0)
        return z, jnp.all(jnp.isfinite(z))

    def share(dynamic: Any, x: Shaped[Array, "b ..."], n_real: Int[Array, ""]):
        z, finite = masked_features(dynamic, x, n_real - lax.axis_index(AXES) * len(x))
        return z, finite[None]

    program = jax.jit(masked_features)
    if mesh is not None:
        rows, every = split_rows(mesh), on_every(mesh)
        specs = (P(), P(AXES), P()), (P(AXES), P(AXES))
        shardings = {"in_shardings": (every, rows, every), "out_shardings": (rows, rows)}
        program = jax.jit(shard_map(share, mesh, *specs), **shardings)
    n_real = jax.ShapeDtypeStruct((), jnp.int32)
    with explained():
        return compiled_to_stream(program.lower(dynamic, x, n_real))


def computed(
    feature_map: FeatureMapLike,
    blocks: Generator[Block, None, None],
    *,
    get: str,
    progress: Callable[[int], Any] | None = None,
    alone: bool = False,
    devices: Devices = ONE,
) -> Generator[Part, None, None]:
    """The features of blocks of one number of rows.

    An error of `blocks` comes after the features of all blocks before.

    Args:
      alone: there is one block, which needs no thread of its own.
      devices: those that the blocks are on.
    """
    at_once = _workers() if devices.mesh is None else 2
    # NumPy's numbers become JAX's here, for the reason that programs are compiled here
    arrays = _on_devices(eqx.filter(feature_map, _is_array), devices)
    threads = _Here() if alone else ThreadPoolExecutor(at_once)
    with contextlib.closing(blocks), threads as pool:
        pending: collections.deque[tuple[Block | None, Future]] = collections.deque()
        try:
            for block, future in _submitted(pool, feature_map, arrays, blocks, get, devices.mesh):
                pending.append((block, future))
                if len(pending) > at_once:
                    yield _checked(*pending.popleft(), get, progress)
            while pending:
                yield _checked(*pending.popleft(), get, progress)
        finally:
            for _, future in pending:
                future.cancel()


class _Here(contextlib.ExitStack):
    """A pool whose work is done by the caller."""

    def submit(self, work: Callable, *arguments: Any) -> Future:
        future: Future = Future()
        future.set_result(work(*arguments))
        return future


def _submitted(
    pool: ThreadPoolExecutor | _Here,
    feature_map: Any,
    arrays: Any,
    blocks: Iterator[Block],
    get: str,
    mesh: Mesh | None,
) -> Iterator[tuple[Block | None, Future]]:
    """Each block with its features to come, or last None with an error to come."""
    try:
        program = None
        for block in blocks:
            if program is None:
                shape = jax.ShapeDtypeStruct(block.x.shape, block.x.dtype)
                program = _masked_features(feature_map, shape, get, mesh)
            arguments = arrays, block.x, np.int32(block.stop - block.start)
            yield block._replace(x=None), pool.submit(_computed, program, arguments)
    except Exception as error:
        failed: Future = Future()
        failed.set_exception(error)
        yield None, failed


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _on_devices(arrays: Any, devices: Devices) -> Any:
    """NumPy's arrays as JAX's, sent together: one at a time they take longer than a small batch. On
    a mesh all of them are, whole on every device.
    """
    if devices.mesh is not None:
        return devices.put_whole(arrays)
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


def _checked(block: Block | None, future: Future, get: str, progress: Callable | None) -> Part:
    z, finite = future.result()
    assert block is not None
    start, stop = block.start, block.stop
    if not np.all(np.asarray(finite)):
        raise ValueError(
            f"the {get} features of examples {start} to {stop - 1} (in the order used) are not "
            f"finite although their inputs are: the feature map overflows {z.dtype}; scale the "
            "inputs or W_std down"
        )
    if progress is not None:
        progress(stop - start)
    return Part(start, stop, z, block.y, block.sample_weight, block.digest)
