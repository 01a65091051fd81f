"""How probable targets are under a Gaussian process with the features' kernel."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer

from .._arguments import checked_choice
from .._typing import PRNGKey
from ..solvers._checks import DiagReg, checked_diag_reg
from ..streaming._feature_map import check_feature_map
from ..streaming._progress import Progress
from ..streaming._stream import KERNELS, FeatureMapLike, Inputs
from ._host_evidence import HostEvidence
from ._stochastic_evidence import stochastic_log_evidence
from ._streamed_evidence import is_streamed, streamed_log_evidence
from ._traced_evidence import traced_log_evidence
from ._training import Training


def log_evidence(
    feature_map: FeatureMapLike,
    x: Inputs,
    y: Inputs,
    *,
    diag_reg: DiagReg | jax.Array,
    diag_reg_absolute_scale: bool = False,
    get: str = "nngp",
    batch_size: int | None = None,
    progress: Progress = None,
    mesh: Any = None,
    log_determinant: str = "exact",
    key: PRNGKey | None = None,
) -> Any:
    """The log marginal likelihood log N(y; 0, K + λI), summed over outputs.

    Use it to choose `diag_reg`, the depth and the variances of weights and biases of a network
    without examples held out. With K = ZZᵀ of the features, k outputs and the p eigenvalues s of
    ZᵀZ,

        -½ [k log det(K + λI) + tr yᵀ (K + λI)⁻¹ y + n k log 2π],
        log det(K + λI) = Σ log(s + λ) + (n - p) log λ,
        yᵀ (K + λI)⁻¹ y = (yᵀy - cᵀ (s + λ)⁻¹ c) / λ,   c = Vᵀ Zᵀ y,

    from statistics that one pass makes (the matrix determinant lemma and Woodbury's identity), or
    by the eigenvalues of ZZᵀ where n <= p.

    *Derivatives.* `jax.grad` may trace `diag_reg` and the map, which must then be a pytree such as
    a `FeatureMap`. Make the map of a model with `W_std` and `b_std` inside the function that is
    differentiated, and gradient steps choose them (`experiments/regression` has an example with
    optax). Of more examples than features, in more than one batch, neither the value nor its
    gradient holds more features than those of a batch: statistics of one pass are decomposed in
    float64 as always, and a second pass adds up the derivatives of

        -½ Σ [k zᵢ A zᵢᵀ + ‖yᵢ - zᵢ w‖² / λ],   A = (ZᵀZ + λI)⁻¹,   w = A Zᵀy,

    with A and w held fixed: A is the derivative of the log-determinant by ZᵀZ, and that of the rest
    by w is 0. This is reverse mode once, outside of `jax.jit`. Otherwise (`jax.jit`, `jax.vmap`,
    traced x or y, fewer examples than features, `batch_size=len(x)`) JAX computes the same number
    with all features in memory and in their dtype: use float64 there. Second derivatives need that.

    It is the evidence of the features, whose kernel lacks `k(x, x) - |z(x)|²` on the diagonal:
    compare values of maps of the same width, and mind that λ makes up for what is missing.

    Cost: the features, n p² FLOPs and 9 p³, about 24 p² bytes; 2 n² p + 9 n³ where n <= p. More
    values of `diag_reg` cost nothing. A gradient: the derivatives of the map, about three times its
    cost, and 4 n p². Where all features are in memory, n p² and p³ / 3 of each value. Statistics
    carry the rounding error of `ridge`'s: on a CPU none beyond float64 for up to 1,024 features.

    *Very wide features.* Beyond some 30,000 features their Gram matrix (p² numbers) and its
    decomposition are what costs. `log_determinant="stochastic"` does without: the log-determinant
    of the smaller side by `spectral.log_determinant` with Lanczos quadrature, to a standard error
    of 0.1 %, the rest by conjugate gradients. Both take passes over the features, some dozens to
    hundreds for each `diag_reg`: about iterations + steps x probes / 32. All values of a sequence
    share their probes, so that they compare better than each is known. It has no derivatives.

    Args:
      feature_map, x, y, batch_size, progress: as in `ntk_sketch.ridge`.
      mesh: devices of this process, as in `gradient_descent_mse_ensemble`; also of derivatives of
        statistics that are streamed. Not of 'stochastic'.
      diag_reg: λ relative to `trace(K) / n`, the variance of the noise; above 0 unless n <= p and
        K has full rank. A sequence gives one value for each.
      diag_reg_absolute_scale: `diag_reg` is λ itself.
      get: the covariance, 'nngp' or 'ntk'.
      log_determinant: 'exact', or 'stochastic' for features too wide to be decomposed.
      key: of `jax.random`, for the probes of 'stochastic'.

    Returns:
      A number, or an array (m,) for a sequence of m regularisers; arrays of JAX when traced.

    Raises:
      TypeError, ValueError: as `ntk_sketch.ridge`; K + λI is singular.

    Warns:
      RuntimeWarning: so little of y is left that its rounding decides; of 'stochastic', conjugate
        gradients have not converged, or 512 probes do not give 0.1 %.

    Source: C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine Learning (2006), eq.
      2.30 and appendix A.3.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
      >>> values = ns.predict.log_evidence(features, x, np.sin(x), diag_reg=[1e-3, 1e-2, 0.1])
      >>> values.shape
      (3,)
    """
    checked_choice(get, "get", KERNELS)
    checked_choice(log_determinant, "log_determinant", ("exact", "stochastic"))
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((feature_map, x, y, diag_reg))):
        check_feature_map(feature_map)
        if log_determinant == "stochastic":
            raise NotImplementedError(
                "log_determinant='stochastic' is not differentiated or traced by JAX: use 'exact',"
                " or ntk_sketch.spectral.log_determinant, which has derivatives"
            )
        if is_streamed(feature_map, x, y, diag_reg, get, batch_size):
            given = feature_map, x, y, diag_reg, diag_reg_absolute_scale, get
            return streamed_log_evidence(*given, batch_size, progress, mesh)
        if mesh is not None:
            raise ValueError(
                "mesh is of statistics that are streamed: those of more examples than features and"
                " than one batch, where JAX differentiates the map or diag_reg outside of jax.jit."
                " Here all features are in memory: leave mesh out, and shard x itself"
                " (jax.device_put(x, NamedSharding(...)))"
            )
        return traced_log_evidence(feature_map, x, y, diag_reg, diag_reg_absolute_scale, get)
    if mesh is not None and log_determinant == "stochastic":
        raise ValueError(
            "log_determinant='stochastic' works on one device: leave mesh out, or use 'exact'"
        )
    values, is_path = checked_diag_reg(diag_reg)
    training = Training(
        feature_map,
        x,
        y,
        diag_reg=0.0,
        absolute=True,
        batch_size=batch_size,
        progress=progress,
        mesh=mesh,
        names=("x", "y"),
    )
    if log_determinant == "stochastic":
        given = training, get, values, diag_reg_absolute_scale, key
        found = stochastic_log_evidence(*given)
        return found if is_path else float(found[0])
    found = HostEvidence(training, get, values, diag_reg_absolute_scale).values(stacklevel=2)
    return found if is_path else float(found[0])
