"""Functions of eigenvalues against their integrals, at both ends of time and rate."""

import numpy as np
import pytest

from ntk_sketch.predict._flow import Flow

VALUES = np.array([0.0, 1e-14, 1e-6, 0.3, 2.0, 5e3])
ALL = np.ones(len(VALUES), bool)
TIMES = [0.0, 1e-13, 1e-4, 0.7, 40.0, 1e9]


def integral(rate, tau):
    """∫₀^τ e^{-rate u} du, by the exponential series where its terms are small."""
    if rate * tau < 1e-3:
        return tau * sum((-rate * tau) ** j / np.prod(np.arange(1.0, j + 2)) for j in range(6))
    return (1 - np.exp(-rate * tau)) / rate


@pytest.mark.parametrize("penalty", [1e-9, 0.1])
@pytest.mark.parametrize("tau", TIMES)
def test_finite_times(tau, penalty):
    flow = Flow(VALUES, ALL, penalty)
    expected = [integral(rate, tau) for rate in VALUES + penalty]
    np.testing.assert_allclose(flow.trained(tau), expected, rtol=1e-12)
    np.testing.assert_allclose(flow.decayed(tau), np.exp(-(VALUES + penalty) * tau), rtol=1e-12)
    # 1 - s φ cancels at late times: an absolute error of its terms
    np.testing.assert_allclose(flow.remaining(tau), 1 - VALUES * expected, rtol=1e-9, atol=1e-15)


def test_late_variances_are_not_differences():
    """λ / (s + λ) to all digits, where 1 - s / (s + λ) has none left."""
    flow = Flow(np.array([1e6]), np.array([True]), 1e-12)
    np.testing.assert_allclose(flow.remaining(np.inf), 1e-12 / (1e6 + 1e-12), rtol=1e-14)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_infinity(penalty):
    """Directions that are dropped keep their prior; a rate of 0 stays where it was."""
    kept = VALUES + penalty > 1e-10
    flow = Flow(VALUES, kept, penalty)
    inverse = np.where(kept, 1 / np.where(kept, VALUES + penalty, 1), 0)
    np.testing.assert_allclose(flow.trained(np.inf), inverse, rtol=1e-14)
    np.testing.assert_allclose(flow.remaining(np.inf), 1 - VALUES * inverse, atol=1e-15)
    still = VALUES + penalty == 0
    np.testing.assert_array_equal(flow.decayed(np.inf), np.where(still, 1.0, 0.0))
