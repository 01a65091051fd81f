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
