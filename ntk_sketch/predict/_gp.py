"""Posteriors of Gaussian processes with features' kernels."""

from __future__ import annotations

from typing import Any

from .._typing import PRNGKey
from ..parallel._devices import Devices
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from . import _checks
from ._predictors import Predictor
from ._training import Training


class Posterior(Predictor):
    """What `gp_inference` returns, documented there."""

    def __call__(
        self, get: Any = None, x_test: Inputs | None = None, compute_cov: Any = False
    ) -> Any:
        return self._predicted(None, x_test, get, compute_cov)

    def sample(self, x_test: Inputs, *, key: PRNGKey, n_samples: int = 1, get: Any = None) -> Any:
        return self._sampled(x_test, key, n_samples, None, get)


def gp_inference(
    feature_map: FeatureMapLike,
    x_train: Inputs,
    y_train: Inputs,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    batch_size: int | None = None,
    progress: Progress = None,
    exact_diagonal: bool = True,
    *,
    mesh: Any = None,
) -> Posterior:
    """Mean and covariance of infinitely wide networks, Bayesian or trained to convergence.

    Use this for predictive variances that do not depend on a training time. It is
    `neural_tangents.predict.gp_inference` on features. K is the NNGP kernel and Θ the NTK of the
    features, and λ the variance of the noise:

    | get | mean | covariance |
    |---|---|---|
    | 'nngp' | K* (K + λI)⁻¹ y | K** - K* (K + λI)⁻¹ K*ᵀ: networks whose weights are Bayesian |
    | 'ntkgp' | Θ* (Θ + λI)⁻¹ y | Θ** - Θ* (Θ + λI)⁻¹ Θ*ᵀ: the Gaussian process of the NTK |
    | 'ntk' | as 'ntkgp' | that of trained networks, `gradient_descent_mse_ensemble` at t = ∞ |

    The correction of test variances, cost, arguments, errors and warnings are those of
    `gradient_descent_mse_ensemble`.

    Returns:
      `predict_fn(get=None, x_test=None, compute_cov=False)`, with a method
      `sample(x_test, *, key, n_samples=1, get=None)`; see there. Test covariances do not include
      the noise: add λ for those of observations.

    Source: 'ntkgp': B. He, B. Lakshminarayanan, Y. W. Teh, Bayesian Deep Ensembles via the Neural
      Tangent Kernel, NeurIPS 2020 (arXiv 2007.05864).

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
      >>> predict_fn = ns.predict.gp_inference(features, x[:50], np.sin(x[:50, 0]), diag_reg=1e-3)
      >>> mean, covariance = predict_fn("nngp", x[50:], compute_cov=True)
      >>> mean.shape, covariance.shape
      ((10,), (10, 10))
      >>> predict_fn.sample(x[50:], key=jax.random.key(1), n_samples=5, get="ntkgp").shape
      (5, 10)
    """
    devices = Devices.of(mesh)
    with devices.together():
        _checks.check_bool(exact_diagonal, "exact_diagonal")
        training = Training(
            feature_map,
            x_train,
            y_train,
            diag_reg=diag_reg,
            absolute=diag_reg_absolute_scale,
            batch_size=batch_size,
            progress=progress,
            devices=devices,
        )
    training.join()
    return Posterior(training, ("nngp", "ntk", "ntkgp"), exact_diagonal)
