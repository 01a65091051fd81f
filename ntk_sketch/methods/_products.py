"""Features of products of independent branches, by random projections or landmarks."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from .._typing import Array, Inputs, PerKernel, PRNGKey
from ..features._hidden import HiddenFeatures
from ..features._variances import Variances
from ..numerics._compiling import fitting_jit
from ..numerics._linalg import in_place
from ..numerics._precision import Precision, float64, matmul, on_device
from ._directions import orthogonal_directions
from ._landmarks import promoted, with_diagonal
from ._norms import with_exact_norms
from ._roots import Roots, Values, fitted_roots

#: For each branch, inner products of φ, and of ψ or `None` if `Θ = 0`.
Projections = Sequence[PerKernel]


def product(parts: Projections, ntk: bool) -> PerKernel:
    """`Π_i u_i` and, if asked for, `Σ_i v_i Π_{j≠i} u_j`: the product rule of both kernels."""
    value, derivative = None, None
    for u, v in parts:
        if value is None:
            value, derivative = u, v
            continue
        terms = [] if derivative is None else [derivative * u]
        terms += [] if v is None else [value * v]
        derivative = functools.reduce(jnp.add, terms) if terms else None
        value = value * u
    assert value is not None
    if not ntk:
        return PerKernel(value, None)
    return PerKernel(value, jnp.zeros_like(value) if derivative is None else derivative)


def has_ntk(branch: HiddenFeatures) -> bool:
    """Whether the branch has an NTK that is not 0."""
    return branch.ntk is not None and (len(branch.ntk) > 0 or branch.pending is not None)


class RandomProducts(eqx.Module):
    """`φ' = m^{-1/2} ⊙_i W_i φ_i`, `ψ' = m^{-1/2} Σ_i S_i ψ_i ⊙_{j≠i} W_j φ_j`.

    Elementwise products of independent projections with `E[w wᵀ] = I` are unbiased sketches of
    tensor products: `E <φ', φ̃'> = Π_i <φ_i, φ̃_i>`. So are sums of such products if the factors
    `S_i` are independent: `E <ψ', ψ̃'> = Σ_i <ψ_i, ψ̃_i> Π_{j≠i} <φ_j, φ̃_j>`.
    """

    directions: tuple[PerKernel, ...]
    normalize: bool = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    def __call__(self, branches: list[HiddenFeatures], exact: Variances | None) -> PerKernel:
        parts = [
            branch.project(w, s, self.precision)
            for branch, (w, s) in zip(branches, self.directions, strict=True)
        ]
        nngp, ntk = product(parts, branches[0].ntk is not None)
        scale = nngp.shape[-1] ** -0.5
        nngp, ntk = scale * nngp, None if ntk is None else scale * ntk
        if not self.normalize or exact is None:
            return PerKernel(nngp, ntk)
        return with_exact_norms(nngp, ntk, exact)


def random_products(
    branches: list[HiddenFeatures],
    width: int,
    key: PRNGKey,
    normalize: bool,
    precision: Precision,
) -> RandomProducts:
    """Draws `width` products for branches with features of these shapes."""
    sizes = tuple(
        (b.nngp_vectors().dimension, b.ntk_vectors().dimension if has_ntk(b) else None)
        for b in branches
    )
    return RandomProducts(_draw(key, sizes, width, branches[0].dtype), normalize, precision)


@fitting_jit
def _draw(key: PRNGKey, sizes, m: int, dtype):
    keys = iter(jax.random.split(key, 2 * len(sizes)))

    def draw(d):
        own = next(keys)
        return None if d is None else orthogonal_directions(own, d, m, dtype, chi_norms=False)

    return tuple(PerKernel(draw(d), draw(d_ntk)) for d, d_ntk in sizes)


class ProductLandmarks(eqx.Module):
    """Nyström features of the product kernels, with positions Z of the sample as landmarks.

    `φ' = k R` and `ψ' = k_ψ R_ψ` with `k = Π_i <φ_i, Z_i>` and `k_ψ = Σ_i <ψ_i, Z_ψi> Π_{j≠i} <φ_j,
    Z_j>`.

    Attributes:
        filters: `Z_i` (d, m) of each branch, and `Z_ψi` or `None` if `Θ = 0`.
        q: variances of the landmarks (m,).
        examples: sorted index (m,) of the example that each landmark comes from.
        asked: how many features were asked for, or `None` for as many as there are positions.
        name: of the layer, for errors.
    """

    filters: tuple[PerKernel, ...]
    q: Array
    roots: Roots
    roots_ntk: Roots | None
    examples: Array
    precision: Precision = eqx.field(static=True)
    asked: int | None = eqx.field(static=True)
    name: str = eqx.field(static=True)

    @property
    def width(self) -> int:
        return len(self.q)

    def __call__(self, branches: list[HiddenFeatures], exact: Variances | None) -> PerKernel:
        parts = [
            branch.project(w, s, self.precision)
            for branch, (w, s) in zip(branches, self.filters, strict=True)
        ]
        k, k_ntk = product(parts, self.roots_ntk is not None)
        nngp = self.roots(k, None, None)
        if self.roots_ntk is None or k_ntk is None:
            return PerKernel(nngp, None)
        return PerKernel(nngp, self.roots_ntk(k_ntk, None, None))


class Branch(eqx.Module):
    """The inputs of a product's kernels at some positions of a branch.

    Attributes:
        z: NNGP vectors (m, d).
        independent: covariances (m,) of two passes with independent Dropout masks.
        z_ntk: NTK vectors (m, d_ψ), or `None` where `Θ = 0`.
    """

    z: Array
    independent: Array
    z_ntk: Array | None


@functools.partial(fitting_jit, level=0)
def vectors_at(branches: list[HiddenFeatures], index: tuple[Inputs, ...]) -> list[Branch]:
    """Every `Branch` at the positions `index` = (example, *position)."""
    return [
        Branch(
            b.nngp_vectors().at(index),
            b.variances.diagonal(b.variances.independent)[index],
            b.ntk_vectors().at(index) if has_ntk(b) else None,
        )
        for b in branches
    ]


def product_landmarks(
    name: str,
    branches: list[HiddenFeatures],
    index: tuple[np.ndarray, ...],
    others: tuple[np.ndarray, ...],
    *,
    precision: Precision = "full",
    rcond: float | None = None,
    asked: int | None = None,
) -> ProductLandmarks:
    """Makes landmarks of the positions `index` of the sample.

    The variance of a landmark is the exact one in every branch, as for nonlinearities. Gram
    matrices are formed in float64.

    Args:
        others: positions at which to measure the rounding of kernel values.
    """
    ntk, dtype = branches[0].ntk is not None, branches[0].dtype
    own, other = vectors_at(branches, index), vectors_at(branches, others)
    with float64():
        grams = kernels(promoted(own), promoted(own), ntk, True)
        accurate = kernels(promoted(other), promoted(own), ntk)
    applied = kernels(other, own, ntk, False, precision)
    traced = PerKernel(None, None)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(own)):
        traced = kernels(own, own, ntk, True)
    q = functools.reduce(
        jnp.multiply, (b.variances.diagonal(b.variances.same)[index] for b in branches)
    )

    def roots(at: int) -> Roots:
        measured = None
        if dtype != np.float64:
            measured = Values(in_place(applied[at]), in_place(accurate[at]))
        return fitted_roots(in_place(grams[at]), dtype, None, rcond, measured, traced[at])

    filters = tuple(PerKernel(b.z.T, None if b.z_ntk is None else b.z_ntk.T) for b in own)
    examples = on_device(np.sort(index[0]))
    return ProductLandmarks(
        filters, q, roots(0), roots(1) if ntk else None, examples, precision, asked, name
    )


@functools.partial(fitting_jit, level=0)
def kernels(
    rows: list[Branch],
    columns: list[Branch],
    ntk: bool,
    diagonal: bool = False,
    precision: Precision = "full",
) -> PerKernel:
    """Both kernels between two sets of positions; with `diagonal`, of one set with itself, with
    exact variances.
    """
    parts = []
    for a, b in zip(rows, columns, strict=True):
        c = matmul(a.z, b.z.T, precision)
        c = with_diagonal(c, a.independent) if diagonal else c
        theta = None
        if a.z_ntk is not None and b.z_ntk is not None:
            theta = matmul(a.z_ntk, b.z_ntk.T, precision)
        parts.append(PerKernel(c, theta))
    return product(parts, ntk)
