"""What training makes of the prior, as a Gaussian over functions of test features."""

from __future__ import annotations

import collections
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ._checks import kernel_of
from ._flow import Flow
from ._training import Statistics, Training


class Parts(NamedTuple):
    """Of test examples, what does not depend on time."""

    features: np.ndarray  # those of the prior
    rotated: Float[np.ndarray, "b r"]


class Process:
    """The outputs of `get` = 'nngp', 'ntk' or 'ntkgp' after training, of one kernel's features or,
    for the covariance of 'ntk', of two.

    With features z of the kernel that trains and z' of that of the prior, coordinates and D of
    `Directions` and `Statistics`, φ of `Flow`:

        mean = z · (φ_τ targets),   covariance = F Fᵀ,
        F = z' - z · (φ_τ D)              of 'ntk': an initial function and what training makes of
                                          it, (K* - A Z')(K* - A Z')ᵀ in features
        F Fᵀ = z (I - Zᵀ φ_{2τ}(ZZᵀ) Z) zᵀ  of the two others, where z' = z
    """

    def __init__(self, training: Training, name: str, statistics: Statistics):
        self.name, self.kernel = name, kernel_of(name)
        self.prior = "nngp" if name == "ntk" else self.kernel
        self._statistics = statistics
        self.directions = statistics.directions(self.kernel)
        self.flow: Flow = training.flow(statistics, self.kernel)

    @property
    def kernels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.kernel, self.prior)))

    def mean_weights(self, tau: float) -> Float[np.ndarray, "p k"]:
        coordinates = self.flow.trained(tau)[:, None] * self.directions.targets
        return self.directions.weights(coordinates)

    def parts(self, z: dict[str, Any]) -> Parts:
        features = np.asarray(z[self.prior])
        return Parts(features, self.directions.rotate(z[self.kernel]))

    def factor(self, parts: Parts, tau: float) -> Float[np.ndarray, "b q"]:
        """F of the covariance F Fᵀ."""
        if self.kernel == self.prior:
            return self.directions.own_factor(*parts, self.flow, tau)
        return parts.features - (parts.rotated * self.flow.trained(tau)) @ self.crossed()

    def crossed(self) -> Float[np.ndarray, "r q"]:
        """D: what the directions see of the prior's features on the training examples."""
        return self._statistics.cross(self.kernel, self.prior)

    def noise_size(self) -> int:
        return self._statistics.widths[self.prior]

    def sample_weights(self, noise: Float[np.ndarray, "p q"], tau: float) -> dict[str, np.ndarray]:
        """Weights (p, q) of the features of each kernel: of random functions of mean 0 with the
        covariance, from standard normal numbers."""
        if self.kernel == self.prior:
            return {self.kernel: self.directions.own_weights(noise, self.flow, tau)}
        initial = self.crossed() @ noise
        trained = self.directions.weights(self.flow.trained(tau)[:, None] * initial)
        return {self.prior: noise, self.kernel: -trained}


def processes(
    training: Training, names: tuple[str, ...], spread: bool, stacklevel: int
) -> list[Process]:
    """One for each name, from one pass over the training examples; `spread`: with covariances."""
    kernels = {kernel_of(name) for name in names}
    kernels |= {"nngp"} if spread and "ntk" in names else set()
    statistics = training.statistics(tuple(sorted(kernels)))
    found = [Process(training, name, statistics) for name in names]
    for process in found:
        training.warn_of_rank(statistics, process.kernel, stacklevel + 1)
    return found


@functools.cache
def named(names: tuple[str, ...]):
    """A named tuple, one field for each name in `get`, called as in Neural Tangents."""
    return collections.namedtuple("Gaussians", names)
