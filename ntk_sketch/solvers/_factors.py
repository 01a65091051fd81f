"""One Cholesky factor in float64 for each regulariser."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from .._typing import Inputs
from ..numerics._linalg import factor, factor_solved, inverse_norm, lower_solved, product
from ._decomposition import Decomposition, Roots
from ._spectrum import Spectrum

#: Products with the matrix that an estimate of its largest eigenvalue takes.
_STEPS = 20


class _Found(NamedTuple):
    """Of one λ."""

    solution: Float[np.ndarray, "s k"]  # for targets in units
    condition: float


class Factors(Decomposition):
    """G + λI = L Lᵀ with G = ZᵀZ or ZZᵀ, and what `Decomposition` needs of it.

    Cost of each λ: s³ / 3 FLOPs and 8 s² bytes for s = `size` directions, where all eigenvalues and
    eigenvectors cost 9 s³, half of them bound by memory; as much again for the trace of the
    inverse, which generalised cross-validation needs, and b s² for b examples left out. The factor
    of the last λ alone is kept, and a trace takes its memory: ask for all that one λ needs before
    the next, the trace last.

    Nothing is dropped here. Where the spectrum would drop a direction (`Spectrum`): the smallest
    eigenvalue of G + λI is below its rounding error, or so negative without λ that λ does not stand
    out; that λ is solved by the spectrum. It serves the later ones too, for s² FLOPs each.
    """

    def _set_system(self, matrix: Float[Inputs, "s s"], right_side: Float[np.ndarray, "s k"]):
        """`(G + λI) solution = right_side`."""
        self._matrix, self._right_side = matrix, right_side
        self._largest = _largest_eigenvalue(lambda v: product(matrix, v), len(matrix))
        self._found: dict[float, _Found] = {}
        self._inverse_traces: dict[float, float] = {}  # of (G + λI)⁻¹
        self._factor: tuple[float, Float[Inputs, "s s"]] | None = None
        self._spectrum: Spectrum | None = None

    @abc.abstractmethod
    def _decomposed(self) -> Spectrum:
        """The spectrum, which may overwrite G."""

    @abc.abstractmethod
    def _weights(self, solution: Float[np.ndarray, "s k"]) -> Float[np.ndarray, "p k"]:
        """W in units."""

    @abc.abstractmethod
    def _residual_sums(
        self, penalty: float, solution: Float[np.ndarray, "s k"]
    ) -> tuple[float, float, float]:
        """As `residual_sums`."""

    @abc.abstractmethod
    def _left_out(
        self,
        rows: Float[np.ndarray, "b r"],
        y: Float[np.ndarray, "b k"],
        penalty: float,
        roots: Roots,
        solution: Float[np.ndarray, "s k"],
    ) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, " b"]]:
        """As `left_out`."""

    @property
    def size(self) -> int:
        return len(self._right_side)

    def rank(self, penalty: float) -> int:
        return self.size if self._of(penalty) else self._by_spectrum().rank(penalty)

    def condition(self, penalty: float) -> float:
        found = self._of(penalty)
        return found.condition if found else self._by_spectrum().condition(penalty)

    def deficiency(self, penalty: float) -> str:
        return "" if self._of(penalty) else self._by_spectrum().deficiency(penalty)

    def stands_out(self, penalty: float) -> bool:
        """Whether a factor does, and the spectrum is not needed."""
        return self._of(penalty) is not None or self._spectrum is not None

    def weights(self, penalty: float) -> Float[np.ndarray, "p k"]:
        found = self._of(penalty)
        if found is None:
            return self._by_spectrum().weights(penalty)
        return np.ldexp(self._weights(found.solution), self.units.exponent)

    def residual_sums(self, penalty: float) -> tuple[float, float, float]:
        found = self._of(penalty)
        if found is None:
            return self._by_spectrum().residual_sums(penalty)
        return self._residual_sums(penalty, found.solution)

    def left_out(
        self,
        rows: Float[np.ndarray, "b r"],
        y: Float[np.ndarray, "b k"],
        penalty: float,
        roots: Roots = None,
    ) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, " b"]]:
        found = self._of(penalty)
        if found is None or self._spectrum is not None:
            spectrum = self._by_spectrum()
            return spectrum.left_out(spectrum.rotated(rows), y, penalty, roots)
        return self._left_out(rows, y, penalty, roots, found.solution)

    def _of(self, penalty: float) -> _Found | None:
        """None: by the spectrum."""
        if penalty not in self._found and self._spectrum is None:
            self._find(penalty)
        return self._found.get(penalty)

    def _find(self, penalty: float) -> None:
        try:
            lower = self._lower(penalty)
        except np.linalg.LinAlgError:
            return

        def solved(columns):
            return factor_solved(lower, columns)

        smallest = 1 / _largest_eigenvalue(solved, self.size)
        rounding = self.size * float(np.finfo(np.float64).eps) * self._largest
        if smallest <= max(rounding, -2 * (smallest - penalty)):
            return
        found = solved(self._right_side)
        error = self._right_side - product(self._matrix, found) - penalty * found
        found = found + solved(error)  # one step of refinement
        self._found[penalty] = _Found(found, (self._largest + penalty) / smallest)

    def _lower(self, penalty: float) -> Float[Inputs, "s s"]:
        """L."""
        if self._factor is None or self._factor[0] != penalty:
            self._factor = None  # its memory, before that of the next
            self._factor = penalty, factor(self._matrix, penalty)
        return self._factor[1]

    def _squares(
        self, penalty: float, columns: Float[np.ndarray, "s b"]
    ) -> Float[np.ndarray, " b"]:
        """vᵀ (G + λI)⁻¹ v of every column v."""
        turned = lower_solved(self._lower(penalty), columns)
        return np.einsum("ij,ij->j", turned, turned)

    def _inverse_trace(self, penalty: float) -> float:
        """‖L⁻¹‖², of an inverse in the memory of L."""
        if penalty not in self._inverse_traces:
            lower, self._factor = self._lower(penalty), None
            self._inverse_traces[penalty] = inverse_norm(lower)
        return self._inverse_traces[penalty]

    def _by_spectrum(self) -> Spectrum:
        if self._spectrum is None:
            self._factor = None
            self._spectrum = self._decomposed()
        return self._spectrum


def _largest_eigenvalue(product: Callable[[np.ndarray], np.ndarray], size: int) -> float:
    """Of a positive semi-definite matrix, by k = `_STEPS` steps of Lanczos: from below, with a mean
    relative error of at most 0.103 (log n / (k - 1))², whatever the spectrum.

    0 of a zero matrix.

    J. Kuczyński, H. Woźniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), 1094-1122.
    """
    vector = np.random.default_rng(0).normal(size=size)
    basis = np.zeros((0, size))
    diagonal, beside = [], []
    for _ in range(min(_STEPS, size)):
        norm = np.linalg.norm(vector)
        if len(basis) and norm <= 1e-12 * max(diagonal):
            break  # the basis holds all that the matrix does to it
        beside.append(norm)
        basis = np.concatenate([basis, vector[None] / norm])
        vector = product(basis[-1])
        diagonal.append(float(basis[-1] @ vector))
        vector = vector - (vector @ basis.T) @ basis
        vector = vector - (vector @ basis.T) @ basis  # once more, for what rounding left
    return float(scipy.linalg.eigvalsh_tridiagonal(diagonal, beside[1:])[-1])
