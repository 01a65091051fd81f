"""Sums over features that come batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..numerics._precision import promoted
from ..parallel._devices import ONE, Devices
from ..streaming._batches import Batches
from ..streaming._computed import Part
from ..streaming._feature_stream import FeatureStream
from ..streaming._sample_weights import check_scale
from ._checks import check_range
from ._gram_state import GramState
from ._merging import over_processes
from ._mesh_sums import OnMesh
from ._origin import origin_of
from ._run import Run
from ._running_sums import OnDevice, OnHost
from ._targets import Units, centred_units

BLOCK_ROWS = 1024  # rows of one update of the Gram matrix, see GramState.update
HOST_ROWS = 2048  # the same on a CPU, where a product of more rows is faster


@jax.jit
def project(z: Float[Array, "n p"], matrix: Float[Array, "p ..."]) -> Float[Array, "n ..."]:
    """`z @ matrix` at the highest precision."""
    return jnp.matmul(z, matrix, precision=jax.lax.Precision.HIGHEST)


def statistics(
    features: FeatureStream,
    x: Any,
    y: Float[np.ndarray, "n k"] | None,
    one_output: bool,
    order: Int[np.ndarray, " m"] | None = None,
    run: Run | None = None,
    sample_weight: Float[np.ndarray, " n"] | None = None,
) -> GramState:
    """GramState of `x[order]`, `y[order]` and weights, which were checked, or of batches; of those
    of all processes.

    Args:
      run: what is done already, and where to write what is done next.
    """
    with features.devices.together():
        state = _own(features, x, y, one_output, order, run, sample_weight)
    if features.devices.processes is None:
        return state
    state = over_processes(state, features.devices)
    _check_any(int(state.n_examples))
    return _checked(state)


def _own(
    features: FeatureStream, x, y, one_output: bool, order, run: Run | None, sample_weight
) -> GramState:
    """The statistics of this process."""
    spec, devices = features.spec(x), features.devices
    dtype = promoted(spec.dtype, jnp.float32)
    if isinstance(x, Batches):
        n, rows, units = None, features.rows(None), None
        kind = features.kind(x)
        shape, examples, outputs = kind.shape, kind.dtype, kind.outputs
        weighted = kind.weighted
    else:
        assert y is not None
        n = len(y) if order is None else len(order)
        rows, units = features.rows(n), centred_units(y, dtype)
        weighted = sample_weight is not None
        shape, examples, outputs = x.shape[1:], x.dtype, y.shape[1]
    done = None if run is None else run.done
    parts = features.with_targets(x, y, order, done, sample_weight)
    if isinstance(x, Batches):
        parts = _in_range(parts, spec.dtype)
    if run is not None:
        run.check(
            origin_of(features.feature_map, features.get),
            {
                "shape of examples": list(shape),
                "dtype of examples": str(examples),
                "outputs": None if one_output else outputs,
                "number of features": spec.shape[1],
                "dtype of features": str(dtype),
                "examples a batch (batch_size)": rows,
                "sums": _where(devices),
                "number of examples": n,
                "sample weights": "given" if weighted else "none",
            },
        )
    how = {"weighted": weighted, "devices": devices}
    return gram_of_stream(parts, outputs, rows, spec, one_output, units, n, run, **how)


def gram_of_stream(
    parts: Generator[Part, None, None],
    outputs: int | None,
    rows: int,
    spec: jax.ShapeDtypeStruct,
    one_output: bool,
    units: Units | None,
    n: int | None,
    run: Run | None = None,
    weighted: bool = False,
    devices: Devices = ONE,
) -> GramState:
    """GramState of features and targets in batches of `rows`. On a CPU without a mesh the sums are
    NumPy's in float64, and so are the products of few features; elsewhere they are pairs on the
    devices.

    Args:
      units: of the targets; None: from the first block.
      n: number of examples, if it is known.
      weighted: the parts have weights.
      devices: those that the features are on.
    """
    assert outputs is not None
    on_host = _on_host() and devices.mesh is None
    per_block = -(-(HOST_ROWS if on_host else BLOCK_ROWS * devices.rows) // rows)
    if n is not None:  # a power of two of batches is enough for few
        per_block = min(per_block, 1 << (-(-n // rows) - 1).bit_length())
    k, dtype = None if one_output else outputs, promoted(spec.dtype, jnp.float32)
    if on_host:
        sums = OnHost(spec.shape[1], k, dtype, units, weighted)
    elif devices.mesh is None:
        sums = OnDevice(spec.shape[1], k, dtype, units, weighted, per_block)
    else:
        sums = OnMesh(spec.shape[1], k, dtype, units, weighted, per_block, devices.mesh)
    with contextlib.ExitStack() as stack:
        if run is not None:
            stack.enter_context(run.going_on(sums))
        stack.enter_context(contextlib.closing(parts))
        for block in _blocks(parts, per_block):
            with contextlib.nullcontext() if run is None else run.block(block):
                sums.add([part.z for part in block], _targets(block), _weights(block))
    if devices.processes is not None:  # others may have examples
        return sums.state() if sums.n else GramState.init(spec.shape[1], k, dtype, weighted)
    _check_any(sums.n)
    return _checked(sums.state())


def _check_any(n: int) -> None:
    if not n:
        raise ValueError("no example is left to fit: all of them are set aside")


def _checked(state: GramState) -> GramState:
    if state.weighted:
        check_scale(min(float(state.weight.high), 1.0))  # the largest is no more than the sum
    return state


def _where(devices: Devices) -> str:
    """The sums are, in words."""
    if devices.mesh is not None:
        return f"on {devices}"
    own = "on the host" if _on_host() else "on the device"
    return f"{own}, {devices}" if devices.processes is not None else own


def _on_host() -> bool:
    return jax.default_backend() == "cpu"


def _in_range(parts: Generator[Part, None, None], dtype: Any) -> Generator[Part, None, None]:
    """The parts, whose targets are in the range of the features' dtype: looked at as they come."""
    largest = 0.0
    with contextlib.closing(parts):
        for part in parts:
            assert part.y is not None
            largest = max(largest, float(np.abs(part.y).max()))
            check_range(largest, dtype, so_far=True)
            yield part
    check_range(largest, dtype)


def _targets(block: list[Part]) -> Float[np.ndarray, "m k"]:
    return np.concatenate([part.y for part in block if part.y is not None])


def _weights(block: list[Part]) -> Float[np.ndarray, " m"] | None:
    weights = [part.sample_weight for part in block if part.sample_weight is not None]
    return np.concatenate(weights) if weights else None


def _blocks(parts: Iterator[Part], size: int) -> Iterator[list[Part]]:
    """Lists of `size` parts, the last one of fewer; each is used before the next is asked for."""
    block: list[Part] = []
    for part in parts:
        block.append(part)
        if len(block) == size:
            yield block
            block.clear()  # nobody needs the features any more
    if block:
        yield block
