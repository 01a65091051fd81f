"""Kernels of fully connected nets as power series in the cosine of their inputs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..activations._dual import DualActivation
from ._hermite import hermite_coefficients


class KernelSeries(NamedTuple):
    """Both kernels of a network as power series in the cosine ρ of two inputs.

    Use this in the method `series` of a `Rule`, which takes and returns such an object.

    `K(x, x') = Σ_n nngp[i, j, n] ρ^n` for inputs of norms `r_i` and `r_j`, and Θ likewise. Every
    matrix `nngp[:, :, n]` is positive semidefinite (Schoenberg 1942). A nonlinearity adds its
    coefficients above the last degree to the last one, so that for one nonlinearity and equal norms
    both kernels are right at ρ = 1. Compositions and products drop higher degrees.

    Attributes:
        nngp, ntk: coefficients (r, r, degree + 1); `ntk` is `None` if it was not asked for.
        variances: exact `K(x, x)` at every norm (r,).
        ntk_variances: exact `Θ(x, x)`, or `None`.
        channels: of the finite network.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch import stax
        >>> from ntk_sketch.series import input_series
        >>> series = input_series(np.array([1.0, 2.0]), degree=4, ntk=True, channels=3)
        >>> for part in (stax.Dense(1), stax.Relu()):
        ...     series = part.rule.series(series)
        >>> series.nngp.shape  # norms, norms, powers
        (2, 2, 5)
    """

    nngp: Float[np.ndarray, "r r l"]
    ntk: Float[np.ndarray, "r r l"] | None
    variances: Float[np.ndarray, " r"]
    ntk_variances: Float[np.ndarray, " r"] | None
    channels: int

    def kernels(self):
        """Coefficients and diagonal of K, and then of Θ if there is one."""
        yield self.nngp, self.variances
        if self.ntk is not None and self.ntk_variances is not None:
            yield self.ntk, self.ntk_variances

    def map(self, nngp, ntk) -> "KernelSeries":
        """`nngp(K)` and `ntk(K, Θ)`, applied to both coefficients and variances."""
        mapped = self._replace(nngp=nngp(self.nngp), variances=nngp(self.variances))
        if self.ntk is None or self.ntk_variances is None:
            return mapped
        return mapped._replace(
            ntk=ntk(self.nngp, self.ntk), ntk_variances=ntk(self.variances, self.ntk_variances)
        )

    def affine(
        self, weight: float, bias: float | None, ntk_weight: float, ntk_bias: float | None
    ) -> "KernelSeries":
        """`K' = weight² K + bias²`, `Θ' = weight² Θ + ntk_weight² K + ntk_bias²`."""

        def shifted(values, shift):
            if shift is None:
                return values
            if values.ndim == 1:
                return values + shift**2
            return np.concatenate([values[..., :1] + shift**2, values[..., 1:]], axis=-1)

        return self.map(
            lambda k: shifted(weight**2 * k, bias),
            lambda k, theta: shifted(weight**2 * theta + ntk_weight**2 * k, ntk_bias),
        )

    def scaled(self, factor: float) -> "KernelSeries":
        return self.map(lambda k: factor * k, lambda k, theta: factor * theta)

    def plus(self, other: "KernelSeries") -> "KernelSeries":
        """The series of a sum of independent branches."""
        total = self._replace(
            nngp=self.nngp + other.nngp, variances=self.variances + other.variances
        )
        if self.ntk is None or self.ntk_variances is None:
            return total
        return total._replace(
            ntk=self.ntk + other.ntk, ntk_variances=self.ntk_variances + other.ntk_variances
        )

    def times(self, other: "KernelSeries") -> "KernelSeries":
        """The series of a product of independent branches, `Θ' = Θ K̃ + K Θ̃`.

        Cost: O(r² degree²) FLOPs.
        """
        through = self._replace(
            nngp=_product(self.nngp, other.nngp), variances=self.variances * other.variances
        )
        if self.ntk is None or other.ntk is None:
            return through
        return through._replace(
            ntk=_product(self.ntk, other.nngp) + _product(self.nngp, other.ntk),
            ntk_variances=self.ntk_variances * other.variances
            + self.variances * other.ntk_variances,
        )

    def layer_norm(self, eps: float) -> "KernelSeries":
        """`K / √((q + eps) (q' + eps))`, Θ likewise."""
        factor = (self.variances + eps) ** -0.5

        def divided(values):
            if values.ndim == 1:
                return values * factor**2
            return values * np.outer(factor, factor)[..., None]

        return self.map(divided, lambda k, theta: divided(theta))

    def nonlinearity(self, dual: DualActivation) -> "KernelSeries":
        r"""`K' = Σ_n c_n(√q) c_n(√q') (K / √(q q'))^n`, `Θ' = Σ_n c'_n(√q) c'_n(√q') (...)^n Θ`.

        Cost: O(r² degree³) FLOPs for each kernel.
        """
        degree = self.nngp.shape[-1] - 1
        radii = np.sqrt(self.variances)
        inner = self.nngp / (radii[:, None, None] * radii[:, None])
        outer = hermite_coefficients(dual, radii, degree)
        through = self._replace(nngp=_composed(_pairs(outer), inner), variances=outer.second_moment)
        if self.ntk is None or self.ntk_variances is None:
            return through
        derivative = hermite_coefficients(dual, radii, degree, derivative=True)
        return through._replace(
            ntk=_product(_composed(_pairs(derivative), inner), self.ntk),
            ntk_variances=derivative.second_moment * self.ntk_variances,
        )


def input_series(
    radii: Float[np.ndarray, " r"], degree: int, *, ntk: bool, channels: int
) -> KernelSeries:
    """The series at the input of a network: `K = r r' ρ`, `Θ = 0` for root mean squares r.

    Use this as the start of a recursion over the layers' rules.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.series import input_series
        >>> series = input_series(np.array([1.0, 2.0]), degree=4, ntk=True, channels=3)
        >>> series.ntk is None
        False
    """
    nngp = np.zeros((len(radii), len(radii), degree + 1))
    nngp[..., 1] = np.outer(radii, radii)
    zero = np.zeros(len(radii)) if ntk else None
    return KernelSeries(nngp, np.zeros_like(nngp) if ntk else None, radii**2, zero, channels)


def _pairs(outer) -> Float[np.ndarray, "r r l"]:
    """`c_n(r) c_n(r')`, with the tail added to the last degree."""
    values, left = outer.values, np.sqrt(outer.tail * outer.second_moment)
    products = values[:, None] * values
    products[..., -1] += np.outer(left, left)
    return products


def _composed(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """`Σ_n outer_n inner^n`, truncated to the degree of `inner`, by Horner's rule."""
    result = np.zeros_like(inner)
    for n in range(outer.shape[-1] - 1, -1, -1):
        result = _product(result, inner)
        result[..., 0] += outer[..., n]
    return result


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of two power series, truncated to their degree."""
    size = a.shape[-1]
    result = np.zeros_like(a)
    for n in np.flatnonzero(b.reshape(-1, size).any(axis=0)):
        result[..., n:] += b[..., n : n + 1] * a[..., : size - n]
    return result
