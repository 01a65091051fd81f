"""The tree of the papers: two-factor TensorSRHTs with full complex Fourier transforms."""

import functools

import equinox as eqx
import jax
from jax import numpy as jnp

from ntk_sketch.sketches._power_tree import _halves, _rounds


class FourierTree(eqx.Module):
    """Sketches of all powers of x (n, d): (n, degree + 1, m), real.

    A node is `(P₁ F D₁ a) ⊙ (P₂ F D₂ b) / √w` of complex vectors of length w = m / 2, with signs D,
    the discrete Fourier transform F and w rows P drawn independently, all anew for every factor of
    every node. At the end, real and imaginary parts side by side make m real numbers. Leaves are
    `P F D x / √w`. Shape of the tree and order of the work are those of `PolynomialSketch`.
    """

    degree: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    leaves: "Fourier"
    factors: "list[tuple[Fourier, Fourier]]"

    def __init__(self, d: int, m: int, degree: int, *, key: jax.Array):
        self.degree, self.width = degree, m // 2
        rounds = _rounds(range(degree + 1))
        key, *keys = jax.random.split(key, 1 + 2 * len(rounds))
        w = self.width
        self.leaves = Fourier(degree, d, w, key)
        self.factors = [
            (Fourier(len(group), w, w, one), Fourier(len(group), w, w, two))
            for group, one, two in zip(rounds, keys[::2], keys[1::2], strict=True)
        ]

    @eqx.filter_jit
    def powers(self, x: jax.Array) -> jax.Array:
        scale = self.width**-0.5
        leaves = scale * self.leaves(x[:, None])
        values = {(i, i + 1): leaves[:, i] for i in range(self.degree)}
        for group, factors in zip(_rounds(range(self.degree + 1)), self.factors, strict=True):
            halves = zip(*(_halves(*node) for node in group), strict=True)
            a, b = (
                factor(jnp.stack([values[half] for half in side], axis=1))
                for factor, side in zip(factors, halves, strict=True)
            )
            nodes = scale * a * b
            values |= {node: nodes[:, k] for k, node in enumerate(group)}
        constant = jnp.full_like(leaves[:, 0], scale)
        z = jnp.stack([constant, *(values[0, l] for l in range(1, self.degree + 1))], axis=1)
        return jnp.concatenate([z.real, z.imag], axis=-1)


class Fourier(eqx.Module):
    """`P F D` of count vectors (n, count, d) to (n, count, w)."""

    signs: jax.Array
    rows: jax.Array

    def __init__(self, count: int, d: int, w: int, key: jax.Array):
        key_signs, key_rows = jax.random.split(key)
        self.signs = jax.random.rademacher(key_signs, (count, d), jnp.float32)
        self.rows = jax.random.randint(key_rows, (count, w), 0, d)

    def __call__(self, x: jax.Array) -> jax.Array:
        take = functools.partial(jnp.take, axis=-1)
        return jax.vmap(take, in_axes=(1, 0), out_axes=1)(jnp.fft.fft(x * self.signs), self.rows)
