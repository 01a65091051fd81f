"""Features of one nonlinearity from landmarks, and random features of the residual kernel."""

import functools
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array, Inputs, PerKernel
from ..activations import DualActivation
from ..activations._dual_kernels import DualKernels
from ..activations._jumps import RandomFunction
from ..features._hidden import HiddenFeatures
from ..features._variances import Variances
from ..numerics._compiling import fitting_jit
from ..numerics._precision import Precision, matmul, on_device
from ._folding import folded
from ._landmarks import Landmarks
from ._roots import Roots, fitted_roots


class LandmarkExpansion(eqx.Module):
    """Landmark features of one nonlinearity, and random features of the residual kernel.

    Kernel values with landmarks are `k = k_σ(φ, Z)` and `k_ψ = k_σ'(φ, Z) ⊙ <ψ, Z_ψ>`. The random
    functions of the two kernels are `σ(Wφ)` and `σ'(Wφ) ⊙ Sψ`. `Roots` makes features of both.

    Attributes:
        filters: `[Z, Wᵀ]` (d, m₁ + m₂), multiplied in one product, or a basis (d, r) of `Z`. Roots
            that the incoming features still wait for are multiplied into them (`folded`).
        mixing: `Z` in that basis (r, m₁), or `None`.
        q: variances of the landmarks (m₁,).
        roots: of the NNGP features.
        filters_ntk, roots_ntk, mixing_ntk: the same for the NTK features, with `[Z_ψ, Sᵀ]`, or
            `None`.
        examples: sorted index (m,) of the example that each landmark comes from.
        function: `σ` and `σ'` at random directions, or `None` without residual features.
        normalize: whether residual features have their exact norm at every position.
        asked: how many features were asked for, or `None` for as many as there are positions.
    """

    filters: Array
    q: Array
    roots: Roots
    filters_ntk: Array | None
    roots_ntk: Roots | None
    examples: Array
    function: RandomFunction | None
    dual: DualKernels
    precision: Precision = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    asked: int | None = eqx.field(static=True, default=None)
    mixing: Array | None = None
    mixing_ntk: Array | None = None

    @property
    def name(self) -> str:
        """How warnings call the nonlinearity."""
        return self.dual.name

    @property
    def width(self) -> int:
        """m₁ + m₂."""
        return (self.filters if self.mixing is None else self.mixing).shape[1]

    def __call__(self, features: HiddenFeatures, exact: Variances | None) -> PerKernel:
        if self.precision == "full":
            ntk = None if self.filters_ntk is None else self.filters_ntk.shape[1]
            features = features.raw(self.filters.shape[1], ntk)
        u, v = self.mixed(*features.project(self.filters, self.filters_ntk, self.precision))
        q = features.variances.diagonals().same
        norms = PerKernel(None, None) if exact is None else exact.diagonals().kernels
        return self.of_projections(u, v, q, norms)

    def mixed(self, u: Array, v: Array | None) -> PerKernel:
        """Products of φ and of ψ with landmarks and directions, from those with `filters`."""
        if self.mixing is not None:
            u = matmul(u, self.mixing, self.precision)
        if self.mixing_ntk is not None and v is not None:
            v = matmul(v, self.mixing_ntk, self.precision)
        return PerKernel(u, v)

    def folded(self, features: HiddenFeatures) -> "LandmarkExpansion":
        """This expansion for `features` that still wait for roots: the filters absorb the roots,
        once and in float64.
        """
        if self.precision != "full" or not features.rooted:
            return self
        filters = folded(features, self.filters, self.filters_ntk)
        return eqx.tree_at(
            lambda e: PerKernel(e.filters, e.filters_ntk),
            self,
            filters,
            is_leaf=lambda f: f is None,
        )

    def of_projections(self, u: Array, v: Array | None, q: Array, norms: PerKernel) -> PerKernel:
        """Features from the projections on `filters` and `filters_ntk`.

        Args:
            q: exact variances before the nonlinearity.
            norms: exact variances of both kernels after it, or `None`.
        """
        m = self.q.shape[0]
        k, k_derivative = self.dual(u[..., :m], q[..., None], self.q)
        value = derivative = None
        if self.function is not None:
            assert isinstance(self.dual, DualActivation)
            value, derivative = self.function(self.dual, u[..., m:])
        norm, norm_ntk = norms if self.normalize else (None, None)
        nngp = self.roots(k, value, norm)
        if v is None or self.roots_ntk is None:
            return PerKernel(nngp, None)
        random = None if derivative is None else derivative * v[..., m:]
        return PerKernel(nngp, self.roots_ntk(k_derivative * v[..., :m], random, norm_ntk))


def expansion(
    landmarks: Landmarks,
    dual: DualKernels,
    w: Inputs | None = None,
    s: Inputs | None = None,
    precision: Precision = "full",
    normalize: bool = False,
    rcond: float | None = None,
    asked: int | None = None,
) -> LandmarkExpansion:
    """Makes features from landmarks and, given directions `w` (d, m₂) and `s` (d_ψ, m₂), from
    random functions.

    The covariance of the random function `g(x) = σ(w·φ)`, or `σ'(w·φ) s·ψ`, is the kernel k. Minus
    its projection on the landmarks, `g(x) - k(x, Z) B g(Z)`, it has the covariance of the residual
    kernel, `k - k(·, Z) B k(Z, ·)`, exactly if `B K B = B`. The pseudo-inverse `B` has that
    property.

    With `normalize`, the m₂ residual features have squared norm `k(x, x) - k(x, Z) B k(Z, x)` at
    every position x instead of on average: a bias of order `1 / m₂`, and less variance.
    """
    function, dtype = None, landmarks.q.dtype
    filters, values = landmarks.z, PerKernel(None, None)
    if w is not None:
        assert isinstance(dual, DualActivation)
        function = RandomFunction(dual, dtype)
        own = filters.nngp.dtype
        directions = jax.tree.map(lambda rows: on_device(rows, own), PerKernel(w, s))
        filters, values = _with_directions(landmarks.z, dual, directions)

    def of(kernel: str) -> Any:
        """Filters, what mixes their products, and roots."""
        gram, basis = getattr(landmarks.gram, kernel), getattr(landmarks.bases, kernel)
        if gram is None:
            return None, None, None
        seen, traced = getattr(landmarks.seen, kernel), getattr(landmarks.traced, kernel)
        roots = fitted_roots(gram, dtype, getattr(values, kernel), rcond, seen, traced)
        if basis is None:
            return getattr(filters, kernel), None, roots
        return basis, matmul(basis.T, getattr(landmarks.z, kernel), "full"), roots

    own, mixing, roots = of("nngp")
    own_ntk, mixing_ntk, roots_ntk = of("ntk")
    return LandmarkExpansion(
        own,
        landmarks.q,
        roots,
        own_ntk,
        roots_ntk,
        on_device(landmarks.examples),
        function,
        dual,
        precision,
        normalize,
        asked,
        mixing,
        mixing_ntk,
    )


@functools.partial(fitting_jit, level=0)
def _with_directions(z: PerKernel, dual, directions: PerKernel):
    """`[Z, Wᵀ]` and `g(Z)` (m₁, m₂) of both kernels."""
    value, derivative = dual.value_and_derivative(matmul(z.nngp.T, directions.nngp, "full"))
    values = PerKernel(value, None)
    if z.ntk is not None and directions.ntk is not None:
        values = PerKernel(value, derivative * matmul(z.ntk.T, directions.ntk, "full"))
    return jax.tree.map(lambda *sides: jnp.concatenate(sides, axis=1), z, directions), values
