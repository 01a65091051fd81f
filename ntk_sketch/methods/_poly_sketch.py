"""Sketches of power series in the cosine, with one sketch of all powers for both kernels."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, PerKernel, PRNGKey
from ..activations import DualActivation
from ..features._hidden import HiddenFeatures, Vectors
from ..numerics._compiling import fitting_jit
from ..numerics._precision import Precision
from ..series import HermiteTable, KernelSeries
from ..series._radial import RadialFactors
from ..sketches import SRHT, PowerTree
from ._norms import input_radius, scaled_to, unit_scale
from ._series_method import SeriesMethod


class PolySketch(SeriesMethod):
    r"""Sketches of the power series of kernels in the cosine, at every norm.

    Use this for data-independent features with explicit control of the degree, for example to
    compare with published sketches.

    Let φ and ψ be the NNGP and NTK features of a position (patches and bias included), q its exact
    variance, `r = √q`, `u = φ / r`, and `S_l` a sketch of `u^{⊗l}` to m numbers. Then

        φ' = √k_σ(q, q, q) Σ_l ĉ_l(r) ε_l ⊙ S_l(u),
        ψ' = √k_σ'(q, q, q) (Sψ) ⊙ Σ_l ĉ'_l(r) ε'_l ⊙ S_l(u),

    where `ĉ_l(r) = c_l(r) / √k_σ` are the Hermite coefficients at this norm, `ε_l` random signs and
    `S` a random projection. Since `k_σ(x, x') = Σ_l c_l(r) c_l(r') ρ^l` at every pair of norms, the
    expected kernels are those of the truncated series, with exact input features and
    `normalize=False`. The omitted coefficients are added to the last power, so that the diagonal
    stays right. One tree of TensorSRHTs (`sketches.PowerTree`) sketches all powers, in time linear
    in the degree. Its leaves are u itself. After a convolution, whose patches are not formed, they
    are independent projections of u.

    With `scope="network"` both kernels of a whole fully connected net are expanded at once. Its
    layers are composed as power series of the cosine ρ of the *inputs*, with coefficients that
    depend on both norms (`RadialFactors`).

    Args: see `SeriesMethod`: degree, width, scope, normalize, radii, max_tail, precision.

    Cost: `2 n |space| d m` FLOPs for the projection of φ (after a convolution `degree` times as
    many), `2 n |space| d_ψ m` for that of ψ, and `O(n |space| (d + m) log(d + m) degree)` for the
    tree; memory `n |space| (d + m) degree` numbers.

    Raises, from `feature_map`:
        ValueError: the series does not converge at the largest of `radii`, or leaves out more than
            `max_tail`; "network" with inputs that have positions.
        NotImplementedError: "network" with a layer that has no power series.

    Source: Zandieh, Han et al. 2021 (arXiv 2106.07880), NTKSketch and CNTKSketch, for ReLU; Han et
    al. 2022 (arXiv 2209.04121), Hermite series of general activations at norm one. Here the series
    holds at every norm, and sums with random signs and an elementwise product replace further
    sketches.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
        >>> method = ns.PolySketch(degree=4, width=16)
        >>> features = ns.feature_map(model, x, method, key=jax.random.key(0))
        >>> features.n_features["nngp"]
        16
    """

    __init__ = SeriesMethod.__init__  # type checkers would make one of the fields

    def projection(self, features: HiddenFeatures, key: PRNGKey) -> "Powers":
        return Powers.draw(features, self.width.one, self.degree, self.precision, key)

    def factors(self, dual: DualActivation, derivative: bool, projection: "Powers"):
        return HermiteTable(dual, self.degree, derivative=derivative, tail=True, **self.table)

    def sums(self, factors, projection: "Powers", key: PRNGKey) -> "SignedPowers":
        m, dtype = projection.m, projection.w.dtype
        shape = jax.eval_shape(factors, jax.ShapeDtypeStruct((), dtype)).shape
        powers, components = shape if len(shape) == 2 else (*shape, 1)
        return SignedPowers(factors, jax.random.rademacher(key, (powers, components, m), dtype))

    def expand_series(
        self,
        series: KernelSeries,
        radii: tuple[float, float],
        features: HiddenFeatures,
        *,
        key: PRNGKey,
    ):
        key_projection, key_sums = jax.random.split(key)
        projection, sums = self.projection(features, key_projection), []
        kernels = zip(series.kernels(), jax.random.split(key_sums), strict=False)
        for (coefficients, diagonal), own in kernels:
            self.check_tail(coefficients[..., : self.degree + 1], diagonal, radii)
            # Coefficients above `degree` go to the last one, so that the diagonal stays right.
            kept, above = np.split(coefficients, [self.degree], axis=-1)
            kept = np.concatenate([kept, above.sum(axis=-1, keepdims=True)], axis=-1)
            sums.append(self.sums(RadialFactors(*radii, kept, diagonal), projection, own))
        return NetworkExpansion(projection, tuple(sums), self.normalize)


@fitting_jit
def _projections(keys: PRNGKey, d: int, m: int, dtype) -> Array:
    """The matrices of SRHTs, side by side: (d, len(keys) m).

    As dense matrices they can be the filters of a convolution, which forms no patches.
    """
    w = jax.lax.map(lambda key: SRHT(d, m, key=key, dtype=dtype)(jnp.eye(d, dtype=dtype)), keys)
    return jnp.moveaxis(w, 0, 1).reshape(d, -1)


class NetworkExpansion(eqx.Module):
    """Drawn sketches of the kernels of a whole network."""

    projection: "Powers"
    sums: tuple["SignedPowers", ...]
    normalize: bool = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, exact: Any) -> PerKernel:
        radius = input_radius(features)
        powers, _ = self.projection(features, None, radius)
        z = [
            scaled_to(kernel(radius, powers), kernel.factors.diagonal(radius), self.normalize)
            for kernel in self.sums
        ]
        return PerKernel(z[0], z[1] if len(z) > 1 else None)


class Powers(eqx.Module):
    """Sketches of all powers of the direction u of φ: a tree, and projections `w`.

    After a convolution the leaves of the tree are `degree` independent projections, `w` (d, degree
    m). Otherwise they are u itself, which adds no noise. Power 1 is then the projection on `w` (d,
    m), because the tree would give u, with only d numbers to multiply projections of ψ with.

    A constant coordinate b could double the length of the transforms. It is therefore spread over
    the others in each leaf: `φ + b ε / √D`, where D is the length of φ and ε are independent random
    signs. Inner products keep their expectation, with a variance of `b² ‖φ + φ'‖² / D`.
    """

    w: Array
    tree: PowerTree
    signs: Float[Array, "degree D"] | None
    m: int = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    @classmethod
    def draw(
        cls, features: HiddenFeatures, m: int, degree: int, precision: Precision, key: PRNGKey
    ) -> "Powers":
        key_projections, key_tree, key_signs = jax.random.split(key, 3)
        vectors, dtype = features.nngp_vectors(), features.nngp[0].dtype
        d, signs, formed = vectors.dimension, None, vectors.operator is None
        keys = jax.random.split(key_projections, 1 if formed else degree)
        w, length = _projections(keys, d, m, dtype), d if formed else m
        if formed and vectors.constant is not None and d > m and (d - 1).bit_count() == 1:
            length = d - 1
            signs = jax.random.rademacher(key_signs, (degree, length), dtype)
        tree = PowerTree(m, degree, key=key_tree, dtype=dtype, d=length)
        return cls(w, tree, signs, m, precision)

    def __call__(self, features: HiddenFeatures, s: Array | None, radius: Array):
        """`S_l(φ / r)` (..., degree + 1, m), and ψ projected on `s`."""
        t, v = features.project(self.w, s, self.precision)
        scale, vectors = unit_scale(radius)[..., None], features.nngp_vectors()
        t = t * scale
        if vectors.operator is not None:
            return self.tree(t.reshape(*t.shape[:-1], -1, self.m)), v
        powers = self.tree(self._leaves(vectors) * scale[..., None])
        return powers.at[..., 1, :].set(t), v

    def _leaves(self, vectors: Vectors) -> Array:
        """(..., degree, D)."""
        blocks, length = vectors.blocks_formed(), self.tree.d
        if self.signs is None:
            phi = jnp.concatenate(blocks, axis=-1)[..., None, :]
            return jnp.broadcast_to(phi, (*phi.shape[:-2], self.tree.degree, length))
        *blocks, constant = blocks
        phi = jnp.concatenate(blocks, axis=-1)[..., None, :]
        signs = jax.lax.expand_dims(self.signs, range(phi.ndim - 2))
        return phi + constant[..., None] * length**-0.5 * signs


class SignedPowers(eqx.Module):
    """`Σ_l Σ_i h_{l,i}(r) ε_{l,i} ⊙ S_l`: sketches of all powers added up in the same m features.

    With random signs `ε`, inner products of different powers are 0 in expectation and have a
    variance of order 1 / m, like any sketch of all powers to m dimensions. A last factor without a
    power of its own, that of the tail, multiplies the last power.
    """

    factors: Any  # a HermiteTable or RadialFactors
    signs: Float[Array, "l i m"]

    def __call__(self, radius: Array, powers: Array) -> Array:
        factors = self.factors(radius).reshape(*radius.shape, *self.signs.shape[:2])
        weights = jnp.einsum("...li,lim->...lm", factors, self.signs, precision="highest")
        if len(self.signs) > powers.shape[-2]:
            powers = jnp.concatenate([powers, powers[..., -1:, :]], axis=-2)
        return jnp.sum(weights * powers, axis=-2)
