"""`log_determinant` and `trace_of_function`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .._typing import PRNGKey
from ._estimate import Estimate
from ._series import log_series, series_of
from ._trace import Function, checked_options, estimated


def log_determinant(
    operator: Any,
    *,
    key: PRNGKey,
    size: int | None = None,
    shift: Any = 0.0,
    method: str = "chebyshev",
    tolerance: float = 1e-2,
    probes: int | None = None,
    degree: int | None = None,
    interval: tuple[float, float] | None = None,
) -> Estimate:
    """log det(A + shift I) of a large symmetric positive definite operator, by its products alone.

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
      2N - 1. N grows until the quadratures of Gauss and of Gauss and Radau, between which the exact
      vᵀ log(A) v of a vector v is, differ by a tenth of the tolerance; their difference is then
      the bound. Take it for kernels, which have few large eigenvalues: for a Gaussian kernel of 800
      points and λ = 1e-3 it takes 30 products where the series takes 428, and λ = 1e-6 takes 110.
      Derivatives are matfree's (`pip install "ntk-sketch[spectral]"`).
    * `method="randomized_chebyshev"`: the degree is random, with the mean that `degree` is, and
      coefficients are divided by the probability of their degree, so that there is no truncation
      error on average: for stochastic gradient steps of few products each.

    *Derivatives.* Of an array or function of JAX, `jax.grad` may trace what it closes over and
    `shift`. The derivative of a probe is wᵀ dA v, w ≈ A⁻¹ v by the same recurrence, with mean tr
    A⁻¹ dA: one more vector in memory and the derivative of one product. Values that JAX traces
    cannot be looked at: give `interval`, wide enough for all steps; value and gradient are NaN
    where an eigenvalue shows to be outside (of "lanczos", where A has fewer different eigenvalues
    than there are steps). `probes` are then 8 if not given, and the degree is chosen for a
    tolerance of the largest |log| in the interval.

    Args:
      operator: A: an array (n, n), a SciPy sparse matrix or LinearOperator, a
        `solvers.GramState` (its ZᵀZ), a `FeatureGram`, or a function of JAX, v (n,) -> A v.
      key: of `jax.random`, for the probes. The same key gives the same number.
      size: n, of a function.
      shift: λ >= 0, the noise of a Gaussian process. With λ > 0 the operator must be positive
        semidefinite, and λ is the lower end of the interval.
      tolerance: relative error wanted, 0 < tolerance < 1, of the standard error plus the bound of
        the truncation.
      probes: how many; None: in blocks of 8 (32 of a `FeatureGram`), until the tolerance is met,
        512 at most. The standard error falls as 1 / √probes, and for large n a few are enough: it
        is about √(2 / (n probes)) times the size of the off-diagonal rows of log A.
      degree: of the polynomial, or steps of Lanczos; None: from interval and tolerance. More for
        smaller truncation.
      interval: bounds of the eigenvalues of A + shift I that you know; None: by Gershgorin's
        theorem if A is sparse, and some 20 to 400 steps of Lanczos, with a margin.

    Returns:
      An `Estimate`: value, standard error, bound, and how they came about.

    Cost: a product with 8 vectors for each block of probes and each 2 degrees (one degree where
    traced); 3 blocks of n x 8 float64 numbers, or, of matfree, N vectors in memory at a time.

    Raises:
      ValueError: an operator that is not square, symmetric or positive definite, or has NaN; an
        eigenvalue outside of the interval, once products show it; a condition number that needs
        more than 10,000 degrees; a least eigenvalue that 400 products do not find.
      TypeError: no operator; a function without `size`.
      ImportError: `method="lanczos"` of a traced operator without matfree.

    Warns:
      RuntimeWarning: 512 probes do not meet the tolerance.

    Source: I. Han, D. Malioutov, J. Shin (2015), arXiv 1503.06394; I. Han, D. Malioutov, H. Avron,
      J. Shin (2016), arXiv 1606.00942; S. Ubaru, J. Chen, Y. Saad, SIAM J. Matrix Anal. Appl. 38
      (2017), 1075; random degrees: I. Han, H. Avron, J. Shin (2018), arXiv 1802.06355.

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
    options = checked_options(method, tolerance, probes, degree, interval, True)
    return estimated(operator, _LOG, size, shift, key, options)


def trace_of_function(
    operator: Any,
    f: Callable[[Any], Any],
    *,
    key: PRNGKey,
    size: int | None = None,
    shift: Any = 0.0,
    method: str = "chebyshev",
    tolerance: float = 1e-2,
    probes: int | None = None,
    degree: int | None = None,
    interval: tuple[float, float] | None = None,
) -> Estimate:
    """tr f(A + shift I) = Σ_i f(λ_i) of a large symmetric operator, by its products alone.

    Use this for the effective dimension of a kernel, tr K (K + λI)⁻¹, for traces of inverses,
    Estrada indices (f = exp), Schatten norms and counts of eigenvalues by a smooth step. For f =
    log use `log_determinant`, whose series has a closed form.

    As `log_determinant` with another function: the Chebyshev series of f comes from its values at
    Chebyshev points, which must fall to rounding within 32,768 terms, so f has no kink between the
    ends of the interval. The derivative that `jax.grad` sees is that of the trace, tr f'(A) dA,
    with f' by differentiating the series; f itself may be of NumPy, but for quadrature by matfree.

    Of a `GramState` or `FeatureGram` the shift is the lower end of the interval, since their
    eigenvalues are 0 or more.

    Args:
      f: of an array of eigenvalues, entry by entry, of NumPy or JAX.
      operator, key, size, tolerance, probes, degree, method: as in `log_determinant`.
      shift: added to the eigenvalues before f sees them.
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
    options = checked_options(method, tolerance, probes, degree, interval, False)
    function = Function(f, lambda low, high: series_of(function.on_host, low, high), False)
    return estimated(operator, function, size, shift, key, options)


_LOG = Function(jnp.log, log_series, True)
