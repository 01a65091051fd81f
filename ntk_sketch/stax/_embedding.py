"""Positional embeddings of infinite width: their covariance, and its root."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ..numerics._precision import float64


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Embeddings of covariance `R(s, t) = decay(Σ_i |s_i - t_i|^p)`, or `1[s = t]` without decay.

    Attributes:
        kind: "NONE", "SUM" or "CONCAT".
        p_norm: p.
        decay: of distances, or `None`.
        channels: of the embeddings; `None`: as many as the inputs have. It matters to "CONCAT".
        std: their standard deviation.
        values: whether values have them too, beside keys and queries.
    """

    kind: str
    p_norm: Any
    decay: Callable | None
    channels: int | None
    std: Any
    values: bool

    def shares(self, channels: int) -> tuple[Any, Any]:
        """Weights of K and R in their sum, for inputs of so many channels."""
        if self.kind != "CONCAT":
            return 1.0, self.std**2
        own = channels if self.channels is None else self.channels
        return channels / (channels + own), self.std**2 * (own / (channels + own))

    def of(self, space: tuple[int, ...], name: str) -> tuple[Any, Any]:
        """`R` (P, P), and the root `L` (P, r) of `R = L Lᵀ` where features need it; or `None`.

        Raises:
            ValueError: `R` is no covariance.
        """
        if self.kind == "NONE":
            return None, None
        covariance = self._covariance(space)
        if not self.values:
            return covariance, None
        eigenvalues, vectors = np.linalg.eigh(covariance)
        rounding = len(covariance) * np.finfo(np.float64).eps * np.abs(eigenvalues).max()
        # A function that computes in float32 has negative eigenvalues of its rounding.
        if eigenvalues[0] < -max(rounding, 1e-6 * eigenvalues[-1]):
            raise ValueError(
                f"{name}: pos_emb_decay_fn gives no covariance of positions {space}: the smallest"
                f" eigenvalue is {eigenvalues[0]:.3g}, the largest {eigenvalues[-1]:.3g}. Needed: a"
                " positive definite function of distances, such as exp(-d), with p = 1 or 2."
            )
        kept = eigenvalues > rounding
        return covariance, vectors[:, kept] * np.sqrt(eigenvalues[None, kept])

    def _covariance(self, space: tuple[int, ...]) -> np.ndarray:
        places = np.indices(space).reshape(len(space), -1)
        if self.decay is None:
            return np.eye(places.shape[1])
        apart = np.abs(places[:, :, None] - places[:, None, :]).astype(np.float64)
        distances = np.sum(apart**self.p_norm, axis=0)
        with float64(), jax.ensure_compile_time_eval():
            return np.asarray(self.decay(jnp.asarray(distances)), np.float64)
