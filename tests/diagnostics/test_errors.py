"""The three errors of a kernel, from their definitions."""

import numpy as np
import pytest

from ntk_sketch.diagnostics import centred_error, relative_error, spectral_error


def test_errors_from_their_definition():
    rng = np.random.default_rng(1)
    n = 5
    exact, close = rng.standard_normal((2, n, n))

    def norm(kernel):
        return sum(kernel[i, j] ** 2 for i in range(n) for j in range(n)) ** 0.5

    def centred(kernel):
        mean = sum(kernel[i, j] for i in range(n) for j in range(n)) / n**2
        rows = [sum(kernel[i, j] for j in range(n)) / n for i in range(n)]
        columns = [sum(kernel[i, j] for i in range(n)) / n for j in range(n)]
        out = [[kernel[i, j] - rows[i] - columns[j] + mean for j in range(n)] for i in range(n)]
        return np.array(out)

    expected = norm(close - exact) / norm(exact)
    assert relative_error(close, exact) == pytest.approx(expected, rel=1e-12)
    expected = norm(centred(close) - centred(exact)) / norm(centred(exact))
    assert centred_error(close, exact) == pytest.approx(expected, rel=1e-12)
    assert centred_error(exact + 3, exact) < 1e-12


def definite(rng, n, rank):
    root = rng.standard_normal((n, rank))
    return root @ root.T / rank


@pytest.mark.parametrize("diag_reg", [1e-3, 0.3])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_spectral_error_from_its_definition(diag_reg, sign):
    rng = np.random.default_rng(2)
    n = 6
    exact, change = definite(rng, n, 8), definite(rng, n, 2)
    close = exact + sign * 0.1 * change
    penalty = diag_reg * sum(exact[i, i] for i in range(n)) / n
    shifted, shifted_close = exact + penalty * np.eye(n), close + penalty * np.eye(n)
    generalised = np.linalg.eigvals(np.linalg.inv(shifted) @ (close - exact))
    error = spectral_error(close, exact, diag_reg)
    assert error == pytest.approx(np.abs(generalised).max(), rel=1e-9)

    def between(epsilon):
        lower = shifted_close - (1 - epsilon) * shifted
        upper = (1 + epsilon) * shifted - shifted_close
        return min(np.linalg.eigvalsh(lower).min(), np.linalg.eigvalsh(upper).min()) >= 0

    assert between(1.001 * error)
    assert not between(0.999 * error)
    assert spectral_error(exact, exact, diag_reg) < 1e-12


def test_the_spectral_error_knows_no_units_and_of_nothing_is_below_1():
    rng = np.random.default_rng(3)
    exact, close = definite(rng, 7, 7), definite(rng, 7, 7)
    expected = spectral_error(close, exact)
    assert spectral_error(100 * close, 100 * exact) == pytest.approx(expected, rel=1e-9)
    largest = np.linalg.eigvalsh(exact).max()
    expected = largest / (largest + 1e-3 * np.trace(exact) / 7)
    assert spectral_error(0 * exact, exact) == pytest.approx(expected, rel=1e-9)
