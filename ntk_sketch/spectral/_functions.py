"""`log_determinant` and `trace_of_function`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arguments import checked_integer
from .._typing import PRNGKey
from ._estimate import Estimate
from ._options import checked_options
from ._preconditioned import with_preconditioner
from ._series import series_of
from ._trace import LOG, Function, estimated


def log_determinant(
    operator: Any,
    *,
    key: PRNGKey,
    size: int | None = None,
    shift: Any = 0.0,
    method: str = "chebyshev",
    tolerance: float = 1e-2,
    absolute_tolerance: float = 0.0,
    probes: int | None = None,
    degree: int | None = None,
    interval: tuple[float, float] | None = None,
    rank: int = 0,
) -> Estimate:
    """log det(A + shift I) of a large symmetric positive definite operator, from its products.

    Use this when A + shift I is too large to be factored: kernels and precision matrices of more
    than some 10,000 rows, sparse ones of millions, Gram matrices of features that do not fit in
    memory. Below that, `numpy.linalg.slogdet` is exact and faster.

    With probes v of random signs,

        log det A = tr log A = E vᵀ log(A) v ≈ mean over probes of vᵀ p(A) v.

    * `method="chebyshev"`: p is the Chebyshev series of the logarithm on an interval [a, b] that
      holds all eigenvalues. Its degree N is the least one whose error, at most 2 q^(N+1) / ((N+1)
      (1-q)) for each eigenvalue, q = (√b - √a) / (√b + √a), keeps the truncation within a tenth of
      the tolerance: about ½ √(b / a) log(1 / tolerance).
    * `method="lanczos"`: Gauss quadrature from N steps of Lanczos, exact for polynomials of degree
      2N - 1. The exact vᵀ log(A) v of a vector v lies between the quadratures of Gauss and of
      Gauss-Radau. N grows until these differ by a tenth of the tolerance, and their difference is
      the bound. Choose it for kernels, which have few large eigenvalues: for a Gaussian kernel of
      800 points and λ = 1e-3 it takes 30 products where the series takes 428; λ = 1e-6 takes 110.
      Derivatives are those of matfree (`pip install "ntk-sketch[spectral]"`).
    * `method="randomized_chebyshev"`: the degree is random with mean `degree`, and coefficients are
      divided by the probability of their degree, so that the estimate is unbiased. Choose it for
      stochastic gradient steps of few products each.

    *Preconditioning.* The kernels of smooth functions have few large eigenvalues. With `rank` = r
    and `shift` = λ > 0 these are taken out of the estimate: a randomised Nyström approximation
    U diag(s) Uᵀ, from one product of A with r vectors, makes

        P = U diag(s + λ) Uᵀ + (s_r + λ) (I - UUᵀ),
        log det(A + λI) = log det P + tr log(P^(-1/2) (A + λI) P^(-1/2)).

    The first term is exact. The second has a condition number of about 1 + s_r / λ, so that it
    needs few steps if r is large enough, and few probes if few eigenvalues lie between λ and s_r.
    Interval and degree of the estimate are then those of the second.

    *Derivatives.* If the operator is an array or function of JAX, `jax.grad` may trace the values
    that it closes over, and `shift`. The derivative of a probe is wᵀ dA v with w ≈ A⁻¹ v from the
    same recurrence, and its mean is tr A⁻¹ dA. It takes one more vector in memory and the
    derivative of one product. Traced values cannot be checked: give an `interval` that is wide
    enough for all steps. Value and gradient are NaN if an eigenvalue is found outside of it (for
    "lanczos", if A has fewer different eigenvalues than there are steps). The default is then 8
    `probes`, and the degree is chosen for a tolerance relative to the largest |log| in the
    interval.

    Args:
      operator: A: an array (n, n), a SciPy sparse matrix or LinearOperator, a
        `solvers.GramState` (its ZᵀZ), a `FeatureGram`, or a function of JAX, v (n,) -> A v.
      key: of `jax.random`, for the probes. The same key gives the same estimate.
      size: n, if A is a function.
      shift: λ >= 0, the noise of a Gaussian process. With λ > 0 the operator must be positive
        semidefinite, and λ is the lower end of the interval.
      tolerance: relative error wanted, 0 <= tolerance < 1, of the standard error plus the bound of
        the truncation.
      absolute_tolerance: an error that is small enough whatever the value; the larger of the two
        counts. For evidences give it alone (tolerance=0): the unit of A decides where a
        log-determinant is 0.
      probes: their number; None: blocks of 8 (32 for a `FeatureGram`) until the tolerance is met,
        at most 512. The standard error falls as 1 / √probes. It is about √(2 / (n probes)) times
        the size of the off-diagonal rows of log A, so that a few are enough for large n.
      degree: of the polynomial, or steps of Lanczos; None: from interval and tolerance. Raise it
        for a smaller truncation error.
      interval: known bounds of the eigenvalues of A + shift I; None: by Gershgorin's theorem if A
        is sparse, and by some 20 to 400 steps of Lanczos, with a margin.
      rank: r of the preconditioner, with a shift above 0 and method="lanczos"; 0: there is none.

    Returns:
      An `Estimate`: value, standard error, truncation bound and settings.

    Cost: one product with 8 vectors for each block of probes and every 2 degrees (every degree if
    traced); memory for 3 blocks of n x 8 float64 numbers, or with matfree N vectors. With a rank a
    product with r vectors, a singular value decomposition of (n, r), 4 n r numbers, and 8 n r FLOPs
    more for each vector of a product.

    Raises:
      ValueError: a rank without a shift, with another method or of a traced operator; the operator
        is not square, symmetric or positive definite, or has NaN; products
        show an eigenvalue outside of the interval; the condition number needs more than 10,000
        degrees; 400 products do not find the smallest eigenvalue.
      TypeError: the operator is of an unknown kind, or a function without `size`.
      ImportError: `method="lanczos"` of a traced operator without matfree.

    Warns:
      RuntimeWarning: 512 probes do not meet the tolerance.

    Source: I. Han, D. Malioutov, J. Shin (2015), arXiv 1503.06394; I. Han, D. Malioutov, H. Avron,
      J. Shin (2016), arXiv 1606.00942; S. Ubaru, J. Chen, Y. Saad, SIAM J. Matrix Anal. Appl. 38
      (2017), 1075; random degrees: I. Han, H. Avron, J. Shin (2018), arXiv 1802.06355;
      preconditioning: J. Wenger, G. Pleiss, P. Hennig, J. Cunningham, J. Gardner (2021), arXiv
      2107.00243.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> import scipy.sparse
      >>> import ntk_sketch as ns
      >>> n, key = 20_000, jax.random.key(0)
      >>> chain = scipy.sparse.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(n, n))
      >>> found = ns.spectral.log_determinant(chain, key=key, tolerance=1e-3)
      >>> bool(abs(found.value / (n * np.log(2)) - 1) < 4e-3)  # the larger root of r² - 2.5 r + 1
      True
      >>> kernel = jnp.exp(-jnp.abs(jnp.arange(50.0)[:, None] - jnp.arange(50.0)[None]))
      >>> def evidence_part(scale):
      ...     product = lambda v: scale * (kernel @ v)
      ...     options = {"size": 50, "shift": 0.1, "interval": (0.1, 5.0), "key": key}
      ...     return ns.spectral.log_determinant(product, **options).value
      >>> slope = jax.grad(evidence_part)(1.0)
    """
    given = method, tolerance, absolute_tolerance, probes, degree, interval
    options = checked_options(*given, True)
    if checked_integer(rank, "rank", least=0):
        return with_preconditioner(operator, size, shift, key, options, rank)
    return estimated(operator, LOG, size, shift, key, options)


def trace_of_function(
    operator: Any,
    f: Callable[[Any], Any],
    *,
    key: PRNGKey,
    size: int | None = None,
    shift: Any = 0.0,
    method: str = "chebyshev",
    tolerance: float = 1e-2,
    absolute_tolerance: float = 0.0,
    probes: int | None = None,
    degree: int | None = None,
    interval: tuple[float, float] | None = None,
) -> Estimate:
    """tr f(A + shift I) = Σ_i f(λ_i) of a large symmetric operator, from its products.

    Use this for the effective dimension of a kernel, tr K (K + λI)⁻¹, for traces of inverses,
    Estrada indices (f = exp), Schatten norms and counts of eigenvalues by a smooth step. For f =
    log use `log_determinant`, whose series has a closed form.

    It works like `log_determinant`. The Chebyshev series of f is computed from its values at
    Chebyshev points. Its coefficients must fall to rounding within 32,768 terms, so that f must not
    have a kink within the interval. `jax.grad` gives the derivative of the trace, tr f'(A) dA, with
    f' from the series; f may be a function of NumPy, except for quadrature by matfree.

    For a `GramState` or `FeatureGram` the shift is the lower end of the interval, since their
    eigenvalues are not negative.

    Args:
      f: an elementwise function of arrays of eigenvalues, of NumPy or JAX.
      operator, key, size, tolerance, absolute_tolerance, probes, degree, method: as in
        `log_determinant`.
      shift: added to the eigenvalues before f.
      interval: bounds of the eigenvalues of A + shift I, on which f is smooth; None: found by
        Lanczos, with a margin of 2 % of its length, or down to 0.7 times the least eigenvalue where
        all are above 0.

    Returns:
      An `Estimate`.

    Cost, Raises, Warns: as `log_determinant`.
      ValueError: f is not finite or not smooth on the interval, or not a function of arrays.

    Source: as `log_determinant`.

    Example: the effective dimension of a kernel.

      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> x = np.linspace(0, 1, 300)
      >>> kernel = np.exp(-np.abs(x[:, None] - x))
      >>> def share(s):
      ...     return s / (s + 0.1)
      >>> found = ns.spectral.trace_of_function(
      ...     kernel, share, interval=(0.0, 260.0), key=jax.random.key(0))
      >>> exact = np.sum(share(np.linalg.eigvalsh(kernel)))
      >>> bool(abs(found.value - exact) < 5 * found.standard_error)
      True
    """
    if not callable(f):
        raise TypeError(f"f must be a function of arrays, got {type(f).__name__}")
    given = method, tolerance, absolute_tolerance, probes, degree, interval
    options = checked_options(*given, False)
    function = Function(f, lambda low, high: series_of(function.on_host, low, high), False)
    return estimated(operator, function, size, shift, key, options)
