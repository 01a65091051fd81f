"""Random features drawn from the leverage-score density of the first arc-cosine kernel."""

from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, PerKernel, PRNGKey
from ..activations import DualActivation
from ..activations._dual import value_and_derivative
from ..activations._jumps import RandomFunction
from ..features._hidden import HiddenFeatures
from ..features._variances import Variances
from ..numerics._compiling import fitting_jit
from ..numerics._precision import Precision, checked_precision
from ._directions import orthogonal_directions
from ._method import Method
from ._norms import unit_radius
from ._products import random_products
from ._schedule import Schedule, widths

#: Homogeneity is tested at these points and their negatives. They are less than a factor of 2
#: apart, so that a change of slope in their range lies between some u and 2u.
_TEST_POINTS = np.geomspace(1e-3, 1e3, 61)


class LeverageScore(Method):
    r"""Random features at directions drawn with density proportional to `‖w‖² N(w; 0, I)`.

    Use this for data-independent features of networks with Relu and its relatives, if kernels must
    be unbiased: the variance is smaller than that of `RandomFeatures(width, normalize=False)`.

    With φ the NNGP features of a position (patches and bias included), d their dimension and ψ the
    NTK features,

        φ' = ω ⊙ σ(Wφ) / √m,        ψ' = (Sψ) ⊙ ω ⊙ σ'(Wφ) / √m,        ω_i = √d / ‖w_i‖,

    where `S` is an independent random projection whose rows have `E[s sᵀ] = I`. The density is
    radial: a uniform direction times a chi norm of d + 2 degrees of freedom is an exact sample,
    without a Gibbs chain. It is `‖w‖² / d = ω⁻²` times the Gaussian density, so that `E[ω² σ(w·φ)
    σ(w·φ̃)] = k_σ(φ, φ̃)`. Both kernels are unbiased with one nonlinearity. In deeper nets the
    kernel of a noisy kernel has a bias of order `1 / width`.

    For σ homogeneous of degree 1 (Relu, LeakyRelu, ABRelu, Abs) the feature `ω σ(w·φ) = √d
    σ(φ·w/‖w‖)` does not depend on the norm of w, which therefore adds no variance; σ' depends only
    on the direction and needs no weight. Homogeneity is tested on values of σ. Such layers, and
    those of degree 0 (Sign), get directions of norm √d and `ω = 1`. For any other σ this is
    importance sampling: unbiased, and not claimed to be better than `RandomFeatures`.

    Feature vectors are not rescaled to exact variances. Derivatives are unbiased, as those of
    `RandomFeatures`.

    Args:
        width: number m of features of φ' and of ψ' each, at every nonlinearity; or a schedule, one
            number for each nonlinearity in the order of the model. The error falls as `m^{-1/2}`.
        orthogonal: directions orthogonal in groups (Yu et al. 2016, arXiv 1610.09072) instead of
            independent ones. Each has the same distribution; the variance is smaller.
        precision: of the inputs of the projections: "full" (that of the features),
            "tensorfloat32" or "bfloat16". Lower it on matrix units, for speed.

    Cost: `2 n |space| d m` FLOPs for each of `W` and `S`; memory `n |space| m` numbers for each of
    φ' and ψ'.

    Source: Zandieh, Han et al. 2021 (arXiv 2106.07880), the modified density of their leverage
    scores.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
        >>> features = ns.feature_map(model, x, ns.LeverageScore(16), key=jax.random.key(0))
        >>> features.n_features["nngp"]
        16
    """

    width: Schedule = eqx.field(static=True)
    orthogonal: bool = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    def __init__(
        self,
        width: int | Sequence[int] | Schedule,
        *,
        orthogonal: bool = True,
        precision: Precision = "full",
    ):
        self.width = widths(width)
        self.orthogonal = bool(orthogonal)
        self.precision = checked_precision(precision)

    @property
    def uses_variances(self) -> bool:
        return False

    @property
    def compressed_width(self) -> int | None:
        return self.width.one

    def expand_product(self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey):
        return random_products(branches, self.width.one, key, False, self.precision)

    def expand(self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey):
        dtype = features.nngp[0].dtype
        chi_norms = not norm_does_not_matter(dual.unit or dual, dtype)
        d = features.nngp_vectors().dimension
        d_ntk = None if features.ntk is None else features.ntk_vectors().dimension
        w, weights, s = _draw(key, d, d_ntk, self.width.one, dtype, self.orthogonal, chi_norms)
        return LeverageScoreExpansion(
            w, weights, s, RandomFunction(dual, dtype), dual, self.precision
        )


class LeverageScoreExpansion(eqx.Module):
    """Drawn directions of one nonlinearity. `weights=None` means weights of 1."""

    w: Array
    weights: Array | None
    s: Array | None
    function: RandomFunction
    dual: DualActivation
    precision: Precision = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, exact: Variances | None) -> PerKernel:
        del exact
        u, v = features.project(self.w, self.s, self.precision)
        value, derivative = self.function(self.dual, u, unit_radius(self.dual, features))
        scale = self.w.shape[1] ** -0.5
        if self.weights is not None:
            scale = jax.lax.expand_dims(scale * self.weights, range(value.ndim - 1))
        return PerKernel(scale * value, None if v is None else scale * v * derivative)


def norm_does_not_matter(dual: DualActivation, dtype) -> bool:
    """Whether `σ(2u) = 2^p σ(u)` to the last bit at many u, for p = 0 or p = 1.

    If rounding hides homogeneity, features stay unbiased and only their variance is larger.
    """
    with jax.ensure_compile_time_eval():  # numbers even while a map is made under jit
        u = np.concatenate([_TEST_POINTS, -_TEST_POINTS]).astype(dtype)
        once, twice = (np.asarray(value_and_derivative(dual, a)[0]) for a in (u, 2 * u))
    return np.array_equal(twice, once) or np.array_equal(twice, 2 * once)


@fitting_jit
def _draw(
    key: PRNGKey, d: int, d_ntk: int | None, m: int, dtype, orthogonal: bool, chi_norms: bool
):
    """`W` (d, m), its weights (m,) and `S` (d_ntk, m), directions in columns."""
    key_w, key_norms, key_s = jax.random.split(key, 3)
    w, weights = uniform_directions(key_w, d, m, dtype, orthogonal), None
    if chi_norms:
        # Those of Gaussian vectors of two dimensions more.
        norms = jnp.linalg.norm(jax.random.normal(key_norms, (d + 2, m), dtype), axis=0)
        weights = d**0.5 / norms
        w = w / weights[None, :]
    s = None if d_ntk is None else uniform_directions(key_s, d_ntk, m, dtype, orthogonal)
    return w, weights, s


def uniform_directions(
    key: PRNGKey, d: int, m: int, dtype, orthogonal: bool
) -> Float[Array, "{d} {m}"]:
    """Columns of norm √d and uniform direction: `E[w wᵀ] = I`."""
    if orthogonal:
        return orthogonal_directions(key, d, m, dtype, chi_norms=False)
    w = jax.random.normal(key, (d, m), dtype)
    return w * (d**0.5 / jnp.linalg.norm(w, axis=0, keepdims=True))
