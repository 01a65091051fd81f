"""Random features: the nonlinearity itself, at random Gaussian projections."""

from collections.abc import Sequence

import equinox as eqx
import jax

from .._typing import Array, PerKernel, PRNGKey
from ..activations import DualActivation
from ..activations._jumps import RandomFunction
from ..features._hidden import HiddenFeatures
from ..features._variances import Variances
from ..numerics._compiling import fitting_jit
from ..numerics._precision import Precision, checked_precision
from ._directions import orthogonal_directions
from ._method import Method
from ._norms import unit_radius, with_exact_norms
from ._products import random_products
from ._schedule import Schedule, widths


class RandomFeatures(Method):
    r"""Random features of a nonlinearity `σ` and of its derivative.

    Use this for a map that does not depend on data: it needs only the shape of the inputs. At equal
    width the error of `Nystroem` is much smaller.

    With φ the NNGP features of a position (patches and bias included) and ψ its NTK features,

        φ' = σ(Wφ) / √m,        ψ' = (Sψ) ⊙ σ'(Wφ) / √m,

    where the rows of `W` (m, d) are Gaussian and `S` is an independent random projection whose rows
    have `E[s sᵀ] = I`. The elementwise product is an unbiased sketch of the tensor product: `E
    <ψ'(x), ψ'(y)> = <ψ(x), ψ(y)> k_σ'(x, y)`. It is cheaper than a TensorSRHT of both factors, and
    its variance is lower.

    With one nonlinearity and `normalize=False` both kernels are unbiased. In deeper nets the kernel
    of a noisy kernel has a bias of order `1 / width`.

    Derivatives of features are defined so that those of `<z(x), z(y)>` are unbiased. If `σ'` jumps
    by J (Relu, Abs), or `σ` does (Sign), the derivative of the kernel has a term `J δ(u)` that
    automatic differentiation misses. It is estimated by a smoothing kernel in the projection u of
    width `0.8 m^{-1/9} ‖φ‖` (fourth order), so that the error of a gradient falls as m^(-4/9). The
    result is not a difference quotient of the features, whose values jump. Second derivatives are
    those of the smoothed features. With smooth nonlinearities nothing is added.

    The kernel `√(q q') exp(γ (ρ - 1))` of `ExpNormalized` has the positive features `√q exp(√γ w·φ
    / √q - γ)` with the exact variance q. They are log-normal with a relative variance of up to
    `e^{4γ} / m`: use `Nystroem` from γ = 1 on.

    Args:
        width: number m of features of φ' and of ψ' each, at every nonlinearity; or a schedule, one
            number for each nonlinearity in the order of the model.
        orthogonal: orthogonal directions with independent chi norms (Yu et al. 2016, arXiv
            1610.09072) instead of independent Gaussian ones. Each row has the same distribution;
            the variance is smaller.
        normalize: rescale every feature vector to its exact norm, `‖φ'_s‖² = K'(s, s)` and `‖ψ'_s‖²
            = Θ'(s, s)`: much less variance, for a bias of order `1 / width`. Turn it off for
            unbiased kernels. Norms are exact at the positions of a nonlinearity's output, and
            estimates behind layers that mix positions after the last one. Feature vectors that are
            0 (no direction of ReLU is active, or the input is 0) stay 0.
        precision: of the inputs of the projections: "full" (that of the features),
            "tensorfloat32" or "bfloat16".

    Cost: `2 n |space| d m` FLOPs for each of `W` and `S`; memory `n |space| m` numbers for each of
    φ' and ψ'.

    Source: arc-cosine features of Cho and Saul 2009; for the NTK, Zandieh, Han et al. 2021 (arXiv
    2106.07880), with one projection instead of their sketch of both factors.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
        >>> features = ns.feature_map(model, x, ns.RandomFeatures(16), key=jax.random.key(0))
        >>> features.n_features["nngp"]
        16
    """

    width: Schedule = eqx.field(static=True)
    orthogonal: bool = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    def __init__(
        self,
        width: int | Sequence[int] | Schedule,
        *,
        orthogonal: bool = True,
        normalize: bool = True,
        precision: Precision = "full",
    ):
        self.width = widths(width)
        self.orthogonal = bool(orthogonal)
        self.normalize = bool(normalize)
        self.precision = checked_precision(precision)

    @property
    def uses_variances(self) -> bool:
        return self.normalize

    @property
    def compressed_width(self) -> int | None:
        return self.width.one

    def expand_product(self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey):
        return random_products(branches, self.width.one, key, self.normalize, self.precision)

    def expand(self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey):
        dtype = features.nngp[0].dtype
        d = features.nngp_vectors().dimension
        d_ntk = None if features.ntk is None else features.ntk_vectors().dimension
        w, s = _draw(key, d, d_ntk, self.width.one, dtype, self.orthogonal)
        return RandomExpansion(
            w, s, RandomFunction(dual, dtype), self.normalize, dual, self.precision
        )


class RandomExpansion(eqx.Module):
    """Drawn directions of one nonlinearity."""

    w: Array
    s: Array | None
    function: RandomFunction
    normalize: bool = eqx.field(static=True)
    dual: DualActivation
    precision: Precision = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, exact: Variances | None) -> PerKernel:
        u, v = features.project(self.w, self.s, self.precision)
        value, derivative = self.function(self.dual, u, unit_radius(self.dual, features))
        scale = self.w.shape[1] ** -0.5
        nngp = scale * value
        ntk = None if v is None else scale * v * derivative
        if not self.normalize or exact is None:
            return PerKernel(nngp, ntk)
        return with_exact_norms(nngp, ntk, exact)


@fitting_jit
def _draw(key: PRNGKey, d: int, d_ntk: int | None, m: int, dtype, orthogonal: bool):
    """`W` (d, m) and `S` (d_ntk, m), with directions in columns."""
    key_w, key_s = jax.random.split(key)

    def draw(key, d, chi_norms):
        if orthogonal:
            return orthogonal_directions(key, d, m, dtype, chi_norms=chi_norms)
        return jax.random.normal(key, (d, m), dtype)

    return draw(key_w, d, True), None if d_ntk is None else draw(key_s, d_ntk, False)
