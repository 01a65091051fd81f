"""Chebyshev series: coefficients against NumPy's, bounds that hold, random degrees."""

import numpy as np
import pytest

from ntk_sketch.spectral._random_degree import RandomDegree
from ntk_sketch.spectral._series import log_series, series_of

T = np.linspace(-1, 1, 2001)


def at(series, coefficients, x):
    return np.polynomial.chebyshev.chebval((x - series.centre) / series.radius, coefficients)


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (1e-3, 1.0), (0.5, 400.0), (2.0, 2.000002)])
def test_log(low, high):
    """Value and derivative to rounding, which the derivative's is of 1 / low."""
    series = log_series(low, high)
    x = series.centre + series.radius * T
    scale = max(abs(np.log(low)), abs(np.log(high)))
    np.testing.assert_allclose(at(series, series.values, x), np.log(x), atol=1e-14 * (1 + scale))
    np.testing.assert_allclose(at(series, series.slopes, x), 1 / x, atol=1e-12 / low)


@pytest.mark.parametrize("condition", [4.0, 1e3])
def test_log_from_its_values(condition):
    """The closed form and the transform are the same series."""
    closed, found = log_series(1.0, condition), series_of(np.log, 1.0, condition)
    both = min(len(closed.values), len(found.values))
    np.testing.assert_allclose(found.values[:both], closed.values[:both], atol=1e-12)
    np.testing.assert_allclose(found.slopes[: both // 2], closed.slopes[: both // 2], atol=1e-8)
    q = 1 / closed.rate
    assert q == pytest.approx((condition**0.5 - 1) / (condition**0.5 + 1))


@pytest.mark.parametrize(
    "f", [np.exp, np.sin, lambda s: s / (s + 0.1), np.ones_like, lambda s: s**3 - s]
)
def test_functions(f):
    """Values to rounding, derivatives as a difference quotient has them."""
    series = series_of(f, 0.0, 3.0)
    x, step = np.linspace(0.01, 2.99, 201), 1e-5
    np.testing.assert_allclose(at(series, series.values, x), f(x), atol=1e-12 * series.size)
    quotient = (f(x + step) - f(x - step)) / (2 * step)
    np.testing.assert_allclose(at(series, series.slopes, x), quotient, atol=2e-7 * series.size)
    assert len(series_of(lambda s: s**3 - s, 0.0, 3.0).values) == 4


@pytest.mark.parametrize("condition", [1.5, 50.0, 1e4])
def test_bounds_hold(condition):
    """The bound is above the error, below the closed form, and not far from the error where the
    terms have one sign, at the left end."""
    series = log_series(1.0, condition)
    x, q = series.centre + series.radius * T, 1 / series.rate
    for degree in (1, 3, 10, 40):
        error = np.abs(at(series, series.values[: degree + 1], x) - np.log(x)).max()
        bound = series.error(degree)
        assert error <= bound + 1e-13
        assert bound <= 2 * q ** (degree + 1) / ((degree + 1) * (1 - q)) + 1e-13
        assert error == pytest.approx(bound, rel=1e-3, abs=1e-13)


def test_degree():
    """The least that meets the target, at least 1."""
    series = log_series(1.0, 100.0)
    for target in (1e-1, 1e-4, 1e-9):
        degree = series.degree(target)
        assert series.error(degree) <= target < series.error(degree - 1)
    assert series.degree(10.0) == 1
    with pytest.raises(ValueError, match=r"polynomial of degree .* at most 10,000 is tried"):
        log_series(1e-12, 1.0).degree(1e-6)


def test_refused():
    with pytest.raises(ValueError, match="f is NaN or infinite at some points of"):
        series_of(lambda s: np.where(s > 0, s, np.nan), 0.0, 1.0)
    with pytest.raises(ValueError, match="a kink or a jump"):
        series_of(np.abs, -1.0, 2.0)
    with pytest.raises(ValueError, match="f returned shape"):
        series_of(np.sum, 0.0, 1.0)


# ------------------------------------------------------------------ random degrees


@pytest.mark.parametrize("mean", [1, 5, 30])
@pytest.mark.parametrize("condition", [20.0, 200.0])
def test_distribution(mean, condition):
    """Survival falls from 1, its sum over j >= 1 is the mean, and it is the theorem's."""
    series = log_series(1.0, condition)
    drawn = RandomDegree.of(series, mean)
    survival = drawn.survival
    assert survival[0] == 1
    assert np.all(np.diff(survival) <= 0)
    assert survival[1:].sum() == pytest.approx(mean, rel=1e-6)
    rho = series.rate
    k = min(mean, int(rho / (rho - 1)))
    probability = -np.diff(survival)
    assert probability[mean - k] == pytest.approx(1 - k * (rho - 1) / rho, abs=1e-12)
    i = np.arange(mean - k + 1, min(mean + 20, len(probability)))
    expected = k * (rho - 1) ** 2 * rho ** (mean - i - 1.0 - k)
    np.testing.assert_allclose(probability[i], expected, rtol=1e-8)


def test_degrees_drawn():
    """As often as the survival says; and the series is right on average."""
    series = log_series(1.0, 30.0)
    drawn = RandomDegree.of(series, 6)
    n = 20_000
    degrees = drawn.degrees(np.random.default_rng(0).random(n))
    assert degrees.mean() == pytest.approx(6, abs=4 * degrees.std() / n**0.5)
    for j in range(1, 15):
        p = drawn.survival[j]
        assert abs(np.mean(degrees >= j) - p) <= 4 * np.sqrt(p * (1 - p) / n)
    weights, x = drawn.weights(series.values), 1.0
    values = [at(series, weights[: d + 1], x) for d in degrees[:4000]]
    assert abs(np.mean(values) - np.log(x)) < 4 * np.std(values) / 4000**0.5
    assert np.std(values) > 0
