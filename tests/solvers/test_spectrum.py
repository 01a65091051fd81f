"""Directions that are dropped from a spectrum, and the residual reported then."""

import numpy as np

from ntk_sketch.solvers._dual_equations import DualEquations
from ntk_sketch.solvers._dual_spectrum import DualSpectrum
from ntk_sketch.solvers._spectrum import eigh


def test_the_floor_is_twice_the_most_negative_eigenvalue():
    """A matrix that was positive semi-definite before rounding was moved by as much (Weyl)."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    values, _, floor = eigh(rotation @ np.diag([-0.1, 0.5, 1.0, 2.0]) @ rotation.T)
    np.testing.assert_allclose(floor, 0.2, rtol=1e-12)
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0, 2.0], atol=1e-12)


def test_targets_along_dropped_directions_stay_residuals():
    """Six examples with features of rank 3, no regulariser: the least-squares residual."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(6, 3)) @ rng.normal(size=(3, 10))
    y = rng.normal(size=(6, 1))
    spectrum = DualSpectrum(DualEquations.of(z, y))
    assert spectrum.rank(0.0) == 3
    coefficients, diagonal = spectrum.residual_system(0.0)
    expected = y - z @ np.linalg.lstsq(z, y, rcond=1e-10)[0]
    residuals = spectrum.units.of(expected)
    np.testing.assert_allclose(spectrum.vectors @ coefficients, residuals, atol=1e-9)
    np.testing.assert_allclose(np.sort(diagonal), [0, 0, 0, 1, 1, 1])


def test_what_is_rounding_of_the_features_is_no_direction_of_its_own():
    """An example that others combine to, but for two units in the last place of float32."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(8, 200))
    z[7] = (z[0] - z[1]) * (1 + 2e-7 * rng.choice([-1, 1], 200))
    y = np.arange(8.0)[:, None]
    assert DualSpectrum(DualEquations.of(z.astype(np.float32), y)).rank(0.0) == 7
    assert DualSpectrum(DualEquations.of(z, y)).rank(0.0) == 8
