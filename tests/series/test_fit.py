"""Series fitted to values: coreset regression, and recovery from few values."""

import math

import jax
import numpy as np
import pytest
from closed_forms import arc_cosine_coefficients
from scipy import stats

from ntk_sketch.series import (
    fit_series,
    gegenbauer_coefficients,
    gegenbauer_polynomials,
    recover_zonal,
)
from ntk_sketch.series._recovery import _leverage_sample
from ntk_sketch.sketches import greedy_coreset


def relu_kernel(rho):
    angle = np.arccos(np.clip(rho, -1, 1))
    return (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi


def unit_vectors(n, d, seed):
    x = np.random.default_rng(seed).standard_normal((n, d)) + 0.5
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_polynomial_is_found_again():
    rho = np.linspace(-0.9, 0.9, 50)
    truth = [0.3, 0.0, 1.2, 0.5]
    fit = fit_series(rho, np.polynomial.polynomial.polyval(rho, truth), 3)
    np.testing.assert_allclose(fit.coefficients, truth, atol=1e-12)
    assert fit.residual < 1e-14


def test_small_cosines_do_not_lose_high_degrees():
    rho = np.linspace(-1e-3, 1e-3, 50)
    fit = fit_series(rho, rho**4, 4)
    np.testing.assert_allclose(fit.coefficients[4], 1, rtol=1e-6)


def test_the_fit_is_optimal():
    """The conditions of Karush, Kuhn and Tucker, and less error than Taylor's series."""
    rng = np.random.default_rng(0)
    rho, w = rng.uniform(-1, 1, (2, 8, 20))
    w = w**2
    kappa = np.cos(2 * rho)  # has negative coefficients
    b, residual = fit_series(rho, kappa, 5, w)
    columns = rho.ravel()[:, None] ** np.arange(6)
    difference = columns @ b - kappa.ravel()
    gradient = columns.T @ (w.ravel() * difference)
    assert (b >= 0).all()
    assert np.abs(gradient[b > 0]).max() < 1e-12
    assert gradient[b == 0].min() > -1e-12
    assert 0 < np.count_nonzero(b) < 6
    expected = np.sqrt(np.sum(w.ravel() * difference**2) / np.sum(w * kappa**2))
    assert residual == pytest.approx(expected, rel=1e-12)


def test_coreset_regression_beats_the_taylor_series():
    """On all pairs of the data, from the pairs of a tenth of the points."""
    x = unit_vectors(300, 5, 1)
    points = greedy_coreset(x, 30)
    centres = x[points.indices]
    cosines = centres @ centres.T
    fit = fit_series(cosines, relu_kernel(cosines), 6, np.outer(points.weights, points.weights))
    rho = x @ x.T
    exact = relu_kernel(rho)

    def error(coefficients):
        series = np.polynomial.polynomial.polyval(rho, coefficients)
        return np.linalg.norm(series - exact) / np.linalg.norm(exact)

    best = fit_series(rho, exact, 6)
    assert best.residual == pytest.approx(error(best.coefficients), rel=1e-9)
    assert best.residual <= error(fit.coefficients)
    assert error(fit.coefficients) < 0.5 * error(arc_cosine_coefficients(1, 6))


def test_greedy_centres():
    x = unit_vectors(60, 3, 2)
    found = greedy_coreset(x, 7)
    distances = np.linalg.norm(x[:, None] - x[found.indices], axis=2)
    nearest = distances.argmin(axis=1)
    np.testing.assert_array_equal(found.weights, np.bincount(nearest, minlength=7))
    assert found.radius == pytest.approx(distances.min(axis=1).max())
    for k in range(1, 7):  # each is the farthest from those before it
        before = distances[:, :k].min(axis=1)
        assert before[found.indices[k]] == pytest.approx(before.max())
    # With k + 1 points farther apart than R, no k centres do better than R / 2.
    apart = distances[found.indices] + 9 * np.eye(7)
    assert apart.min() >= found.radius


def test_duplicates_are_one_centre():
    found = greedy_coreset(np.repeat([[0.0, 1.0], [1.0, 0.0]], [3, 2], axis=0), 4)
    np.testing.assert_array_equal(found.indices, [0, 3])
    np.testing.assert_array_equal(found.weights, [3, 2])
    assert found.radius == 0


def test_fit_refusals():
    rho = np.zeros(3)
    for arguments, error, message in (
        ((rho, np.zeros(2), 2), ValueError, "must have one shape"),
        ((rho + 2, rho, 2), ValueError, "from -1 to 1"),
        ((rho * np.nan, rho, 2), ValueError, "from -1 to 1"),
        ((rho, rho * np.nan, 2), ValueError, "values must be finite"),
        ((rho, rho, 2, rho - 1), ValueError, "weights finite and 0 or more"),
        ((rho, rho * 1j, 2), TypeError, "values must be real"),
        ((rho, rho, -1), ValueError, "degree must be an integer from 0"),
    ):
        with pytest.raises(error, match=message):
            fit_series(*arguments)
    with pytest.raises(ValueError, match="finite matrix with rows"):
        greedy_coreset(np.zeros(3), 2)
    with pytest.raises(ValueError, match="size must be a positive integer, got 0"):
        greedy_coreset(np.zeros((3, 2)), 0)
    with pytest.raises(TypeError, match=r"size must be a positive integer, got 2\.5"):
        greedy_coreset(np.zeros((3, 2)), 2.5)  # pyright: ignore[reportArgumentType]


DIMENSIONS = [2, 3, 30, 10_000]


def zonal(t):
    return np.exp(t) / (1.5 - t)


def norm(f, d, draws=2000):
    """`√∫ f² dμ` by the midpoint rule on quantiles of μ."""
    law = stats.beta((d - 1) / 2, (d - 1) / 2)
    t = 2 * law.ppf((np.arange(draws) + 0.5) / draws) - 1
    return np.sqrt(np.mean(f(t) ** 2))


@pytest.mark.parametrize("d", DIMENSIONS)
def test_recovery_of_a_polynomial_is_exact(d):
    truth = np.array([0.5, 1.0, 0.0, 2.0])
    f = lambda t: gegenbauer_polynomials(t, d, 3) @ truth  # noqa: E731
    found = recover_zonal(f, d, 3, key=jax.random.key(0))
    assert len(found.cosines) == 39
    rounding = gegenbauer_coefficients(f, d, 3).error
    assert np.all(np.abs(found.values - truth) <= 10 * rounding + 1e-13)
    assert found.residual < 1e-14 * found.norm + 1e-14


@pytest.mark.parametrize("d", DIMENSIONS)
def test_recovery_is_near_the_best(d):
    """The error over keys against that of the best polynomial, and the estimates of it."""
    degree, keys = 3, 40
    best = gegenbauer_coefficients(zonal, d, degree).values
    least = norm(lambda t: gegenbauer_polynomials(t, d, degree) @ best - zonal(t), d)
    found = [recover_zonal(zonal, d, degree, key=jax.random.key(k)) for k in range(keys)]

    def error(values):
        return norm(lambda t: gegenbauer_polynomials(t, d, degree) @ values - zonal(t), d)

    squares = np.array([error(one.values) ** 2 for one in found])
    # With n = 39 samples for q + 1 = 4: about 1 + (q + 1) / n in the squares.
    assert 1 - 1e-3 < squares.mean() / least**2 < 1.4
    for estimate, truth in (("residual", squares.mean()), ("norm", norm(zonal, d) ** 2)):
        draws = np.array([getattr(one, estimate) for one in found]) ** 2
        standard_error = draws.std(ddof=1) / np.sqrt(keys)
        # The fitted residual is of the best polynomial, whose square is (q + 1) / n smaller.
        assert abs(draws.mean() - truth) < 4 * standard_error + 0.2 * truth * (
            estimate == "residual"
        )


@pytest.mark.parametrize("d", DIMENSIONS)
def test_samples_and_weights(d):
    """Weights times `p_l p_m` have the expectation 1[l = m]: the density is exactly known."""
    degree, n = 5, 20_000
    t, inverse_density = _leverage_sample(d, degree, n, jax.random.key(1))
    scaled = gegenbauer_polynomials(t, d, degree)
    scaled = scaled / norm_of_polynomials(d, degree)
    products = inverse_density[:, None, None] * scaled[:, :, None] * scaled[:, None, :]
    error = np.abs(products.mean(0) - np.eye(degree + 1))
    assert np.all(error < 4 * products.std(0, ddof=1) / np.sqrt(n))
    # Near leverage sampling: no sample counts for much more than its share q + 1.
    leverage = inverse_density * np.sum(scaled**2, axis=1)
    assert leverage.max() < 3 * (degree + 1)


def norm_of_polynomials(d, degree):
    """`α_l^{-1/2}`, harmonics counted as polynomials of degree l less those of degree l - 2."""
    lower = [0, 0, *(math.comb(d + l - 1, d - 1) for l in range(degree - 1))]
    counts = [math.comb(d + l - 1, d - 1) - lower[l] for l in range(degree + 1)]
    return np.array([1 / math.sqrt(count) for count in counts])


def test_high_degree_in_high_dimension():
    """Cosines far out, where μ has a mass of 1e-60, are drawn on both sides."""
    t, inverse_density = _leverage_sample(10_000, 100, 4000, jax.random.key(2))
    assert np.isfinite(t).all()
    assert (inverse_density > 0).all()
    assert t.max() > 0.1
    assert t.min() < -0.1
    # Symmetric in law.
    assert stats.ks_2samp(t, -t).pvalue > 2 * stats.norm.sf(4)


def test_keys():
    first, again, other = (
        recover_zonal(zonal, 5, 2, key=jax.random.key(k)).values for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-12)
    old = recover_zonal(zonal, 5, 2, key=jax.random.PRNGKey(0)).values
    np.testing.assert_array_equal(first, old)


def test_recovery_refusals():
    key = jax.random.key(0)
    for arguments, options, error, message in (
        ((zonal, 1, 2), {}, ValueError, "dimension must be an integer of 2 or more"),
        ((zonal, 3, -1), {}, ValueError, "degree must be an integer from 0"),
        (
            (zonal, 3, 4),
            {"samples": 9},
            ValueError,
            r"samples must be an integer of 10 or more, got 9",
        ),
        ((np.log, 3, 4), {}, ValueError, "f is nan at -"),
        ((lambda t: 1j * t, 3, 4), {}, TypeError, "must be real"),
    ):
        with pytest.raises(error, match=message):
            recover_zonal(*arguments, key=key, **options)
