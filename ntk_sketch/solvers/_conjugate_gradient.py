"""Conjugate gradients for many right-hand sides that share their products."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from .._arguments import checked_integer

Map = Callable[[Float[np.ndarray, "p k"]], Float[np.ndarray, "p k"]]


class Report(NamedTuple):
    """Numbers of a regression solved by conjugate gradients: `solution.report`.

    Use this to see whether it has converged.

    Attributes:
      iterations: products with ZᵀZ, each of them a pass over the features.
      residual: ‖(ZᵀZ + λI) W - ZᵀY‖ / ‖ZᵀY‖ of the worst output, from a product with W itself.
      condition: a lower estimate of the condition number of the preconditioned system.
      converged: whether the residual is at most the tolerance.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> report = ns.ridge(features, x, np.sin(x), diag_reg=1e-2, solver="cg").report
      >>> report.iterations < 10 and report.residual < 1e-6
      True
    """

    iterations: int
    residual: float
    condition: float
    converged: bool


class ConjugateGradient:
    """Solves a regression without its Gram matrix: `ridge(..., solver=ConjugateGradient())`.

    Use this for widths at which ZᵀZ does not fit in memory or costs too much: p² numbers (7 GB at
    p = 30,000) and n p² FLOPs. For smaller widths the Gram matrix is faster, as it takes one pass.
    `solver="cg"` means the defaults.

    (ZᵀZ + λI) W = ZᵀY is solved by products Zᵀ(Z V) for all outputs together, each a pass over the
    features. They are computed again in every pass, unless `keep_features` keeps them in memory
    (True) or in a file (`FeatureCache`, which may round them). Products are in float64 on a CPU. On
    an accelerator they are of features minus their mean, in float32 at the highest precision within
    a batch and in float64 between batches. Residuals at the start and at the end of iterations, two
    or three for each regulariser, are in float64 everywhere, so that the tolerance may be below
    float32's.

    The preconditioner inverts ZᵀZ + λI on the `rank` directions of its largest eigenvalues, for all
    regularisers. They are found by one product with `rank` random vectors (the randomised Nyström
    approximation). The remaining condition number is about the ratio of the next eigenvalue to λ:
    if it is small, a few iterations are enough. A small `diag_reg` with many examples may need a
    rank close to the width.

    Iterations for an output end when its relative residual is at most `tolerance`. The final
    residual is computed by one more product, without accumulated rounding; if it is too large,
    iterations continue. `solution.report` has the numbers, and a warning if there is no
    convergence.

    With a `mesh=` of one process, its devices share the features of a batch and, except on CPUs,
    its products. With several processes each multiplies with its own examples, and the first one
    iterates on the sums: 8 p k bytes from each for every product.

    A path of `diag_reg` is solved one value after the other, starting from the weights of the
    nearest one before. Selection needs held-out examples: `(x_val, y_val)` or `HoldOut`. GCV and
    leave-one-out need the trace or diagonal of the hat matrix, which products do not give.

    Cost: iterations + 3 passes over the features, 4 n p k FLOPs each, one of them 4 n p `rank`; a
    singular value decomposition of (p, `rank`). Memory: about 4 p `rank` float64 numbers during
    that, then p `rank`, and six times the weights.

    Args:
      tolerance: of the residual, 0 < tolerance < 1.
      max_iterations: for each regulariser.
      rank: of the preconditioner. Raise it for fewer iterations, at the cost of memory.

    Source: M. R. Hestenes, E. Stiefel, J. Res. Natl. Bur. Stand. 49 (1952), 409-436;
      Z. Frangella, J. A. Tropp, M. Udell, *Randomized Nyström preconditioning* (2021), 2110.02820.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> from ntk_sketch.solvers import ConjugateGradient
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.RandomFeatures(8), key=jax.random.key(0))
      >>> solver = ConjugateGradient(tolerance=1e-8, rank=8)
      >>> solution = ns.ridge(features, x, np.sin(x), diag_reg=1e-2, solver=solver)
      >>> solution.report.converged
      True
    """

    def __init__(self, tolerance: float = 1e-6, max_iterations: int = 100, rank: int = 512):
        real = isinstance(tolerance, numbers.Real) and not isinstance(tolerance, bool)
        if not real or not 0 < float(tolerance) < 1:
            raise ValueError(
                f"ConjugateGradient: tolerance={tolerance!r}; needed: a number, 0 < tolerance < 1"
            )
        self.tolerance = float(tolerance)
        self.max_iterations = checked_integer(max_iterations, "max_iterations")
        self.rank = checked_integer(rank, "rank")

    def solve(
        self,
        product: Map,
        precondition: Map,
        right: Float[np.ndarray, "p k"],
        start: Float[np.ndarray, "p k"] | None,
        exactly: Map | None = None,
    ) -> tuple[Float[np.ndarray, "p k"], Report]:
        """W with `product(W) = right`.

        Args:
          product, precondition: with symmetric positive definite matrices.
          start: a guess.
          exactly: `product` with less rounding, for residuals that iterations begin and end with;
            None: there is no other.
        """
        exactly = exactly or product
        norms = np.linalg.norm(right, axis=0)
        norms = np.where(norms > 0, norms, 1.0)
        w = np.zeros_like(right) if start is None else start.copy()
        residual = right if start is None else right - exactly(w)
        iterations, condition, before = 0, 1.0, math.inf
        while True:
            worst = float(np.max(np.linalg.norm(residual, axis=0) / norms))
            left = self.max_iterations - iterations
            done = worst <= self.tolerance
            if done or left <= 0 or worst > before / 2:
                return w, Report(iterations, worst, condition, done)
            before = worst
            step, more, found = _iterate(
                product, precondition, residual, norms, self.tolerance, left
            )
            w, iterations, condition = w + step, iterations + more, max(condition, found)
            residual = right - exactly(w)


def checked_solver(solver: Any) -> ConjugateGradient | None:
    """The solver that a name stands for; None: by a decomposition.

    Raises:
      ValueError: no such solver.
    """
    if isinstance(solver, str) and solver == "cg":
        return ConjugateGradient()
    if solver is None or isinstance(solver, ConjugateGradient):
        return solver
    raise ValueError(
        f"solver={solver!r} is unknown; known: None (the Gram matrix and its decomposition), 'cg',"
        " or ConjugateGradient(tolerance=..., max_iterations=..., rank=...)"
    )


def _iterate(
    product: Map,
    precondition: Map,
    residual: Float[np.ndarray, "p k"],
    norms: Float[np.ndarray, " k"],
    tolerance: float,
    most: int,
) -> tuple[Float[np.ndarray, "p k"], int, float]:
    """What to add for the residual to vanish, iterations, and the condition that they saw.

    Every output has its own steps; those that are done take no further part.
    """
    total, residual = np.zeros_like(residual), residual.copy()
    active = np.flatnonzero(np.linalg.norm(residual, axis=0) > tolerance * norms)
    turned = precondition(residual[:, active])
    direction, along = turned, _dots(residual[:, active], turned)
    steps = [([], []) for _ in norms]  # of each output: sizes, and shares of the direction before
    iterations = 0
    while len(active) and iterations < most:
        image = product(direction)
        size = along / _dots(direction, image)
        total[:, active] += size * direction
        residual[:, active] -= size * image
        iterations += 1
        # half the tolerance, for what the recurrence loses to rounding
        kept = np.linalg.norm(residual[:, active], axis=0) > tolerance / 2 * norms[active]
        for output, a in zip(active, size, strict=True):
            steps[output][0].append(a)
        active = active[kept]
        turned = precondition(residual[:, active])
        before, along = along[kept], _dots(residual[:, active], turned)
        share = along / before
        for output, b in zip(active, share, strict=True):
            steps[output][1].append(b)
        direction = turned + share * direction[:, kept]
    return total, iterations, max(map(_condition, steps))


def _dots(a: Float[np.ndarray, "p k"], b: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " k"]:
    return np.einsum("ij,ij->j", a, b)


def _condition(steps: tuple[list[float], list[float]]) -> float:
    """Of the tridiagonal matrix of Lanczos, which the steps of conjugate gradients make.

    G. H. Golub, C. F. Van Loan, Matrix Computations (4th ed.), 11.3.5.
    """
    sizes, shares = map(np.asarray, steps)
    if len(sizes) < 2:
        return 1.0
    shares = shares[: len(sizes) - 1]
    diagonal = 1 / sizes
    diagonal[1:] += shares / sizes[:-1]
    values = scipy.linalg.eigvalsh_tridiagonal(diagonal, np.sqrt(shares) / sizes[:-1])
    return float(values[-1] / values[0])
