"""How far an approximate kernel is from the exact one."""

import numpy as np
import scipy.linalg
from jaxtyping import Float


def relative_error(close: Float[np.ndarray, "n n"], exact: Float[np.ndarray, "n n"]) -> float:
    """`‖K̂ - K‖_F / ‖K‖_F`, the usual figure; a few large directions dominate it.

    Args:
        close, exact: `K̂` and `K`, kernels of the same examples.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.diagnostics import relative_error
        >>> relative_error(np.array([[1.1]]), np.array([[1.0]]))  # doctest: +ELLIPSIS
        0.1...
    """
    return float(np.linalg.norm(close - exact) / np.linalg.norm(exact))


def centred_error(close: Float[np.ndarray, "n n"], exact: Float[np.ndarray, "n n"]) -> float:
    """The relative error of `HKH`, `H = I - 11ᵀ / n`: without the mean, which dominates many
    kernels and which a regression with an intercept does not see.

    Args:
        close, exact: `K̂` and `K`, kernels of the same two examples at least.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.diagnostics import centred_error
        >>> kernel = np.array([[2.0, 1.0], [1.0, 2.0]])
        >>> centred_error(kernel + 3, kernel)
        0.0
    """
    return relative_error(_centred(close), _centred(exact))


def spectral_error(
    close: Float[np.ndarray, "n n"], exact: Float[np.ndarray, "n n"], diag_reg: float = 1e-3
) -> float:
    """The least ε with `(1 - ε)(K + λI) ≼ K̂ + λI ≼ (1 + ε)(K + λI)`, λ = `diag_reg · tr(K) / n`:
    the error that ridge regression with that `diag_reg` feels.

    It is `‖(K + λI)^{-1/2} (K̂ - K) (K + λI)^{-1/2}‖₂`. What K̂ lacks altogether brings ε to 1 at
    most; beyond 1, K̂ has too much somewhere. Eigenvalues of K grow with n, so that more examples
    leave more of them above λ: only figures of equal n compare.

    Args:
        close, exact: `K̂` and `K`, kernels of the same examples.
        diag_reg: of the regression, relative to the mean of the exact diagonal.

    Cost: about 10 n³ FLOPs.

    Source: Avron et al. 2017 (arXiv 1804.09893), definition 1.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.diagnostics import spectral_error
        >>> round(spectral_error(np.zeros((2, 2)), np.eye(2), diag_reg=0.25), 6)
        0.8
    """
    penalty = diag_reg * np.trace(exact) / len(exact)
    values = scipy.linalg.eigh(
        close - exact, exact + penalty * np.eye(len(exact)), eigvals_only=True
    )
    return float(np.abs(values).max())


def _centred(kernel: np.ndarray) -> np.ndarray:
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
