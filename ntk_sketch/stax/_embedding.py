"""Positional embeddings of infinite width: their covariance and a root of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array, Inputs, Scalar
from ..features._hidden import HiddenFeatures
from ..features._variances import Variances
from ..identity._specification import as_leaves, in_dtype
from ..numerics._precision import float64


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Embeddings with covariance `R(s, t) = decay(Σ_i |s_i - t_i|^p)`, or `1[s = t]` without decay.

    Attributes:
        kind: "NONE", "SUM" or "CONCAT".
        p_norm: p.
        decay: a function of distances, or `None`.
        channels: of the embeddings, for "CONCAT"; `None`: as many as the inputs have.
        std: standard deviation of the embeddings.
        values: whether values have embeddings too, besides keys and queries.
    """

    kind: str
    p_norm: Any
    decay: Callable | None
    channels: int | None
    std: Any
    values: bool

    def of(self, space: tuple[int, ...], channels: int, name: str, *, root: bool) -> "Embedded":
        """The embeddings of the positions of a `space`, for inputs of `channels` channels.

        Args:
            name: of the layer, for errors.
            root: whether features need a root of `R`.

        Raises:
            ValueError: `R` is not positive semidefinite.
        """
        share, own_share = as_leaves(self._shares(channels))
        if self.kind == "NONE":
            return Embedded(share, own_share, None, None)
        covariance = self._covariance(space)
        return Embedded(share, own_share, covariance, _root(covariance, name) if root else None)

    def _shares(self, channels: int) -> tuple[Any, Any]:
        """Weights of K and of R in their sum."""
        if self.kind != "CONCAT":
            return 1.0, self.std**2
        own = channels if self.channels is None else self.channels
        return channels / (channels + own), self.std**2 * (own / (channels + own))

    def _covariance(self, space: tuple[int, ...]) -> np.ndarray:
        places = np.indices(space).reshape(len(space), -1)
        if self.decay is None:
            return np.eye(places.shape[1])
        apart = np.abs(places[:, :, None] - places[:, None, :]).astype(np.float64)
        distances = np.sum(apart**self.p_norm, axis=0)
        with float64(), jax.ensure_compile_time_eval():
            return np.asarray(self.decay(jnp.asarray(distances)), np.float64)


class Embedded(eqx.Module):
    """The sum `share K + own_share R` of the covariances of inputs and embeddings.

    Attributes:
        covariance: `R` (P, P), or `None` without embeddings.
        root: `L` (P, r) with `L Lᵀ = R`, or `None` if no features need it.
    """

    share: Scalar
    own_share: Scalar
    covariance: Inputs | None
    root: Inputs | None

    def covariances(self, matrices: Variances, mask: Array | None) -> Variances:
        """Covariances K and Θ of all pairs of positions (n, P, P), with embeddings added."""
        if self.covariance is None:
            return matrices
        share, own, covariance = in_dtype(
            (self.share, self.own_share, self.covariance), matrices.same.dtype
        )
        added = jnp.broadcast_to(own * covariance[None], matrices.same.shape)
        if mask is not None:
            seen = ~mask.reshape(len(mask), -1)
            added = jnp.where(seen[:, :, None] & seen[:, None, :], added, 0)
        total = matrices.linear(lambda values: share * values + added, matrices.offsets)
        if isinstance(matrices.ntk, tuple):  # Θ = 0
            total = Variances(total.same, total.other, added, total.offsets)
        return total

    def features(self, features: HiddenFeatures) -> HiddenFeatures:
        """Features with one more block of both kinds, that of the embeddings."""
        if self.root is None:
            return features
        share, own, root = in_dtype((self.share, self.own_share, self.root), features.dtype)
        shape = features.nngp[0].shape[:-1]
        block = (own**0.5 * root).reshape(1, *shape[1:], root.shape[-1])
        block = features.masked(jnp.broadcast_to(block, (*shape, root.shape[-1])))
        features = features.map(lambda block: share**0.5 * block)
        ntk = None if features.ntk is None else (*features.ntk, block)
        return features.replace(nngp=(*features.nngp, block), ntk=ntk)


def _root(covariance: np.ndarray, name: str) -> np.ndarray:
    eigenvalues, vectors = np.linalg.eigh(covariance)
    rounding = len(covariance) * np.finfo(np.float64).eps * np.abs(eigenvalues).max()
    # A decay function that computes in float32 may cause negative eigenvalues by rounding.
    if eigenvalues[0] < -max(rounding, 1e-6 * eigenvalues[-1]):
        raise ValueError(
            f"{name}: pos_emb_decay_fn gives no covariance of {len(covariance)} positions: the"
            f" smallest eigenvalue is {eigenvalues[0]:.3g}, the largest {eigenvalues[-1]:.3g}."
            " Needed: a positive definite function of distances, such as exp(-d) with"
            " pos_emb_p_norm=1 or 2."
        )
    kept = eigenvalues > rounding
    return vectors[:, kept] * np.sqrt(eigenvalues[None, kept])
