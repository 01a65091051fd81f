"""Features of zonal kernels: all spherical harmonics of a degree, or a sample of them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, PerKernel, PRNGKey
from ..features._hidden import HiddenFeatures
from ..numerics._precision import Precision, matmul
from ..series._gegenbauer import (
    gegenbauer_from_powers,
    log_harmonic_dimension,
    orthonormal_sequence,
)
from ..series._radial import RadialFactors
from ._directions import orthogonal_directions
from ._norms import input_radius, safe_sqrt, unit_scale, with_norm
from ._series_method import SeriesMethod

#: Directions per spherical harmonic: with one each, their Gram matrix is badly conditioned.
_OVERSAMPLING = 2

#: A remainder after the exact degrees below this share of the kernel's diagonal is not sampled.
_NEGLIGIBLE = 1e-9


class Directions(eqx.Module):
    """Columns `w` (d, m) of directions on the sphere of a space of `dimension` >= d."""

    w: Array
    dimension: int = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    @classmethod
    def draw(
        cls, features: HiddenFeatures, m: int, precision: Precision, key: PRNGKey
    ) -> "Directions":
        """Draws m directions for the vectors φ of these features."""
        return cls.of(_on_sphere(features, m, key), features, precision)

    @classmethod
    def of(cls, w: Array, features: HiddenFeatures, precision: Precision) -> "Directions":
        """Of the columns `w` (dimension, m), of norm √dimension."""
        d = features.nngp_vectors().dimension
        return cls(w[:d] * len(w) ** -0.5, len(w), precision)

    def __call__(self, features: HiddenFeatures, s: Array | None, radius: Array):
        """`<w, φ / r>` (..., m), and ψ projected on `s`."""
        t, v = features.project(self.w, s, self.precision)
        return t * unit_scale(radius)[..., None], v


def _on_sphere(features: HiddenFeatures, m: int, key: PRNGKey) -> Array:
    """Columns (dimension, m) of norm √dimension."""
    # in fewer than 3 dimensions, the sphere has no Gegenbauer polynomials: φ has zeros there
    dimension = max(features.nngp_vectors().dimension, 3)
    return orthogonal_directions(key, dimension, m, features.nngp[0].dtype, chi_norms=False)


class Polynomials(eqx.Module):
    """`m^{-1/2} Σ_l p_l(t_j) Σ_i ε_{j,l,i} h_{l,i}(r)`."""

    factors: Callable[[Array], Array]
    signs: Float[Array, "l i m"]
    dimension: int = eqx.field(static=True)

    @classmethod
    def draw(cls, factors, degree: int, directions: Directions, key: PRNGKey) -> "Polynomials":
        m, dtype = directions.w.shape[1], directions.w.dtype
        signs = jax.random.rademacher(key, (degree + 1, factors.components, m), dtype)
        return cls(factors, signs.at[:, 0].set(1), directions.dimension)

    def __call__(self, radius: Array, t: Array) -> Array:
        degree, _, m = self.signs.shape
        weights = jnp.einsum(
            "...li,lim->...lm", self.factors(radius), self.signs, precision="highest"
        )
        polynomials = orthonormal_sequence(t, self.dimension, degree - 1)
        return m**-0.5 * sum(p * weights[..., l, :] for l, p in enumerate(polynomials))


class Harmonics(eqx.Module):
    """All α_l spherical harmonics of degree l in an orthonormal basis, scaled to norm 1.

        P_l(<u, u'>) = <z(u), z(u')>,        z(u) = P_l(u, W) P_l(W, W)^{-1/2}.

    P_l is a kernel of rank α_l, so that any landmarks W that span the harmonics reproduce it.
    """

    directions: Directions
    root: Float[Array, "directions harmonics"]
    degree: int = eqx.field(static=True)

    @classmethod
    def draw(cls, features: HiddenFeatures, degree: int, count: int, precision, key: PRNGKey):
        many = 1 if degree == 0 else _OVERSAMPLING * count
        on_sphere = _on_sphere(features, many, key)
        directions = Directions.of(on_sphere, features, precision)
        w = np.asarray(on_sphere, np.float64)  # with the coordinates that φ does not have
        w = w / np.linalg.norm(w, axis=0)
        *_, p = orthonormal_sequence(np.clip(w.T @ w, -1, 1), directions.dimension, degree)
        values, vectors = np.linalg.eigh(p * count**-0.5)
        root = vectors[:, -count:] / np.sqrt(count * values[-count:])
        return cls(directions, jnp.asarray(root, directions.w.dtype), degree)

    def __call__(self, features: HiddenFeatures, radius: Array) -> Array:
        t, _ = self.directions(features, None, radius)
        *_, p = orthonormal_sequence(t, self.directions.dimension, self.degree)
        return matmul(p, self.root, "full")


class HarmonicFeatures(eqx.Module):
    """Features of one kernel of a network: exact components first, then sampled ones."""

    factors: RadialFactors
    exact: dict[tuple[int, int], Harmonics]
    directions: Directions | None
    sampled: Polynomials | None
    normalize: bool = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures) -> Array:
        radius = input_radius(features)
        factors, diagonal = self.factors(radius), self.factors.diagonal(radius)
        z = [
            factors[..., l, i, None] * harmonics(features, radius)
            for (l, i), harmonics in self.exact.items()
        ]
        if self.directions is not None and self.sampled is not None:
            t, _ = self.directions(features, None, radius)
            sampled = self.sampled(radius, t)
            if self.normalize:
                left = 1 - sum((factors[..., l, i] ** 2 for l, i in self.exact), 0 * radius)
                sampled = with_norm(sampled, jnp.maximum(left, 0))
            z.append(sampled)
        return safe_sqrt(diagonal)[..., None] * jnp.concatenate(z, axis=-1)


class HarmonicExpansion(eqx.Module):
    """Drawn features of the kernels of a whole network."""

    parts: tuple[HarmonicFeatures, ...]

    def __call__(self, features: HiddenFeatures, exact: Any) -> PerKernel:
        z = [part(features) for part in self.parts]
        return PerKernel(z[0], z[1] if len(z) > 1 else None)


def harmonic_features(
    method: SeriesMethod,
    kernel: tuple[np.ndarray, np.ndarray],
    radii: tuple[float, float],
    features: HiddenFeatures,
    key: PRNGKey,
) -> HarmonicFeatures:
    """At most `method.width` features of a kernel `Σ_n A_n(r, r') ρ^n`.

    A component `h_{l,i}(r) P_l` of the expansion is exact with α_l features, its harmonics.
    Components are made exact in the order of their energy per feature. Their number minimises a
    bound on the variance of the others: the square of their energy over the number of features left
    to sample them.

    Args:
        method: the settings.
        kernel: coefficients `A_n` (r, r, n) on a grid of norms, and the diagonal (r,).
        radii, features: as in `Method.expand_series`.
    """
    degree, width, precision = method.degree, method.width.one, method.precision
    (powers, diagonal), (key_exact, key_w, key_signs) = kernel, jax.random.split(key, 3)
    dimension = max(features.nngp_vectors().dimension, 3)
    matrix = gegenbauer_from_powers(dimension, powers.shape[-1] - 1)[: degree + 1]
    kept, norms = powers @ matrix.T, np.geomspace(*radii, len(diagonal))
    method.check_tail(kept, diagonal, radii)
    factors = RadialFactors(*radii, kept, diagonal)
    energy = np.mean(factors.factors.on_host(norms) ** 2, axis=0)
    sizes = np.exp(np.minimum(log_harmonic_dimension(dimension, degree), 40.0)).round()
    chosen, left = _most_energetic(energy, sizes, width)
    keys = jax.random.split(key_exact, max(len(chosen), 1))
    exact = {
        (l, i): Harmonics.draw(features, l, int(sizes[l]), precision, own)
        for (l, i), own in zip(chosen, keys, strict=False)
    }
    directions = sampled = None
    if left:
        directions = Directions.draw(features, left, precision, key_w)
        sampled = Polynomials.draw(factors, degree, directions, key_signs)
        signs = sampled.signs
        for l, i in chosen:
            signs = signs.at[l, i].set(0)
        sampled = Polynomials(factors, signs, dimension)
    return HarmonicFeatures(factors, exact, directions, sampled, method.normalize)


def _most_energetic(
    energy: np.ndarray, sizes: np.ndarray, width: int
) -> tuple[list[tuple[int, int]], int]:
    """Components (l, i) to make exact, and the number of features left to sample the others."""
    density = energy / sizes[:, None]
    order = np.argsort(-density, axis=None, kind="stable")
    pairs = [divmod(int(at), energy.shape[1]) for at in order]
    used = np.r_[0, np.cumsum([sizes[l] for l, _ in pairs])]
    left = 1 - np.r_[0, np.cumsum([energy[pair] for pair in pairs])]
    fits = used < width
    if np.any(done := (left < _NEGLIGIBLE) & (used <= width)):
        count = int(np.argmax(done))
        return pairs[:count], 0
    variance = np.where(fits, left**2, np.inf) / np.where(fits, width - used, 1)
    count = int(np.argmin(variance))
    return pairs[:count], int(width - used[count])
