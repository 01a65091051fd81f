"""Sums over features that come batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics._precision import promoted
from ..streaming._stream import Batch
from ._gram_state import GramState, with_block
from ._host_sums import HostSums
from ._targets import Units, centred_units

BLOCK_ROWS = 1024  # rows of one update of the Gram matrix, see GramState.update
HOST_ROWS = 2048  # the same on a CPU, where a product of more rows is faster
FLOAT64_FEATURES = 1024  # up to so many, products on a CPU are in float64, which costs little there


@jax.jit
def project(z: Float[Array, "n p"], matrix: Float[Array, "p ..."]) -> Float[Array, "n ..."]:
    """`z @ matrix` at the highest precision."""
    return jnp.matmul(z, matrix, precision=jax.lax.Precision.HIGHEST)


def gram_of_stream(
    parts: Iterator[Batch],
    y: Float[np.ndarray, "n k"],
    *,
    rows: int,
    spec: jax.ShapeDtypeStruct,
    one_output: bool = False,
) -> GramState:
    """GramState of features in batches of `rows`, the last one padded with zeros, and of checked
    targets. On a CPU the sums are NumPy's in float64, and so are the products of few features;
    elsewhere they are pairs on the device.
    """
    dtype = promoted(spec.dtype, jnp.float32)
    units = centred_units(y, dtype)
    if _on_host():
        return _host_sums(parts, units, units.of(y), spec.shape[1], dtype, one_output)
    outputs = None if one_output else y.shape[1]
    state = GramState.init(spec.shape[1], outputs, dtype).with_units(units)
    return _device_sums(state, parts, units.of(y).astype(dtype), rows)


def _on_host() -> bool:
    return jax.default_backend() == "cpu"


def _host_sums(
    parts: Iterator[Batch],
    units: Units,
    t: Float[np.ndarray, "n k"],
    p: int,
    dtype: np.dtype,
    one_output: bool,
) -> GramState:
    """Blocks of `HOST_ROWS` or more; `zᵀz` is a symmetric product, half the FLOPs of others."""
    product = np.dtype(np.float64 if p <= FLOAT64_FEATURES else dtype)
    gram, cross, feature_sum = np.zeros((p, p)), np.zeros((p, t.shape[1])), np.zeros(p)
    feature_norm, cubes, done = 0.0, 0.0, 0
    for block in _blocks(parts):
        z = block.astype(product, copy=False)
        targets = t[done : done + len(z)].astype(product, copy=False)
        squares = z.T @ z
        gram += squares
        cross += z.T @ targets
        feature_sum += z.sum(axis=0, dtype=np.float64)
        feature_norm += float(np.trace(squares, dtype=np.float64))
        cubes += float(len(z)) ** 3
        done += len(z)
    sums = HostSums(
        gram, cross, (t**2).sum(axis=0), t.sum(axis=0), np.asarray(feature_norm), feature_sum
    )
    rounding = (float(np.finfo(product).eps) / 2) ** 2 * cubes
    return GramState.of_host(sums, units, len(t), dtype, one_output, rounding)


def _blocks(parts: Iterator[Batch]) -> Iterator[np.ndarray]:
    """The rows of batches, gathered on the host."""
    held: list[np.ndarray] = []
    for start, stop, batch in parts:
        held.append(np.asarray(batch)[: stop - start])
        if sum(map(len, held)) >= HOST_ROWS:
            yield held[0] if len(held) == 1 else np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _device_sums(
    state: GramState, parts: Iterator[Batch], t: Float[np.ndarray, "n k"], rows: int
) -> GramState:
    """Small batches are gathered into blocks of `BLOCK_ROWS` or more."""
    n = len(t)
    per_block = min(-(-BLOCK_ROWS // rows), 1 << (-(-n // rows) - 1).bit_length())
    block: list[Array] = []
    first = 0
    for start, stop, z in parts:
        if not block:
            first = start
        block.append(z)
        if len(block) < per_block and stop < n:
            continue
        block.extend([jnp.zeros_like(z)] * (per_block - len(block)))
        t_block = np.zeros((per_block * rows, t.shape[1]), t.dtype)
        t_block[: stop - first] = t[first:stop]
        state = _with_block_in_place(state, tuple(block), t_block, np.int32(stop - first))
        block = []
    return state


def _with_block(state: GramState, batches: tuple[Array, ...], t: Array, added: Array):
    return with_block(state, jnp.concatenate(batches), t, added)


_with_block_in_place = jax.jit(_with_block, donate_argnums=0)
