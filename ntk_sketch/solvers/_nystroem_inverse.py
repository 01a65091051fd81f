"""A preconditioner from products with a few random vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from jaxtyping import Float

Map = Callable[[Float[np.ndarray, "p k"]], Float[np.ndarray, "p k"]]


class NystroemInverse:
    """Nearly (G + λI)⁻¹, up to a factor, for the largest eigenvalues s of a Gram matrix G.

    The randomised Nyström approximation U diag(s) Uᵀ of rank l, from one product of G with l
    orthonormal vectors, is inverted for every λ; what is orthogonal to U is taken for an eigenspace
    of its least value, that is (s_l + λ) U diag(1 / (s + λ)) Uᵀ + I - U Uᵀ. The condition number
    behind it is about (s_l + λ) / λ, whatever the largest eigenvalue.

    `root_at`, `log_determinant` and `least` are of P = U diag(s + λ) Uᵀ + (s_l + λ) (I - U Uᵀ), the
    same without that factor.

    Source: Z. Frangella, J. A. Tropp, M. Udell, *Randomized Nyström preconditioning* (2021),
      2110.02820, algorithm 2.1 and eq. 5.3.

    Args:
      product: with G.
      eps: relative rounding error of a product.
    """

    def __init__(self, product: Map, p: int, rank: int, eps: float):
        random = np.random.default_rng(0).normal(size=(p, min(rank, p)))
        vectors = np.linalg.qr(random)[0]
        images = product(vectors)
        shift = np.sqrt(p) * eps * float(np.linalg.norm(images))
        images += shift * vectors  # or rounding makes the small matrix indefinite
        small = vectors.T @ images
        values, turned = scipy.linalg.eigh((small + small.T) / 2, check_finite=False)
        roots = np.sqrt(np.where(values > shift / 2, values, np.inf))  # others are rounding
        factor = images @ (turned / roots)
        self._vectors, singular, _ = scipy.linalg.svd(
            factor, full_matrices=False, overwrite_a=True, check_finite=False
        )
        self._values, self.rounding = np.maximum(singular**2 - shift, 0.0), shift
        self.largest = float(self._values[0])

    def at(self, penalty: float) -> Map:
        """The map of vectors (p, k) for this λ."""
        change = (self._values[-1] + penalty) / (self._values + penalty) - 1.0

        def inverse(v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
            return v + self._vectors @ (change[:, None] * (self._vectors.T @ v))

        return inverse

    def root_at(self, penalty: float) -> Map:
        """P^(-1/2), of vectors (p, k), for this λ."""
        rest = self._values[-1] + penalty
        change = np.sqrt(rest / (self._values + penalty)) - 1.0

        def inverse_root(v: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
            turned = self._vectors @ (change[:, None] * (self._vectors.T @ v))
            return (v + turned) / np.sqrt(rest)

        return inverse_root

    def log_determinant(self, penalty: float) -> float:
        """log det P, for this λ."""
        (p, rank), values = self._vectors.shape, self._values + penalty
        return float(np.sum(np.log(values)) + (p - rank) * np.log(values[-1]))

    def least(self, penalty: float) -> float:
        """A lower bound of the eigenvalues of P^(-1/2) (G + λI) P^(-1/2).

        With rounding ν of products, U diag(s) Uᵀ is not above G + νI, and G + λI is at least
        λ / (λ + ν) (G + (λ + ν) I).
        """
        rounded = penalty / (penalty + self.rounding)
        return float(rounded * penalty / (self._values[-1] + penalty))
