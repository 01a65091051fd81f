"""Error measures of an approximate kernel matrix."""

import numpy as np
import scipy.linalg
from jaxtyping import Float


def relative_error(close: Float[np.ndarray, "n n"], exact: Float[np.ndarray, "n n"]) -> float:
    """The relative error in the Frobenius norm, `‖K̂ - K‖_F / ‖K‖_F`.

    Use this to compare with published figures. A few large eigenvalues of K dominate it.

    Args:
        close, exact: `K̂` and `K`, kernel matrices of the same examples.

    Example:
        >>> import numpy as np
        >>> from ntk_sketch.diagnostics import relative_error
        >>> relative_error(np.array([[1.1]]), np.array([[1.0]]))  # doctest: +ELLIPSIS
        0.1...
    """
    return float(np.linalg.norm(close - exact) / np.linalg.norm(exact))


def centred_error(close: Float[np.ndarray, "n n"], exact: Float[np.ndarray, "n n"]) -> float:
    """The relative error of the centred kernel `HKH` with `H = I - 11ᵀ / n`.

    Use this for a regression with an intercept, which does not depend on the mean. The mean
    dominates many kernels.

    Args:
        close, exact: `K̂` and `K`, kernel matrices of the same examples, at least two.

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
    """The spectral error, the smallest ε with `(1 - ε)(K + λI) ≼ K̂ + λI ≼ (1 + ε)(K + λI)`.

    Use this to judge a kernel for ridge regression with `λ = diag_reg · tr(K) / n`: directions
    count relative to the regulariser.

    It is `‖(K + λI)^{-1/2} (K̂ - K) (K + λI)^{-1/2}‖₂`. Directions that K̂ lacks contribute at most
    1; an error above 1 means that K̂ is too large in some direction. Eigenvalues of K grow with n,
    and more of them exceed λ: compare only errors of equal n.

    Args:
        close, exact: `K̂` and `K`, kernel matrices of the same examples.
        diag_reg: that of the regression, relative to the mean of the exact diagonal.

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
