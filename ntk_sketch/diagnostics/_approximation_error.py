"""The error of a feature map against the exact kernel, on a small random subset."""

from typing import NamedTuple

import jax
import numpy as np

from .._arguments import checked_inputs, checked_key
from .._typing import PRNGKey
from ..maps._feature_map import FeatureMap
from ._errors import centred_error, relative_error, spectral_error
from ._exact_kernels import exact_kernels

_JACKKNIFE_GROUPS = 32


class Estimate(NamedTuple):
    value: float
    standard_error: float


class KernelError(NamedTuple):
    """Errors of one approximate kernel `K̂` against the exact `K` on a subset of examples.

    Attributes:
        relative, centred, spectral: as `relative_error`, `centred_error` and `spectral_error` of
            `ntk_sketch.diagnostics`.
        n_examples: size of the subset.
    """

    relative: Estimate
    centred: Estimate
    spectral: Estimate
    n_examples: int


def approximation_error(
    feature_map: FeatureMap, x, *, pairs: int, key: PRNGKey, diag_reg: float = 1e-3
) -> dict[str, KernelError]:
    """Compares features with the exact `kernel_fn` on a random subset of `x`.

    Use this to choose the method and width for a model before a long computation.

    Args:
        feature_map: made by `ntk_sketch.feature_map`.
        x: inputs (n, *input_shape) to draw the subset from. Do not give the sample: the error at
            landmarks is too small.
        pairs: about how many exact kernel values to compute. The subset has as many examples m ≥ 3
            as `m (m + 1) / 2 <= pairs` allows. Raise it for smaller standard errors. Compare only
            errors with the same `pairs`: the diagonal is a share 1 / m of the matrix, and its error
            is another than that of the rest.
        key: of `jax.random`, for the subset.
        diag_reg: `λ` of the spectral error, relative to the mean of the exact diagonal. Set it to
            that of the regression.

    Returns:
        A `KernelError` for every kernel of the map. Standard errors are delete-a-group jackknife
        estimates over examples. They measure the choice of examples, not the randomness of the map.

    Cost: `pairs` exact kernel values, each quartic in the image side for a convolutional net with
        pooling.

    With Dropout the kernels are those of two independent passes, also on the diagonal.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> from ntk_sketch.diagnostics import approximation_error
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(100, 3)).astype("float32")
        >>> features = ns.feature_map(model, x[:80], ns.Nystroem(40), key=jax.random.key(0))
        >>> errors = approximation_error(features, x[80:], pairs=100, key=jax.random.key(1))
        >>> errors["ntk"].n_examples, errors["ntk"].relative.value < 0.2
        (13, True)
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
    exact = exact_kernels(feature_map.exact_kernel_fn, subset, feature_map.get, progress=False)
    close = feature_map.kernel_fn(subset)
    return {
        name: _kernel_error(np.asarray(getattr(close, name), np.float64), exact[name], diag_reg)
        for name in feature_map.get
    }


def _kernel_error(close: np.ndarray, exact: np.ndarray, diag_reg: float) -> KernelError:
    n = len(exact)
    penalty = diag_reg * np.trace(exact) / n  # of all examples, also if some are left out
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
        relative=estimate(relative_error),
        centred=estimate(centred_error),
        spectral=estimate(lambda a, b: spectral_error(a, b, penalty / np.mean(np.diag(b)))),
        n_examples=n,
    )
