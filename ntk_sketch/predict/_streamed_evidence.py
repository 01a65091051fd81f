"""Derivatives of the evidence, batch by batch: no features but those of one batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._arguments import checked_inputs, on_host
from ..numerics._precision import on_device
from ..parallel._mesh import beside
from ..solvers._checks import checked_diag_reg
from ..streaming._blocks import blocks_of, placed
from ..streaming._computed import kernel_features
from ..streaming._feature_stream import FeatureStream
from ..streaming._progress import Progress, reporting
from ..streaming._stream import FeatureMapLike, Inputs
from ._checks import own_devices
from ._host_evidence import HostEvidence
from ._training import Training


def is_streamed(
    feature_map: Any, x: Any, y: Any, diag_reg: Any, get: str, batch_size: int | None
) -> bool:
    """Whether map or `diag_reg` alone are differentiated, outside of `jax.jit`, and the features
    of all examples are more numbers than those of a batch and their Gram matrix."""
    if any(isinstance(data, Tracer) for data in (x, y)):
        return False
    if not all(_has_numbers(leaf) for leaf in jax.tree.leaves((feature_map, diag_reg))):
        return False
    x = checked_inputs(x, values=False)
    stream = FeatureStream(feature_map, get, batch_size)
    return len(x) > max(stream.spec(x).shape[1], stream.rows(len(x)))


def streamed_log_evidence(
    feature_map: FeatureMapLike,
    x: Inputs,
    y: Inputs,
    diag_reg: Any,
    absolute: bool,
    get: str,
    batch_size: int | None,
    progress: Progress,
    mesh: Any,
) -> Float[Array, "*m"]:
    """`log_evidence` with a derivative of its own, in reverse mode.

    With A = (ZᵀZ + λI)⁻¹ and w = A Zᵀy held fixed, -½ Σ [k zᵢ A zᵢᵀ + ‖yᵢ - zᵢw‖² / λ] over the
    examples has the derivative of the evidence by the features: that of the log-determinant by ZᵀZ
    is A, and w minimises ‖y - Zw‖² / λ + ‖w‖² = yᵀ (K + λI)⁻¹ y, so that its own derivative counts
    for nothing. A and w come from one decomposition in float64 on the host; a second pass over the
    examples adds up the derivatives of the sum.
    """
    devices, x = own_devices(mesh), on_host(checked_inputs(x, values=False))
    leaves, structure = jax.tree.flatten(feature_map)
    where = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracer))
    shape = jnp.shape(diag_reg)

    def map_of(chosen: list[Any]) -> Any:
        return jax.tree.unflatten(structure, _replaced(leaves, where, chosen))

    def forward(chosen: list[Any], diag_reg: Array):
        values, _ = checked_diag_reg(diag_reg)
        training = Training(
            map_of(chosen),
            x,
            y,
            diag_reg=0.0,
            absolute=True,
            batch_size=batch_size,
            progress=progress,
            devices=devices,
            names=("x", "y"),
        ).join()
        evidence = HostEvidence(training, get, values, absolute)
        found = on_device(evidence.values(stacklevel=4), training.dtype).reshape(shape)
        return found, (chosen, _Fixed.of(evidence, values, absolute, training))

    def backward(residuals: Any, slope: Float[Array, "*m"]):
        chosen, fixed = residuals
        by_example, by_diag_reg = fixed.weighted(slope.reshape(-1))
        about = get, batch_size, progress, "derivatives", devices
        stream = FeatureStream(map_of(chosen), *about)
        return _summed(stream, chosen, where, x, y, by_example), by_diag_reg.reshape(shape)

    @jax.custom_vjp
    def evidence(chosen: list[Any], diag_reg: Array) -> Float[Array, "*m"]:
        return forward(chosen, diag_reg)[0]

    evidence.defvjp(forward, backward)
    return evidence([leaves[i] for i in where], jnp.asarray(diag_reg))


class _PerExample(NamedTuple):
    """What a batch's share of the sum is made of, weighted by the slopes of the m values."""

    vectors: Float[Array, "p p"]
    rates: Float[Array, " p"]  # k Σ slope / (s + λ)
    weights: Float[Array, "p mk"]
    precisions: Float[Array, " mk"]  # slope / λ
    norm: Float[Array, ""]  # of what λ follows where it is relative


class _Fixed(NamedTuple):
    """Everything of all m values that one pass leaves, in the dtype of the features."""

    vectors: Float[Array, "p p"]
    inverse: Float[Array, "m p"]  # 1 / (s + λ)
    weights: Float[Array, "p m k"]
    precisions: Float[Array, " m"]  # 1 / λ
    by_penalty: Float[Array, " m"]  # derivative by λ at fixed features
    by_norm: Float[Array, " m"]  # and by ‖Z‖², which a relative λ follows
    scale: Float[Array, ""]  # λ / diag_reg

    @classmethod
    def of(
        cls, evidence: HostEvidence, diag_reg: list[float], absolute: bool, training: Training
    ) -> _Fixed:
        directions, penalties = evidence.directions, evidence.penalties
        (n, k), spectrum = training.y.shape, directions.spectrum
        inverse = 1 / (spectrum.values + penalties[:, None])
        log_determinant = inverse.sum(axis=1) + (n - spectrum.size) / penalties
        by_penalty = -0.5 * (k * log_determinant - evidence.residual_norms() / penalties**2)
        relative = np.zeros_like(by_penalty) if absolute else by_penalty * diag_reg / n
        scale = np.asarray(1.0 if absolute else spectrum.mean_square_norm)
        weights = directions.weights(
            np.concatenate([one[:, None] * directions.targets for one in inverse], axis=1)
        ).reshape(-1, len(penalties), k)
        arrays = directions.vectors, inverse, weights, 1 / penalties, by_penalty, relative, scale
        return cls(*(on_device(array, training.dtype) for array in arrays))

    def weighted(self, slope: Float[Array, " m"]) -> tuple[_PerExample, Float[Array, " m"]]:
        p, m, k = self.weights.shape
        outputs = jnp.asarray(k, slope.dtype)
        by_example = _PerExample(
            self.vectors,
            outputs * (slope @ self.inverse),
            self.weights.reshape(p, m * k),
            jnp.repeat(slope * self.precisions, k),
            slope @ self.by_norm,
        )
        return by_example, slope * self.by_penalty * self.scale


def _summed(
    stream: FeatureStream,
    chosen: list[Any],
    where: tuple[int, ...],
    x: Any,
    y: Any,
    by_example: _PerExample,
) -> list[Any]:
    """Derivatives by the leaves `chosen` of the map, over all batches."""
    if not chosen:
        return []
    targets = np.asarray(y).reshape(len(x), -1)
    dtype, rows, devices = by_example.vectors.dtype, stream.rows(len(x)), stream.devices
    arrays, rest = eqx.partition(stream.feature_map, eqx.is_array)
    feature_map = eqx.combine(devices.put_whole(arrays), rest)
    by_example = devices.put_whole(by_example)
    total: list[Any] = devices.put_whole([jnp.zeros_like(leaf) for leaf in chosen])
    with reporting(stream.progress, len(x), stream.what) as report:
        for block in placed(blocks_of(x, targets, rows), None, devices):
            assert block.y is not None
            real = np.int32(block.stop - block.start)
            part = np.pad(block.y.astype(dtype), ((0, rows - len(block.y)), (0, 0)))
            given = block.x, devices.put(part), real, by_example
            found = _derivatives(feature_map, where, stream.get, *given)
            total = [a + b for a, b in zip(total, found, strict=True)]
            report(int(real))
    return beside(chosen, total)


@eqx.filter_jit
def _derivatives(feature_map: Any, where: tuple[int, ...], get: str, *given: Any) -> list[Array]:
    """Of a batch's share, by some leaves of the map."""
    leaves, structure = jax.tree.flatten(feature_map)

    def share(chosen: list[Any]) -> Array:
        changed = jax.tree.unflatten(structure, _replaced(leaves, where, chosen))
        return _share(changed, get, *given)

    return jax.grad(share)([leaves[i] for i in where])


def _share(
    feature_map: Any,
    get: str,
    x: Any,
    y: Float[Array, "b k"],
    real: Int[Array, ""],
    fixed: _PerExample,
) -> Float[Array, ""]:
    """A batch's share of the sum of `streamed_log_evidence`."""
    z = kernel_features(feature_map(x), get).astype(fixed.vectors.dtype)
    z = jnp.where((jnp.arange(len(z), dtype=real.dtype) < real)[:, None], z, 0)
    copies = fixed.weights.shape[1] // y.shape[1]
    left = jnp.tile(y, (1, copies)) - _product(z, fixed.weights)
    spread = jnp.sum(_product(z, fixed.vectors) ** 2, axis=0) @ fixed.rates
    misfit = jnp.sum(left**2, axis=0) @ fixed.precisions
    half = np.asarray(0.5, spread.dtype)
    return fixed.norm * jnp.sum(z**2) - half * (spread + misfit)


def _replaced(leaves: list[Any], where: tuple[int, ...], chosen: list[Any]) -> list[Any]:
    """The leaves with those at `where` in place of theirs."""
    found = list(leaves)
    for i, leaf in zip(where, chosen, strict=True):
        found[i] = leaf
    return found


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _has_numbers(leaf: Any) -> bool:
    """False for what `jax.jit` and `jax.vmap` trace, whose numbers are not known yet."""
    if isinstance(leaf, Tracer):
        try:
            bool(jnp.all(leaf == leaf))
        except jax.errors.ConcretizationTypeError:
            return False
    return True
