import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.numerics._two_sum import Pair, two_sum

pytestmark = pytest.mark.default_flags

EPS = float(np.finfo(np.float32).eps)


def test_two_sum_is_exact_under_jit():
    rng = np.random.default_rng(0)
    a, b = (
        (rng.normal(size=10_000) * 10.0 ** rng.uniform(-12, 12, 10_000)).astype(np.float32)
        for _ in range(2)
    )
    total, error = jax.jit(two_sum)(jnp.asarray(a), jnp.asarray(b))
    # exponents differ by up to 80: exact in rationals, not in float64
    for ai, bi, ti, ei in zip(a, b, np.asarray(total), np.asarray(error), strict=True):
        assert Fraction(float(ai)) + Fraction(float(bi)) == Fraction(float(ti)) + Fraction(
            float(ei)
        )


def test_many_small_terms_beside_a_large_one():
    """Plain float32 loses every term (each is below half a unit in the last place of 1e8)."""
    small = np.float32(1.1)
    n = 20_000

    @jax.jit
    def run(start):
        return jax.lax.fori_loop(0, n, lambda _, pair: pair.add(jnp.full((2,), small)), start)

    pair = run(Pair(jnp.full((2,), 1e8, jnp.float32), jnp.zeros((2,), jnp.float32)))
    exact = 1e8 + n * float(small)
    # every addition rounds `low` once, to eps/2 of a number below an eps/2 of the total
    np.testing.assert_allclose(pair.to_host(), exact, rtol=n * EPS**2 / 4)
    plain = jax.jit(lambda s: jax.lax.fori_loop(0, n, lambda _, t: t + small, s))
    assert abs(float(plain(jnp.float32(1e8))) - exact) / exact > 1e-4


def test_alternating_cancellation():
    terms = np.tile(np.array([1e8, 1.0, -1e8, 3e-5], np.float32), 500)
    pair, add = Pair.zeros((), np.float32), jax.jit(Pair.add)
    for term in terms:
        pair = add(pair, jnp.asarray(term))
    scale = float(np.abs(terms).astype(float).sum())
    assert abs(float(pair.to_host()) - math.fsum(terms)) <= len(terms) * EPS**2 / 4 * scale


@pytest.mark.parametrize("block", ["square", "outer product", "sum of squares"])
def test_products_are_not_fused_into_the_sum(block):
    """A fused multiply-add of the increment and the total would use an unrounded product, and the
    pair would then be no better than float32 (1e-8 to 1e-7 here)."""

    def increment(z):
        if block == "square":
            return z * z
        if block == "outer product":
            return jnp.dot(z[:, None], z[None, :], precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(z * z)

    add = jax.jit(lambda pair, z: (pair.add(increment(z)), increment(z)))
    rng = np.random.default_rng(0)
    n, pair, exact, scale = 300, None, 0.0, 0.0
    for _ in range(n):
        z = jnp.asarray((rng.normal(size=8) * 10.0 ** rng.uniform(-4, 4)).astype(np.float32))
        if pair is None:
            pair = Pair.zeros(increment(z).shape, np.float32)
        pair, added = add(pair, z)
        exact = exact + np.asarray(added, np.float64)
        scale = scale + np.abs(np.asarray(added, np.float64))
    assert pair is not None
    assert np.all(np.abs(pair.to_host() - exact) <= n * EPS**2 / 4 * scale)


def test_merge_is_associative_to_rounding():
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(3):
        high = (rng.normal(size=1000) * 10.0 ** rng.uniform(-3, 3, 1000)).astype(np.float32)
        low = (high * EPS / 4 * rng.uniform(-1, 1, 1000)).astype(np.float32)
        pairs.append(Pair(jnp.asarray(high), jnp.asarray(low)))
    a, b, c = pairs
    merge = jax.jit(Pair.merge)
    left, right = merge(merge(a, b), c).to_host(), merge(a, merge(b, c)).to_host()
    scale = sum(np.abs(pair.to_host()) for pair in pairs)
    assert np.all(np.abs(left - right) <= 4 * EPS**2 * scale)
    np.testing.assert_array_equal(merge(a, b).to_host(), merge(b, a).to_host())
