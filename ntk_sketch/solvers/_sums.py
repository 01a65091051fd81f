"""Sums over features that come batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics._precision import promoted
from ..streaming._stream import Batch
from ._gram_state import GramState, HostSums, with_block
from ._targets import centred_units

BLOCK_ROWS = 1024  # rows of one update of the Gram matrix, see GramState.update
HOST_FEATURES = 1024  # up to so many, a CPU sums in float64


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
    targets; sums in float64 on the host where that costs little.
    """
    dtype = promoted(spec.dtype, jnp.float32)
    units = centred_units(y, dtype)
    if jax.default_backend() == "cpu" and spec.shape[1] <= HOST_FEATURES:
        sums = _host_sums(parts, units.of(y), spec.shape[1])
        return GramState.of_host(sums, units, len(y), dtype, one_output)
    outputs = None if one_output else y.shape[1]
    state = GramState.init(spec.shape[1], outputs, dtype).with_units(units)
    return _device_sums(state, parts, units.of(y).astype(dtype), rows)


def _host_sums(parts: Iterator[Batch], t: Float[np.ndarray, "n k"], p: int) -> HostSums:
    gram, cross, feature_sum = np.zeros((p, p)), np.zeros((p, t.shape[1])), np.zeros(p)
    for start, stop, batch in parts:
        z = np.asarray(batch)[: stop - start].astype(np.float64)
        gram += z.T @ z
        cross += z.T @ t[start:stop]
        feature_sum += z.sum(axis=0)
    return HostSums(gram, cross, (t**2).sum(axis=0), t.sum(axis=0), np.trace(gram), feature_sum)


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
