"""The eigenvectors of a kernel of features on the training examples, by the smaller side."""

from __future__ import annotations

import abc
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from .._typing import Inputs
from ..numerics._linalg import product, transposed_product
from ..numerics._precision import on_device
from ..parallel._devices import ONE, Devices
from ..solvers._dual_equations import DualEquations, in_float64
from ..solvers._dual_spectrum import DualSpectrum
from ..solvers._gram_state import GramState
from ..solvers._normal_equations import NormalEquations
from ..solvers._primal_spectrum import PrimalSpectrum
from ..solvers._spectrum import Spectrum
from ..solvers._sums import project
from ._flow import Flow

_CHUNK = 4096  # examples that are brought to float64 at a time


class Directions(abc.ABC):
    """Eigenvectors of ZZᵀ, and coordinates of features, targets and weights in them.

    For a function h of the eigenvalues, the three say the same as
    `z Zᵀ h(ZZᵀ) Y = rotate(z) (h · targets) = z weights(h · targets)`.

    Attributes:
      spectrum: eigenvalues, and which of them are rounding.
      vectors: V (p, r) of ZᵀZ, or U (n, r) of ZZᵀ.
      targets: of Y (n, k), in its own units.
    """

    spectrum: Spectrum
    vectors: Float[Inputs, "s r"]
    targets: Float[np.ndarray, "r k"]

    @abc.abstractmethod
    def weights(self, c: Float[np.ndarray, "r q"]) -> Float[np.ndarray, "p q"]:
        """Weights of features, from coordinates."""

    @abc.abstractmethod
    def rotate(self, z: Any) -> Float[np.ndarray, "b r"]:
        """Coordinates of features (b, p)."""

    @abc.abstractmethod
    def own_factor(
        self, z: Any, rotated: Float[np.ndarray, "b r"], flow: Flow, tau: float
    ) -> Float[np.ndarray, "b q"]:
        """F with `F Fᵀ = z (I - Zᵀ φ_{2τ}(ZZᵀ) Z) zᵀ`: what training leaves of the covariance of a
        Gaussian process with this kernel.
        """

    @abc.abstractmethod
    def own_weights(
        self, noise: Float[np.ndarray, "p q"], flow: Flow, tau: float
    ) -> Float[np.ndarray, "p q"]:
        """Weights of that covariance, from standard normal numbers."""


class PrimalDirections(Directions):
    """ZᵀZ = V diag(s) Vᵀ; coordinates of z are z V, those of Y are Vᵀ ZᵀY."""

    spectrum: PrimalSpectrum

    def __init__(self, state: GramState, devices: Devices = ONE):
        equations = NormalEquations.of(state)
        self.spectrum = PrimalSpectrum(equations)  # overwrites the Gram matrix
        self.vectors = self.spectrum.vectors
        inner = transposed_product(self.vectors, equations.cross)
        self.targets = np.ldexp(inner, equations.units.exponent)
        self._on_device: jax.Array | None = None
        self._devices = devices

    def weights(self, c: Float[np.ndarray, "r q"]) -> Float[np.ndarray, "p q"]:
        return product(self.vectors, c)

    def rotate(self, z: Any) -> Float[np.ndarray, "b r"]:
        if self._on_device is None:
            vectors = on_device(self.vectors, self.spectrum.dtype)
            self._on_device = self._devices.put_whole(vectors)
        z = jax.numpy.asarray(z).astype(self.spectrum.dtype)
        return np.asarray(project(z, self._on_device)).astype(np.float64)

    def own_factor(
        self, z: Any, rotated: Float[np.ndarray, "b r"], flow: Flow, tau: float
    ) -> Float[np.ndarray, "b r"]:
        return rotated * np.sqrt(flow.remaining(2 * tau))

    def own_weights(
        self, noise: Float[np.ndarray, "p q"], flow: Flow, tau: float
    ) -> Float[np.ndarray, "p q"]:
        return self.weights(np.sqrt(flow.remaining(2 * tau))[:, None] * noise)


class DualDirections(Directions):
    """ZZᵀ = U diag(s) Uᵀ; coordinates of z are z ZᵀU, those of Y are UᵀY.

    All products are in float64 on the host: those of coordinates are divided by eigenvalues.
    """

    spectrum: DualSpectrum

    def __init__(self, z: Float[np.ndarray, "n p"], y: Float[np.ndarray, "n k"]):
        self.spectrum = DualSpectrum(DualEquations.of(z, y))
        self.vectors = self.spectrum.vectors
        self.targets = transposed_product(self.vectors, y)
        self._z = z
        self._own: np.ndarray | None = None

    def weights(self, c: Float[np.ndarray, "r q"]) -> Float[np.ndarray, "p q"]:
        dual = product(self.vectors, c)
        parts = [columns.T @ dual for _, columns in in_float64(self._z)]
        return np.concatenate(parts)

    def rotate(self, z: Any) -> Float[np.ndarray, "b r"]:
        z = np.asarray(z)
        products = np.zeros((len(z), len(self._z)))
        for where, columns in in_float64(self._z):
            products += z[:, where].astype(np.float64) @ columns.T
        return transposed_product(self.vectors, products.T).T

    def of_training(self) -> Float[np.ndarray, "r p"]:
        """UᵀZ."""
        if self._own is None:
            self._own = rotated_rows(self.vectors, self._z)
        return self._own

    def own_factor(
        self, z: Any, rotated: Float[np.ndarray, "b r"], flow: Flow, tau: float
    ) -> Float[np.ndarray, "b p"]:
        return np.asarray(z) - (rotated * _root_step(flow, tau)) @ self.of_training()

    def own_weights(
        self, noise: Float[np.ndarray, "p q"], flow: Flow, tau: float
    ) -> Float[np.ndarray, "p q"]:
        inner = self.of_training() @ noise
        return noise - self.weights(_root_step(flow, tau)[:, None] * inner)


def _root_step(flow: Flow, tau: float) -> Float[np.ndarray, " r"]:
    """h with (1 - s h)² = 1 - s φ_{2τ}(s): φ_{2τ} / (1 + √(1 - s φ_{2τ}))."""
    return flow.trained(2 * tau) / (1 + np.sqrt(flow.remaining(2 * tau)))


def rotated_rows(
    vectors: Float[Inputs, "n r"], z: Float[np.ndarray, "n p"]
) -> Float[np.ndarray, "r p"]:
    """Uᵀ Z in float64."""
    parts = [transposed_product(vectors, columns) for _, columns in in_float64(z)]
    return np.concatenate(parts, axis=1)


def gram_between(
    a: Float[np.ndarray, "n p"], b: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, "p m"]:
    """Aᵀ B in float64."""
    total = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), _CHUNK):
        rows = slice(start, start + _CHUNK)
        total += a[rows].astype(np.float64).T @ b[rows].astype(np.float64)
    return total
