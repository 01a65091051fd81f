"""An infinite ensemble of networks, trained by gradient descent for any time."""

from __future__ import annotations

from typing import Any

from .._typing import PRNGKey
from ..parallel._devices import Devices
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from . import _checks
from ._predictors import Predictor
from ._training import Training


class Ensemble(Predictor):
    """What `gradient_descent_mse_ensemble` returns, documented there."""

    def __call__(
        self, t: Any = None, x_test: Inputs | None = None, get: Any = None, compute_cov: Any = False
    ) -> Any:
        return self._predicted(t, x_test, get, compute_cov)

    def sample(
        self,
        x_test: Inputs,
        *,
        key: PRNGKey,
        n_samples: int = 1,
        t: Any = None,
        get: Any = None,
    ) -> Any:
        return self._sampled(x_test, key, n_samples, t, get)


def gradient_descent_mse_ensemble(
    feature_map: FeatureMapLike,
    x_train: Inputs,
    y_train: Inputs,
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    batch_size: int | None = None,
    progress: Progress = None,
    exact_diagonal: bool = True,
    *,
    mesh: Any = None,
) -> Ensemble:
    """Mean and covariance of an ensemble of wide networks trained by gradient descent.

    Use this for predictive variances, and for predictions after a finite time of training. If you
    need only the mean at t = ∞, use `ntk_sketch.ridge`, which also chooses `diag_reg`. It is
    `neural_tangents.predict.gradient_descent_mse_ensemble` on features.

    Networks start from the Gaussian process of the NNGP kernel K and follow the gradient flow of
    `‖f - y‖² / (2 y.size)`. Let Θ be the kernel of the training, which is the NTK for get='ntk' and
    K for get='nngp' (only the last layer is trained). With `A = Θ* (Θ + λI)⁻¹ (1 - exp(-(Θ + λI)
    τ))` and `τ = learning_rate t / y.size`:

        mean = A y
        covariance of 'ntk' = K** + A K Aᵀ - A K*ᵀ - K* Aᵀ
        covariance of 'nngp' = K** - K* φ_{2τ}(K) K*ᵀ,
                               φ_τ(s) = (1 - exp(-(s + λ) τ)) / (s + λ)

    These are the results of Neural Tangents on `feature_map.kernel_fn`. At t = ∞ the covariance of
    'nngp' is that of the posterior of Bayesian networks with noise of variance λ. At test examples
    covariances are computed as F Fᵀ, so that no variance is negative.

    *Correction of test variances.* Features of too few landmarks miss the part `k(x, x) - |z(x)|²`
    of a test variance. By default it is added to the diagonal, as if it were independent for each
    example and not reduced by training. Variances of `Nystroem` maps with few landmarks are
    therefore too large rather than too small. (Calibrated features of few landmarks may be longer
    than k(x, x) at some examples, where nothing is added.) Use `Nystroem` for variances: features
    normalised to the exact diagonal (`RandomFeatures`, `PolySketch`) miss nothing by this measure,
    although n > p examples leave hardly any variance in their p directions.

    Exact variances are known for a `FeatureMap`. They are not known for a callable of your own, or
    for a map `averaged` over transforms: a warning says that variances are then those of the
    features.

    The first call streams the training examples once, for the kernels that it needs, and decomposes
    their statistics in float64 on the host. Later calls use these again, unless they need another
    kernel: request both kernels, or a covariance of 'ntk', first.

    Cost: with n > p examples n p² FLOPs (for a covariance of 'ntk' p is the total of both kernels)
    and about 24 p² bytes, and 9 p³ FLOPs for each kernel; otherwise 2 n² p + 9 n³ FLOPs and the
    features of all training examples. Each test example takes 2 p k FLOPs for a mean. A variance at
    each time takes 2 min(n, p)² more and, for 'ntk', 2 min(n, p) p'. A full covariance of m
    examples takes m² p FLOPs and m² numbers for each time.

    Args:
      feature_map: as in `ntk_sketch.ridge`; the covariance of 'ntk' needs features of both kernels.
      x_train: training inputs (n, ...).
      y_train: targets (n, outputs), or (n,), for which means are (m,).
      learning_rate: step size; only `learning_rate * t` matters.
      diag_reg: λ relative to `trace(Θ) / n` of the features' kernel, as in Neural Tangents.
      diag_reg_absolute_scale: `diag_reg` is λ itself.
      batch_size: examples per call of the feature map; None: `feature_map.batch_size()`, else 256.
      progress: of each pass over examples, as in `ntk_sketch.ridge`.
      exact_diagonal: correct the diagonal of test covariances as above. Turn it off to compare with
        Neural Tangents on `feature_map.kernel_fn`.
      mesh: a `jax.sharding.Mesh`, as in `ntk_sketch.ridge`. Features of training and test examples,
        and their products, are computed on all of its devices. A second axis must divide the
        features of each kernel. Decompositions run on one device, or on the host. With the devices
        of all processes of `jax.distributed`, each process makes this call with its own training
        examples (at least one) and otherwise the same arguments; n and `y.size` are those of all.
        The statistics of all kernels of the map are made at once, also of few examples: n p² FLOPs
        and 24 p² bytes with p the total of both kernels. From then on `predict_fn` is of each
        process alone, with test examples of its own, and its predictions on training examples are
        of those that it has.

    Returns:
      `predict_fn(t=None, x_test=None, get=None, compute_cov=False)`.

      * t: None for ∞, a number ≥ 0, or an array of them, whose axes come first in results. At
        t = 0 results are those of the prior.
      * x_test: inputs (m, ...). None: predictions on the training examples, which at t = ∞ are
        `y_train` with covariance 0; nothing is added to their covariances.
      * get: 'nngp', 'ntk', or a sequence of them, for which the result is a named tuple; None: all
        kernels that the map has.
      * compute_cov: True: the result is a `Gaussian(mean, covariance)`, a named tuple with arrays
        (m, outputs) and (m, m). 'diagonal': its covariance has the variances (m,) alone, in the
        memory of one batch. All outputs have the same covariance and are independent.

      `predict_fn.sample(x_test, *, key, n_samples=1, t=None, get=None)` draws functions from that
      distribution: (n_samples, *t.shape, m, outputs). A sample of 'ntk' is the trained function of
      one network. With the same key it is the same network at all times and for all test examples,
      except for the independent correction of variances.

    Raises:
      TypeError: inputs, targets, t, learning_rate or diag_reg of the wrong kind, or traced by JAX.
      ValueError: shapes that do not fit, values that are not finite, negative t or diag_reg,
        unknown `get` or one that the map lacks; processes that were given different arguments.
      RuntimeError: another process failed (the message has its error) or cannot be reached.

    Warns:
      RuntimeWarning: the map does not know its exact variances; the kernel is numerically
        rank-deficient at this λ and some of its directions are dropped.

    Source: J. Lee et al., Wide Neural Networks of Any Depth Evolve as Linear Models Under Gradient
      Descent, NeurIPS 2019 (arXiv 1902.06720), eqs. 13 to 16.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
      >>> predict_fn = ns.predict.gradient_descent_mse_ensemble(
      ...     features, x[:50], np.sin(x[:50]), diag_reg=1e-3)
      >>> mean, variance = predict_fn(x_test=x[50:], get="ntk", compute_cov="diagonal")
      >>> mean.shape, variance.shape
      ((10, 3), (10,))
      >>> both = predict_fn(t=np.array([0.0, 1e3]), x_test=x[50:], compute_cov=True)
      >>> both.nngp.mean.shape, both.nngp.covariance.shape
      ((2, 10, 3), (2, 10, 10))
      >>> predict_fn.sample(x[50:], key=jax.random.key(1), n_samples=5, get="ntk").shape
      (5, 10, 3)
    """
    devices = Devices.of(mesh)
    with devices.together():
        rate = _checks.checked_learning_rate(learning_rate)
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
    training.join(learning_rate=rate)
    rate /= training.n_examples * training.y.shape[1]
    return Ensemble(training, ("nngp", "ntk"), exact_diagonal, rate)
