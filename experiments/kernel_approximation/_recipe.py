"""The recipe of the papers as a method to compare with: full FFTs and sketches of both factors."""

import functools

import equinox as eqx
import jax
from jax import numpy as jnp

from ntk_sketch.activations import DualActivation
from ntk_sketch.features import HiddenFeatures
from ntk_sketch.features._hidden import joined
from ntk_sketch.methods import Method
from ntk_sketch.series import HermiteTable


class TensorSRHTRecipe(Method):
    """Sketches of power series as published: every sketch is a (Tensor)SRHT with a complex FFT.

    Powers come from a binary tree over a power of two of leaves, of which some hold the unit vector
    `e_1` instead of u (Zandieh, Han et al. 2021, arXiv 2106.07880); their direct sum, weighted by
    the roots of the coefficients, is sketched to m; and the NTK is the sketch of both factors, `φ̇`
    and ψ. Complex sketches of m / 2 numbers count as m features. Norms are those of the features,
    as published; with exact ones, u would be longer than 1 where features are too long, and its
    high powers would blow up. Coefficients are those of `ntk_sketch.PolySketch`. For vectors only.
    """

    degree: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def expand(self, dual: DualActivation, features: HiddenFeatures, *, key):
        if features.space:
            raise ValueError("TensorSRHTRecipe takes vectors (n, d), not positions.")
        m = self.width // 2
        keys = iter(jax.random.split(key, 4 * self.degree + 4))
        leaves = 1 << (self.degree - 1).bit_length()
        d = features.nngp_vectors().dimension
        tree = {
            (start, start + size): (
                Fourier.draw(next(keys), d, m)
                if size == 1
                else (Fourier.draw(next(keys), m, m), Fourier.draw(next(keys), m, m))
            )
            for size in (2**j for j in range(leaves.bit_length()))
            for start in range(0, leaves, size)
        }
        tables = [
            HermiteTable(dual, self.degree, derivative=derivative, tail=True)
            for derivative in (False, True)
        ]
        sums = [Fourier.draw(next(keys), (self.degree + 2) * m, m) for _ in tables]
        product = None
        if features.ntk is not None:
            own = features.ntk_vectors().dimension
            product = (Fourier.draw(next(keys), 2 * m, m), Fourier.draw(next(keys), own, m))
        return RecipeExpansion(tree, tables, sums, product, dual, self.degree, leaves)


class Fourier(eqx.Module):
    """`P F D x`: random signs, the FFT, some of its entries; all of modulus 1 before the sum."""

    signs: jax.Array
    rows: jax.Array

    @classmethod
    def draw(cls, key, d: int, m: int) -> "Fourier":
        key_signs, key_rows = jax.random.split(key)
        rows = jax.random.permutation(key_rows, jnp.arange(max(d, m)) % d)[:m]
        return cls(jax.random.rademacher(key_signs, (d,), jnp.float32), rows)

    def __call__(self, x):
        return jnp.fft.fft(x * self.signs)[..., self.rows]


class RecipeExpansion(eqx.Module):
    tree: dict
    tables: list[HermiteTable]
    sums: list[Fourier]
    product: tuple[Fourier, Fourier] | None
    dual: DualActivation = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    leaves: int = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, exact):
        del exact  # norms are those of the features, as published
        u = jnp.concatenate(features.nngp_vectors().blocks_formed(), axis=1)
        radius = jnp.linalg.norm(u, axis=1)
        u, q = u / radius[:, None], radius**2
        e_1 = jnp.zeros_like(u).at[:, 0].set(1)
        m = self.sums[0].rows.shape[0]

        @functools.cache
        def node(start: int, end: int, held: int):
            """Of the leaves start to end, the first `held` of all of which hold u."""
            if not start < held < end:
                held = end if held >= end else start
            if end - start == 1:
                return m**-0.5 * self.tree[start, end](u if held == end else e_1)
            middle = (start + end) // 2
            left, right = self.tree[start, end]
            halves = node(start, middle, min(held, middle)), node(middle, end, max(held, middle))
            return m**-0.5 * left(halves[0]) * right(halves[1])

        powers = [node(0, self.leaves, l) for l in range(self.degree + 1)]
        powers = jnp.stack([*powers, powers[-1]], axis=-2)
        z = []
        for table, own, scale in zip(self.tables, self.sums, self.dual(q, q, q), strict=True):
            weighted = table(radius)[..., None] * powers
            sketched = m**-0.5 * own(weighted.reshape(len(u), -1))
            z.append(jnp.sqrt(scale)[:, None] * _real(sketched))
        if self.product is None:
            return z[0], None
        psi = joined(features.ntk_vectors().blocks_formed(), z[0])
        left, right = self.product
        return z[0], _real(m**-0.5 * left(z[1]) * right(psi))


def _real(z):
    """Real and imaginary parts side by side: `Re <z, z'>` is their inner product."""
    return jnp.concatenate([z.real, z.imag], axis=-1)
