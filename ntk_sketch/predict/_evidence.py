"""How probable targets are under a Gaussian process with the features' kernel."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from .._arguments import checked_choice
from ..solvers._checks import DiagReg, checked_diag_reg
from ..streaming._progress import Progress
from ..streaming._stream import KERNELS, FeatureMapLike, Inputs
from . import _checks
from ._directions import DualDirections
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

    *Derivatives.* Where the map, x, y or `diag_reg` is traced by JAX, as in `jax.grad` of a
    function that makes the map of a model with `W_std` and `b_std`, the same number is computed in
    JAX, with all features in memory and in their dtype: use float64 there. The map must then be a
    pytree, such as a `FeatureMap`.

    It is the evidence of the features, whose kernel lacks `k(x, x) - |z(x)|²` on the diagonal:
    compare values of maps of the same width, and mind that λ makes up for what is missing.

    Cost: the features, n p² FLOPs and 9 p³, about 24 p² bytes; 2 n² p + 9 n³ where n <= p. More
    values of `diag_reg` cost nothing. When differentiated n p² and p³ / 3 of each, and n p numbers.
    Statistics carry the rounding error of `ridge`'s: on a CPU none beyond float64 for up to 1,024
    features.

    Args:
      feature_map, x, y, batch_size, progress: as in `ntk_sketch.ridge`.
      diag_reg: λ relative to `trace(K) / n`, the variance of the noise; above 0 unless n <= p and
        K has full rank. A sequence gives one value for each.
      diag_reg_absolute_scale: `diag_reg` is λ itself.
      get: the covariance, 'nngp' or 'ntk'.

    Returns:
      A number, or an array (m,) for a sequence of m regularisers; arrays of JAX when traced.

    Raises:
      TypeError, ValueError: as `ntk_sketch.ridge`; K + λI is singular.

    Warns:
      RuntimeWarning: so little of y is left that its rounding decides.

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
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((feature_map, x, y, diag_reg))):
        return traced_log_evidence(feature_map, x, y, diag_reg, diag_reg_absolute_scale, get)
    values, is_path = checked_diag_reg(diag_reg)
    training = Training(
        feature_map,
        x,
        y,
        diag_reg=0.0,
        absolute=True,
        batch_size=batch_size,
        progress=progress,
        names=("x", "y"),
    )
    _checks.check_available(get, get, training.kernels)
    width = training.stream((get,)).widths(training.x)[get]
    if min(values) == 0 and len(training.x) > width:
        raise ValueError(
            f"diag_reg={diag_reg!r}: {len(training.x)} examples with {width} features have a"
            " singular kernel, under which targets have no density: every diag_reg must be > 0"
        )
    directions = training.statistics((get,)).directions(get)
    spectrum = directions.spectrum
    scale = 1.0 if diag_reg_absolute_scale else spectrum.mean_square_norm
    found = []
    for value in values:
        found.append(_of(training, directions, value * scale, value))
    return np.array(found) if is_path else found[0]


def _of(training: Training, directions: Any, penalty: float, diag_reg: float) -> float:
    spectrum, (n, k) = directions.spectrum, training.y.shape
    if spectrum.rank(penalty) < spectrum.size and penalty == 0:
        raise ValueError(
            f"diag_reg={diag_reg!r}: {spectrum.deficiency(penalty)}. Targets have no density under"
            " such a kernel: give diag_reg > 0"
        )
    rates = spectrum.values + penalty
    log_determinant = float(np.sum(np.log(rates)))
    explained = np.sum(directions.targets**2 / rates[:, None])
    if isinstance(directions, DualDirections):
        quadratic = float(explained)
    else:
        log_determinant += (n - spectrum.size) * math.log(penalty)
        total = float(np.sum(training.y**2))
        quadratic = _rest(total, float(explained), spectrum.dtype, diag_reg) / penalty
    return -0.5 * (k * log_determinant + quadratic + n * k * math.log(2 * math.pi))


def _rest(total: float, explained: float, dtype: np.dtype, diag_reg: float) -> float:
    """Their difference, of which a warning says where it is rounding."""
    rounding = float(np.finfo(np.float64).eps) * total
    rest = max(total - explained, rounding)
    resolved = float(np.finfo(dtype).eps) * total
    if rest < resolved:
        warnings.warn(
            f"at diag_reg={diag_reg:g} the features leave {rest / total:.2g} of the squared"
            f" targets, less than {dtype} resolves: the evidence is rounding there. Use a larger"
            " diag_reg, or float64 features",
            RuntimeWarning,
            stacklevel=4,
        )
    return rest
