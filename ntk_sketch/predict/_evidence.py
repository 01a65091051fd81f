"""How probable targets are under a Gaussian process with the features' kernel."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer

from .._arguments import checked_choice
from .._typing import KERNELS, PRNGKey
from ..parallel._devices import Devices
from ..solvers._checks import DiagReg, checked_diag_reg
from ..streaming._feature_map import check_feature_map
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs
from ._checks import check_available
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

    Use this to choose `diag_reg`, the depth, and the variances of weights and biases of a network
    without held-out examples. With K = ZZᵀ of the features, k outputs and the p eigenvalues s of
    ZᵀZ, it is

        -½ [k log det(K + λI) + tr yᵀ (K + λI)⁻¹ y + n k log 2π],
        log det(K + λI) = Σ log(s + λ) + (n - p) log λ,
        yᵀ (K + λI)⁻¹ y = (yᵀy - cᵀ (s + λ)⁻¹ c) / λ,   c = Vᵀ Zᵀ y,

    from statistics of one pass (by the matrix determinant lemma and Woodbury's identity), or from
    the eigenvalues of ZZᵀ if n <= p.

    *Derivatives.* `jax.grad` may trace `diag_reg` and the map, which must then be a pytree such as
    a `FeatureMap`. To choose `W_std` and `b_std` by gradient steps, make the map inside of the
    function that is differentiated (`experiments/regression` has an example with optax). With more
    examples than features, in more than one batch, value and gradient hold only the features of one
    batch. Statistics of one pass are decomposed in float64 as always, and a second pass sums the
    derivatives of

        -½ Σ [k zᵢ A zᵢᵀ + ‖yᵢ - zᵢ w‖² / λ],   A = (ZᵀZ + λI)⁻¹,   w = A Zᵀy,

    with A and w held fixed: A is the derivative of the log-determinant with respect to ZᵀZ, and the
    derivative of the other term with respect to w is 0. This supports one reverse-mode derivative
    outside of `jax.jit`. Otherwise (`jax.jit`, `jax.vmap`, traced x or y, fewer examples than
    features, `batch_size=len(x)`, second derivatives) JAX computes the same number with all
    features in memory and in their dtype, which should be float64.

    The evidence is that of the features, whose kernel misses `k(x, x) - |z(x)|²` on the diagonal.
    Compare values of maps of the same width, and note that λ may compensate for the missing part.

    Cost: the features, n p² + 9 p³ FLOPs and about 24 p² bytes; 2 n² p + 9 n³ FLOPs if n <= p. More
    values of `diag_reg` cost almost nothing. A gradient takes the derivatives of the map, about
    three times its cost, and 4 n p² FLOPs. With all features in memory it takes n p² FLOPs, and
    p³ / 3 for each value. Statistics have the rounding error of `ridge`: on a CPU only that of
    float64 for up to 1,024 features.

    *Very wide features.* Beyond some 30,000 features the Gram matrix (p² numbers) and its
    decomposition dominate the cost. `log_determinant="stochastic"` avoids both: conjugate gradients
    solve for w, and the log-determinant is that of their preconditioner (512 directions, exact)
    plus an estimate of the rest by Lanczos quadrature (`spectral.log_determinant`), to a standard
    error of 0.001 n, half of which counts in the evidence of each output. Passes over the features
    are about 20 + iterations + steps x probes / 32 for each `diag_reg`: some dozens if few
    directions beyond those 512 are above λ, else hundreds. All values of a sequence share their
    probes, so that their differences are more accurate than the values. It has no derivatives.

    Args:
      feature_map, x, y, batch_size, progress: as in `ntk_sketch.ridge`.
      mesh: as in `gradient_descent_mse_ensemble`: each of several processes makes the call with its
        own examples, and gets the evidence of all, for `diag_reg` above 0. Derivatives of streamed
        statistics take the devices of one process; 'stochastic' does not take a mesh.
      diag_reg: the variance λ of the noise, relative to `trace(K) / n`; above 0 unless n <= p and K
        has full rank. A sequence gives one value for each.
      diag_reg_absolute_scale: `diag_reg` is λ itself.
      get: the covariance, 'nngp' or 'ntk'.
      log_determinant: 'exact', or 'stochastic' for features too wide to decompose.
      key: of `jax.random`, for the probes of 'stochastic'.

    Returns:
      A number, or an array (m,) for a sequence of m regularisers; arrays of JAX when traced.

    Raises:
      TypeError, ValueError: as `ntk_sketch.ridge`; K + λI is singular.

    Warns:
      RuntimeWarning: the residual of y is so small that rounding dominates it; for 'stochastic',
        conjugate gradients have not converged, or 512 probes do not reach 0.001 n.

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
    devices = Devices.of(mesh)
    with devices.together():
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
    with devices.together():
        values, is_path = checked_diag_reg(diag_reg)
        training = Training(
            feature_map,
            x,
            y,
            diag_reg=0.0,
            absolute=True,
            batch_size=batch_size,
            progress=progress,
            devices=devices,
            names=("x", "y"),
        )
        check_available(get, get, training.kernels)
    scale = bool(diag_reg_absolute_scale)
    training.join(get=get, diag_reg=list(values), diag_reg_absolute_scale=scale)
    if log_determinant == "stochastic":
        given = training, get, values, diag_reg_absolute_scale, key
        found = stochastic_log_evidence(*given)
        return found if is_path else float(found[0])
    found = HostEvidence(training, get, values, diag_reg_absolute_scale).values(stacklevel=2)
    return found if is_path else float(found[0])
