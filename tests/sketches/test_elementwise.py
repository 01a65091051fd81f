"""`elementwise` against float64 matrices made entry by entry."""

import itertools
import math
from functools import partial

import jax
import numpy as np
import pytest
import scipy.sparse
from jax import numpy as jnp

from ntk_sketch.sketches import elementwise
from ntk_sketch.sketches._polynomial_fit import fit_polynomial
from ntk_sketch.sketches._tensor_sketch import tensor_sketch_variance

KEY = jax.random.key(0)


def rows(n, d, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype) / d**0.5


def entries(f, a, b):
    return np.array([[f(sum(x * y for x, y in zip(u, v, strict=True))) for v in b] for u in a])


def relative(found, exact):
    close = np.asarray(found.left, np.float64) @ np.asarray(found.right, np.float64).T
    return np.linalg.norm(close - exact) / np.linalg.norm(exact)


def tail(t):
    return 1 / (2 - t)


@pytest.mark.usefixtures("float64")
class TestWithoutNoise:
    """A sketch wide enough for all monomials: the polynomial alone."""

    def test_polynomials_are_exact(self):
        a, b = 3 * rows(9, 3), 5 * rows(7, 3, seed=1)
        true = np.array([0.5, -2.0, 0.0, 1.5])
        found = elementwise(np.polynomial.Polynomial(true), a, b, degree=3, width=10, key=KEY)
        assert found.left.shape == (9, 1 + 3 + 6 + 10)
        np.testing.assert_allclose(
            found.coefficients, true * found.radius ** np.arange(4), atol=1e-9
        )
        radius = max(map(np.linalg.norm, a)) * max(map(np.linalg.norm, b))
        assert found.radius == pytest.approx(radius)
        assert relative(found, entries(np.polynomial.Polynomial(true), a, b)) < 1e-12
        assert found.residual == pytest.approx(found.expected_error)
        assert found.expected_error < 1e-12

    def test_the_fit_is_that_of_least_squares(self):
        """All rows as coreset, with scales as weights: a weighted polynomial regression."""
        a, b = rows(12, 2), rows(10, 2, seed=1)
        s_a, s_b = np.random.default_rng(2).random((2, 12))
        s_b = s_b[:10]
        options = {"degree": 4, "width": 5, "scales": (s_a, s_b), "coreset": 12}
        found = elementwise(np.exp, a, b, key=KEY, **options)
        t = a @ b.T
        w = np.outer(s_a, s_b)
        expected = np.polynomial.polynomial.polyfit(t.ravel(), np.exp(t).ravel(), 4, w=w.ravel())
        powers = found.radius ** np.arange(5)
        np.testing.assert_allclose(found.coefficients, expected * powers, rtol=1e-8)
        exact = w * np.exp(t)
        assert relative(found, exact) == pytest.approx(found.residual, rel=1e-8)

    @pytest.mark.slow
    def test_high_degrees(self):
        """Powers far from 1 neither overflow nor spoil the fit."""
        for size in (1e-8, 1e8):
            a = size * rows(20, 1)
            f = partial(lambda size, t: np.cos(t / size**2), size)
            found = elementwise(f, a, a, degree=24, width=1, key=KEY)
            assert np.isfinite(found.coefficients).all()
            assert relative(found, f(a @ a.T)) < 1e-11

    @pytest.mark.parametrize("f", [np.zeros_like, np.ones_like])
    def test_constants(self, f):
        a = rows(4, 3)
        for x in (a, np.zeros_like(a)):
            found = elementwise(f, x, a, degree=0, width=2, key=KEY)
            assert found.left.shape == (4, 1)
            np.testing.assert_allclose(found.left @ found.right.T, f(np.empty((4, 4))), atol=1e-14)
            assert found.expected_error < 1e-12


def objective(f, a, b, w, exact, m, coefficients):
    """The expected squared error from its definition, pair by pair."""
    total, size = 0.0, 0.0
    for (i, x), (k, y) in itertools.product(enumerate(a), enumerate(b)):
        t = x @ y
        pair = [np.array([value]) for value in (t, (x @ x) * (y @ y), x**2 @ y**2)]
        variance = [
            0.0 if exact[j] else tensor_sketch_variance(len(x), m, j, *pair).item()
            for j in range(len(coefficients))
        ]
        error = f(t) - sum(c * t**j for j, c in enumerate(coefficients))
        noise = sum(
            c * e * t ** abs(j - l) * variance[min(j, l)]
            for (j, c), (l, e) in itertools.product(enumerate(coefficients), repeat=2)
        )
        total += w[i, k] * (error**2 + noise)
        size += w[i, k] * f(t) ** 2
    return total / size


@pytest.mark.parametrize("m", [3, 20])
def test_coefficients_of_least_expected_error(m):
    a, b = 2 * rows(6, 5), rows(7, 5, seed=1)
    s_a, s_b = np.random.default_rng(2).random((2, 7))
    s_a = s_a[:6]
    exact = [math.comb(5 + j - 1, j) <= m for j in range(4)]
    fit = fit_polynomial(tail, a, b, s_a, s_b, m, exact, 6)
    c = fit.coefficients / math.prod(fit.radii) ** np.arange(4)
    w = np.outer(s_a, s_b) ** 2
    least = objective(tail, a, b, w, exact, m, c)
    assert fit.expected_error == pytest.approx(least**0.5)
    for j, step in itertools.product(range(4), (-1e-3, 1e-3)):
        near = c.copy()
        near[j] += step
        assert objective(tail, a, b, w, exact, m, near) > least
    assert fit.residual < fit.expected_error


@pytest.mark.parametrize("size", [2, 20])
def test_blocks_change_nothing(monkeypatch, size):
    a, b = rows(8, 6), rows(11, 6, seed=1)
    arguments = (np.exp, a, b, np.ones(8), np.ones(11), 4, [True, False, False], 5)
    whole = fit_polynomial(*arguments)
    monkeypatch.setattr("ntk_sketch.sketches._polynomial_fit._BLOCK", size)
    np.testing.assert_allclose(fit_polynomial(*arguments).coefficients, whole.coefficients)


def test_a_coreset_does_nearly_as_well_as_all_rows():
    a, b = rows(300, 6), rows(200, 6, seed=1)
    options = {"degree": 5, "width": 64, "key": KEY}
    exact = np.tanh(2 * a @ b.T)
    errors = [
        elementwise(lambda t: np.tanh(2 * t), a, b, coreset=size, **options).expected_error
        for size in (32, 300)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.15)
    found = elementwise(lambda t: np.tanh(2 * t), a, b, coreset=32, **options)
    assert relative(found, exact) < 1.3 * errors[1]


class TestNoise:
    def squared_errors(self, f, a, b, keys, **options):
        exact = entries(f, a, b)
        found = [
            elementwise(f, a, b, coreset=len(a), key=key, **options)
            for key in jax.random.split(KEY, keys)
        ]
        return np.array([relative(each, exact) ** 2 for each in found]), found[0]

    @pytest.mark.parametrize(
        "f",
        [
            pytest.param(tail, marks=pytest.mark.slow),
            pytest.param(math.sin, marks=pytest.mark.slow),
            lambda t: 1 + t**2 - t**3,
        ],
    )
    def test_the_error_is_the_expected_one(self, f):
        """Over keys, within 4 standard errors; degree 1 is exact, 2 and 3 are not."""
        vectorised = np.vectorize(f)
        squares, found = self.squared_errors(
            vectorised, rows(8, 12), rows(9, 12, seed=1), 150, degree=3, width=24
        )
        error = squares.std(ddof=1) / len(squares) ** 0.5
        assert abs(squares.mean() - found.expected_error**2) < 4 * error
        assert found.left.shape == (8, 1 + 12 + 24 + 24)

    def test_rate(self):
        """A polynomial has no other error than that of the sketch, which falls like m^(-1/2)."""
        widths, errors = [64, 256, 1024], []
        a = rows(8, 50)
        for width in widths:
            squares, found = self.squared_errors(np.square, a, a, 40, degree=2, width=width)
            assert found.expected_error**2 == pytest.approx(squares.mean(), rel=0.3)
            errors.append(squares.mean() ** 0.5)
        slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
        assert -0.6 < slope < -0.4


def test_a_gaussian_kernel():
    x = 2 * rows(60, 4, dtype=np.float32)
    exact = np.array([[math.exp(-0.25 * sum((u - v) ** 2)) for v in x] for u in x])
    scale = np.exp(-0.25 * (x**2).sum(1))
    errors = []
    for degree in (1, 2, 4, 8):
        found = elementwise(
            lambda t: jnp.exp(0.5 * t),
            x,
            x,
            degree=degree,
            width=128,
            scales=(scale, scale),
            key=KEY,
        )
        assert found.left.dtype == found.right.dtype == jnp.float32
        errors.append(relative(found, exact))
        assert errors[-1] < 1.5 * found.expected_error + 1e-6
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 0.02


class TestErrors:
    def call(self, f=np.exp, a=None, b=None, **options):
        a, b = rows(4, 3) if a is None else a, rows(5, 3) if b is None else b
        return elementwise(f, a, b, **{"degree": 2, "width": 4, "key": KEY} | options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"degree": -1}, "degree must be an integer of 0 or more, got -1"),
            ({"width": 0}, "width must be a positive integer, got 0"),
            ({"coreset": 0}, "coreset must be a positive integer, got 0"),
            ({"a": rows(4, 2)}, r"\(4, 2\) and b \(5, 3\) need rows of one length"),
            ({"a": rows(4, 3)[0]}, r"a must be a matrix.*\(3,\)"),
            ({"b": rows(4, 3)[:0]}, r"b must be a matrix.*\(0, 3\)"),
            ({"b": rows(4, 3) * [1, np.nan, 1]}, "b has 4 entries that are NaN or infinite"),
            ({"scales": (np.ones(4), np.ones(4))}, r"a pair of shapes \(4,\) and \(5,\)"),
            ({"scales": (np.ones(4),)}, r"got \(4,\)"),
            ({"scales": (np.ones(4), np.full(5, np.inf))}, "scales has 5 entries"),
            ({"f": np.sum}, "f must act entry by entry"),
        ],
    )
    def test_values(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.call(**options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"degree": 2.0}, "degree must be an integer"),
            ({"degree": True}, "degree must be an integer"),
            ({"width": 4.0}, "width must be a positive integer"),
            ({"a": rows(4, 3) + 0j}, "a has dtype complex"),
            ({"b": np.ones((4, 3), int)}, "b has dtype int"),
            ({"a": scipy.sparse.csr_array(rows(4, 3))}, r"a is sparse.*toarray"),
            ({"f": lambda t: t + 1j}, "f must be real"),
        ],
    )
    def test_types(self, options, message):
        with pytest.raises(TypeError, match=message):
            self.call(**options)

    def test_a_function_that_is_not_finite_where_it_is_needed(self):
        """It says where; outside of the inner products f may do what it likes."""
        a, b = np.array([[1.0], [2.0]]), np.array([[0.25], [3.0]])
        with pytest.raises(ValueError, match=r"f is -?inf at t = 6, .*range is \[0.25, 6\]"):
            self.call(lambda t: np.where(t == 6, np.inf, t), a, b)
        assert self.call(np.log, a, b, degree=6, width=1).residual < 1e-6
        with pytest.raises(ValueError, match=r"f is nan at t = -0.25"):
            self.call(np.log, a, np.array([[0.25], [-0.25]]))
