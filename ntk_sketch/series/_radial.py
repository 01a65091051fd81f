"""Radial factors: series of zonal kernels with coefficients that are sums of products."""

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array
from ..activations._dual import DualActivation
from ._gegenbauer import gegenbauer_from_powers
from ._spline import LogSpline
from ._table import HermiteTable

#: Radial components with less than this share of the kernel's diagonal are left out.
_LEAST_ENERGY = 1e-8


class RadialFactors(eqx.Module):
    r"""`k(x, x') = √(k(x, x) k(x', x')) Σ_l Σ_i h_{l,i}(r) h_{l,i}(r') B_l(ρ)`, tabulated.

    Let `B_l` be powers or Gegenbauer polynomials. The coefficients of a positive definite kernel
    that depends only on cosine and norms are positive definite in the norms (Schoenberg 1942). On a
    grid of norms they are matrices `A_l`. Their eigenvectors, times the roots of the eigenvalues,
    are the components i. Few of them matter; one, if the kernel is homogeneous.

    Args:
        first, last: the smallest and largest norm of a uniform grid in log r.
        coefficients: `A_l` (r, r, degree + 1), on the grid.
        diagonal: `k(x, x)` (r,).

    Source: Han, Zandieh and Avron 2022 (arXiv 2202.03474), generalised zonal kernels.
    """

    factors: LogSpline
    log_diagonal: LogSpline

    def __init__(
        self,
        first: float,
        last: float,
        coefficients: Float[np.ndarray, "r r l"],
        diagonal: Float[np.ndarray, " r"],
    ):
        diagonal = np.maximum(diagonal, np.finfo(np.float64).tiny)
        scale = np.sqrt(np.outer(diagonal, diagonal))[..., None]
        values, vectors = np.linalg.eigh(np.moveaxis(coefficients / scale, -1, 0))
        energy = values[:, ::-1] / len(diagonal)
        count = max(int(np.sum(np.any(energy > _LEAST_ENERGY, axis=0))), 1)
        factors = vectors[..., ::-1] * np.sqrt(np.maximum(values[:, None, ::-1], 0))
        factors = np.moveaxis(factors[..., :count], 0, 1)
        # The signs of eigenvectors are arbitrary.
        factors *= np.where(factors.sum(axis=0) < 0, -1, 1)
        self.factors = LogSpline(first, last, factors)
        self.log_diagonal = LogSpline(first, last, np.log(diagonal), beyond="linear")

    @property
    def components(self) -> int:
        return self.factors.coefficients.shape[-1]

    def __call__(self, radius: Float[Array, "*r"]) -> Float[Array, "*r l i"]:
        """`h_{l,i}(r)`."""
        return self.factors(radius)

    def diagonal(self, radius: Float[Array, "*r"]) -> Float[Array, "*r"]:
        """`k(x, x)`; a power law beyond the grid."""
        return jnp.exp(self.log_diagonal(radius))


class GegenbauerFactors(eqx.Module):
    r"""`h_{l,i}(r)` of a nonlinearity's kernel in Gegenbauer polynomials, l = 0..degree.

    Hermite coefficients and `ρ^n = Σ_l M[l, n] P_l(ρ)` give `A_l(r, r') = Σ_n M[l, n] ĉ_n(r)
    ĉ_n(r') + M[l, degree] τ(r) τ(r')`. The `h_{l,i}` are therefore linear combinations of the
    `√M[l, n] ĉ_n(r)`, rotated so that few of them matter, and with the sign of `ĉ_l`. The tail `τ =
    √(1 - Σ_n ĉ_n²)` is added to the last power, which keeps the diagonal, `Σ_l Σ_i h_{l,i}(r)² =
    1`.

    Args:
        dimension: of the vectors on the sphere.
        others: as in `HermiteTable`.
    """

    table: HermiteTable
    rotation: Float[Array, "n l i"]

    def __init__(
        self,
        sigma: DualActivation,
        degree: int,
        dimension: int,
        *,
        derivative: bool,
        radii: tuple[float, float],
        max_tail: float | None = None,
    ):
        self.table = HermiteTable(
            sigma, degree, derivative=derivative, radii=radii, tail=True, max_tail=max_tail
        )
        grid = np.geomspace(*radii, 256)
        hermite = self.table.spline.on_host(grid)
        roots = np.sqrt(gegenbauer_from_powers(dimension, degree))  # (l, n)
        roots = np.c_[roots, roots[:, -1]]  # and the tail
        components = hermite * roots[:, None]  # (l, r, n)
        energy, rotation = np.linalg.eigh(np.swapaxes(components, 1, 2) @ components / len(grid))
        count = max(int(np.sum(np.any(energy[:, ::-1] > _LEAST_ENERGY, axis=0))), 1)
        rotation = roots[..., None] * rotation[..., ::-1][..., :count]  # (l, n, i)
        rotation = np.moveaxis(rotation, 0, 1)
        factors = np.einsum("rn,nli->rli", hermite, rotation)
        signs = np.where(np.einsum("rli,rl->li", factors, hermite[:, :-1]) < 0, -1, 1)
        rotation = rotation * signs
        self.rotation = jnp.asarray(rotation, jnp.result_type(float))

    @property
    def components(self) -> int:
        return self.rotation.shape[-1]

    def __call__(self, radius: Float[Array, "*r"]) -> Float[Array, "*r l i"]:
        """`h_{l,i}(r)`."""
        hermite = self.table(radius)
        return jnp.einsum(
            "...n,nli->...li", hermite, self.rotation.astype(hermite.dtype), precision="highest"
        )
