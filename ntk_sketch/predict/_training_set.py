"""What training makes of the outputs on the training examples themselves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..numerics._linalg import on_host, product
from ._directions import Directions, DualDirections
from ._flow import Flow
from ._gaussians import Parts, Process
from ._test_set import evaluate
from ._training import Training


def left(
    training: Training,
    kernel: str,
    directions: Directions,
    flow: Flow,
    residuals: Float[np.ndarray, "n k"],
    coordinates: Float[np.ndarray, "r k"],
    times: Float[np.ndarray, " t"],
) -> Float[np.ndarray, "t n k"]:
    """`exp(-(K + λI) τ) residuals` at every time.

    In the primal form e^{-λτ} (r - Z φ⁰_τ(ZᵀZ) Zᵀ r), with φ⁰ that of λ = 0: another pass over the
    training examples.

    Args:
      coordinates: of the residuals in `directions`.
    """
    if isinstance(directions, DualDirections):
        decays = [flow.decayed(tau)[:, None] * coordinates for tau in times]
        return np.stack([product(directions.vectors, decay) for decay in decays])
    free, shape = flow.unregularised(), (len(residuals), len(times), residuals.shape[1])
    steps = [directions.weights(free.trained(tau)[:, None] * coordinates) for tau in times]
    weights = {kernel: np.concatenate(steps, axis=1)}
    [values] = evaluate(training.stream((kernel,)), training.x, [weights], training.dtype)
    lost = np.moveaxis(values.astype(np.float64).reshape(shape), 1, 0)
    return _shrunk(flow, times)[:, None, None] * (residuals - lost)


def covariance(
    training: Training, process: Process, times: Float[np.ndarray, " t"], full: bool
) -> Float[np.ndarray, "t ..."]:
    """Of the outputs: `(K + λI) E²` of 'nngp' and `E K' E` of 'ntk', with K' the prior's kernel and
    `E = exp(-(K + λI) τ)`: (times, n, n), or the diagonals (times, n)."""
    n = len(training.x)
    if isinstance(process.directions, DualDirections):
        parts = Parts(np.zeros((n, 0)), on_host(process.directions.vectors))
        return np.stack([_at(process, parts, tau, full) for tau in times])
    found: list[Parts] = []
    variances = np.zeros((len(times), n))

    def each(start: int, stop: int, z: dict) -> None:
        parts = Parts(*(part[: stop - start] for part in process.parts(z)))
        if full:
            found.append(parts)
            return
        for t, tau in enumerate(times):
            variances[t, start:stop] = _at(process, parts, tau, full)

    evaluate(training.stream(process.kernels), training.x, [], training.dtype, each)
    if not full:
        return variances
    parts = Parts(*map(np.concatenate, zip(*found, strict=True)))
    return np.stack([_at(process, parts, tau, full) for tau in times])


def _at(process: Process, parts: Parts, tau: float, full: bool) -> Float[np.ndarray, "b ..."]:
    rows, weights, shift = _spread(process, parts, tau)
    if not full:
        return np.sum(rows**2 * weights, axis=1) + shift
    return (rows * weights) @ rows.T + shift * np.eye(len(rows))


def _spread(process: Process, parts: Parts, tau: float) -> tuple[np.ndarray, np.ndarray, float]:
    """R, ω and a: the covariance is `R diag(ω) Rᵀ + a I`."""
    flow, own = process.flow, process.kernel == process.prior
    dual = isinstance(process.directions, DualDirections)
    if own and dual:
        return parts.rotated, flow.rates * flow.decayed(2 * tau), 0.0
    shrunk, free = float(_shrunk(flow, np.array([tau]))[0]), flow.unregularised()
    if own:
        weights = free.decayed(2 * tau) - flow.penalty * free.trained(2 * tau)
        return parts.rotated, shrunk**2 * weights, shrunk**2 * flow.penalty
    crossed = process.crossed()
    if dual:
        factor = (parts.rotated * flow.decayed(tau)) @ crossed
    else:
        factor = shrunk * (parts.features - (parts.rotated * free.trained(tau)) @ crossed)
    return factor, np.ones(factor.shape[1]), 0.0


def _shrunk(flow: Flow, times: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """e^{-λτ}, 1 without λ also at τ = ∞."""
    return np.exp(-flow.penalty * times) if flow.penalty > 0 else np.ones(len(times))
