"""How far a feature map is from the exact kernel, on a small random subset."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

from .._arguments import checked_inputs, checked_key
from .._typing import PRNGKey
from ..maps._feature_map import FeatureMap

#: Entries of one position-position covariance of NT that are computed at a time.
_ENTRIES = 2**23
_JACKKNIFE_GROUPS = 32


class Estimate(NamedTuple):
    value: float
    standard_error: float


class KernelError(NamedTuple):
    """Errors of one approximate kernel `K̂` against the exact `K` on a subset of examples.

    Attributes:
        relative: `‖K̂ - K‖_F / ‖K‖_F`.
        centred: the same after centring both, `HKH` with `H = I - 11ᵀ / n`: what is left of the
            error once the mean, which dominates many kernels, is gone.
        spectral: `‖(K + λI)^{-1/2} (K̂ - K) (K + λI)^{-1/2}‖₂`: the ε for which `(1 - ε)(K + λI) ≼
            K̂ + λI ≼ (1 + ε)(K + λI)`, the error that ridge regression feels (Avron et al. 2017,
            arXiv 1804.09893).
        n_examples: size of the subset.
    """

    relative: Estimate
    centred: Estimate
    spectral: Estimate
    n_examples: int


def approximation_error(
    feature_map: FeatureMap, x, *, pairs: int, key: PRNGKey, diag_reg: float = 1e-3
) -> dict[str, KernelError]:
    """Compares the features with the exact `kernel_fn` on a random subset of `x`.

    Args:
        feature_map: made by `ntk_sketch.feature_map`.
        x: inputs (n, *input_shape) to draw the subset from, not the sample that landmarks came
            from.
        pairs: about how many exact kernel values to compute: the subset has the most examples m ≥ 3
            with `m (m + 1) / 2` at most this.
        key: of `jax.random`, for the subset.
        diag_reg: `λ` of the spectral error, relative to the mean of the exact diagonal.

    Returns:
        For every kernel of the map, a `KernelError`. Standard errors are delete-a-group jackknife
        estimates over examples, and speak of the choice of examples, not of the map's own
        randomness.

    Cost: `pairs` exact kernel values, each quartic in the image side for a convolutional net with
        pooling.

    With Dropout the kernels are those of two independent passes, also of an example with itself.
    """
    x = checked_inputs(x, shape=feature_map.input_shape)
    checked_key(key)
    if pairs < 6:
        raise ValueError(f"pairs={pairs}: at least 6 are needed, for a subset of 3 examples.")
    size = int((np.sqrt(8 * pairs + 1) - 1) / 2)
    if x.shape[0] < 3:
        raise ValueError(f"x has {x.shape[0]} examples; at least 3 are needed.")
    size = min(size, x.shape[0])
    chosen = np.sort(np.asarray(jax.random.permutation(key, x.shape[0]))[:size])
    subset = np.asarray(x)[chosen]
    exact = exact_kernels(feature_map.exact_kernel_fn, subset, feature_map.get)
    close = feature_map.kernel_fn(subset)
    return {
        name: _kernel_error(np.asarray(getattr(close, name), np.float64), exact[name], diag_reg)
        for name in feature_map.get
    }


def exact_kernels(kernel_fn: Callable, x, get: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Symmetric exact kernels of `x` with itself, a few pairs at a time; of two independent passes
    if there is Dropout.
    """
    n = len(x)
    positions = int(np.prod(x.shape[1:-1]))
    # At least two columns: batches of different size are what NT takes for different passes.
    width = int(np.clip(_ENTRIES // positions**2, 2, max(n, 2)))
    block = jax.jit(lambda a, b: kernel_fn(a, b, get))
    grams = {name: np.zeros((n, n)) for name in get}
    for row in range(n):
        for start in range(0, row + 1, width):
            columns = np.arange(start, start + width) % n
            values = block(x[row : row + 1], x[columns])
            for name, gram in grams.items():
                gram[row, columns] = np.asarray(getattr(values, name), np.float64)[0]
    return {name: np.tril(gram) + np.tril(gram, -1).T for name, gram in grams.items()}


def _kernel_error(close: np.ndarray, exact: np.ndarray, diag_reg: float) -> KernelError:
    n = len(exact)
    penalty = diag_reg * np.trace(exact) / n
    groups = np.array_split(np.arange(n), min(n, _JACKKNIFE_GROUPS))

    def estimate(measure) -> Estimate:
        without = []
        for group in groups:
            keep = np.setdiff1d(np.arange(n), group)
            without.append(measure(close[np.ix_(keep, keep)], exact[np.ix_(keep, keep)]))
        g = len(groups)
        return Estimate(
            float(measure(close, exact)), float(np.sqrt((g - 1) * np.var(np.asarray(without))))
        )

    return KernelError(
        relative=estimate(_relative),
        centred=estimate(lambda a, b: _relative(_centre(a), _centre(b))),
        spectral=estimate(lambda a, b: _spectral(a, b, penalty)),
        n_examples=n,
    )


def _relative(close, exact):
    return np.linalg.norm(close - exact) / np.linalg.norm(exact)


def _centre(kernel):
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()


def _spectral(close, exact, penalty):
    values = scipy.linalg.eigh(
        close - exact, exact + penalty * np.eye(len(exact)), eigvals_only=True
    )
    return np.abs(values).max()
