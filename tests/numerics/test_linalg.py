"""Decompositions by XLA on a device are those of LAPACK, and the user's settings stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ntk_sketch.numerics import _linalg
from ntk_sketch.numerics._precision import float64, on_device
from ntk_sketch.numerics._two_sum import Pair

M = 60
TOLERANCE = 1e-12
rng = np.random.default_rng(0)
#: Positive definite, eigenvalues from 1e-6 to 1.
ROTATION = np.linalg.qr(rng.normal(size=(M, M)))[0]
VALUES = np.geomspace(1e-6, 1.0, M)
MATRIX = (ROTATION * VALUES) @ ROTATION.T
MATRIX = (MATRIX + MATRIX.T) / 2
COLUMNS = rng.normal(size=(M, 3))


def on_this_device(array):
    with float64():
        return jax.device_put(array)


@pytest.fixture(params=["host", "device"])
def placed(request):
    """Puts a matrix where it is decomposed by LAPACK, or by XLA."""
    before = jax.config.jax_enable_x64
    yield {"host": np.array, "device": on_this_device}[request.param]
    assert jax.config.jax_enable_x64 == before
    assert jnp.zeros(1).dtype == np.float32


@pytest.fixture
def cpu_decomposes(monkeypatch):
    """As if this CPU were a GPU."""
    monkeypatch.setattr(_linalg, "PLATFORMS", ("cpu",))


def test_eigenvalues_and_eigenvectors(placed):
    matrix = placed(MATRIX)
    values, vectors = _linalg.eigh(matrix)
    assert type(values) is np.ndarray
    assert isinstance(vectors, np.ndarray) == isinstance(matrix, np.ndarray)
    assert vectors.dtype == np.float64
    np.testing.assert_allclose(values, scipy.linalg.eigvalsh(MATRIX), atol=TOLERANCE)
    v = np.asarray(vectors)
    np.testing.assert_allclose((v * values) @ v.T, MATRIX, atol=TOLERANCE)
    np.testing.assert_allclose(v.T @ v, np.eye(M), atol=TOLERANCE)
    np.testing.assert_array_equal(np.asarray(matrix), MATRIX)  # not overwritten
    np.testing.assert_allclose(_linalg.eigvalsh(matrix), values, atol=TOLERANCE)


def test_factors(placed):
    for shift in (0.0, 0.5):
        lower = _linalg.factor(placed(MATRIX), shift)
        shifted = MATRIX + shift * np.eye(M)
        condition = np.linalg.cond(shifted)
        np.testing.assert_allclose(lower, np.linalg.cholesky(shifted), atol=TOLERANCE)
        expected = scipy.linalg.solve_triangular(np.linalg.cholesky(shifted), COLUMNS, lower=True)
        atol = TOLERANCE * np.sqrt(condition) * np.abs(expected).max()
        np.testing.assert_allclose(_linalg.lower_solved(lower, COLUMNS), expected, atol=atol)
        for columns in (COLUMNS, COLUMNS[:, 0]):
            expected = np.linalg.solve(shifted, columns)
            atol = TOLERANCE * condition * np.abs(expected).max()
            np.testing.assert_allclose(_linalg.factor_solved(lower, columns), expected, atol=atol)
        trace = _linalg.inverse_norm(lower)  # the last: in the memory of the factor
        assert trace == pytest.approx(np.trace(np.linalg.inv(shifted)), rel=1e-9)


def test_what_has_no_factor_and_no_eigenvectors_raises(placed):
    with pytest.raises(np.linalg.LinAlgError):
        _linalg.factor(placed(MATRIX), -0.5)
    nothing = np.full((3, 3), np.nan)
    for decompose in (_linalg.eigh, _linalg.eigvalsh):
        with pytest.raises(np.linalg.LinAlgError):
            decompose(placed(nothing))


def test_products_come_to_the_host(placed):
    matrix = placed(MATRIX)
    rows = placed(COLUMNS.T)
    strips = map(placed, (COLUMNS.T[:1], COLUMNS.T[1:]))
    for found, expected in [
        (_linalg.product(matrix, COLUMNS), MATRIX @ COLUMNS),
        (_linalg.product(matrix, COLUMNS[:, 0]), MATRIX @ COLUMNS[:, 0]),
        (_linalg.transposed_product(placed(COLUMNS), MATRIX), COLUMNS.T @ MATRIX),
        (_linalg.quadratic_forms(rows, matrix), np.diagonal(COLUMNS.T @ MATRIX @ COLUMNS)),
        (_linalg.diagonal(matrix), np.diagonal(MATRIX)),
        (_linalg.rows(matrix, np.array([3, 0])), MATRIX[[3, 0]]),
        (_linalg.stacked(strips, 3), COLUMNS.T),
    ]:
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert _linalg.is_finite(matrix)
    assert not _linalg.is_finite(placed(np.array([1.0, np.inf])))


def test_quadratic_forms_of_many_rows(monkeypatch):
    """In parts that do not divide the rows, of float32 rows in float64."""
    monkeypatch.setattr(_linalg, "_ROWS", 7)
    rows = rng.normal(size=(30, M)).astype(np.float32)
    found = _linalg.quadratic_forms(jax.device_put(rows), on_this_device(MATRIX))
    accurate = rows.astype(np.float64)
    np.testing.assert_allclose(found, np.sum((accurate @ MATRIX) * accurate, axis=1), rtol=1e-12)


def test_arrays_of_a_cpu_become_those_of_numpy():
    array = jnp.ones((2, 2))
    for placed in (_linalg.in_place(array), _linalg.in_float64(array), _linalg.on_host(array)):
        assert type(placed) is np.ndarray
    assert _linalg.in_place(array).dtype == np.float32
    assert _linalg.in_float64(array).dtype == np.float64
    assert type(_linalg.at_home(np.ones(2, np.float32))) is np.ndarray
    assert _linalg.namespace(_linalg.in_float64(array)) is np


def test_arrays_of_a_device_that_decomposes_stay_there(cpu_decomposes):
    array = jnp.full((2, 2), 0.1)
    assert _linalg.in_place(array) is array
    accurate = _linalg.in_float64(array)
    assert isinstance(accurate, jax.Array)
    assert accurate.dtype == np.float64
    np.testing.assert_array_equal(np.asarray(accurate), np.full((2, 2), np.float32(0.1), float))
    assert _linalg.at_home(np.ones(2)).dtype == np.float64
    assert isinstance(_linalg.at_home(np.ones(2)), jax.Array)
    assert type(_linalg.in_float64(np.ones(2))) is np.ndarray
    assert type(_linalg.on_host(array)) is np.ndarray
    back = on_device(accurate, np.float32)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, array)


def test_values_of_what_is_differentiated(cpu_decomposes):
    seen = []

    def f(x):
        seen.append(_linalg.in_float64(x))
        return jnp.sum(x)

    jax.grad(f)(jnp.full(2, 0.5))
    assert seen[0].dtype == np.float64
    np.testing.assert_array_equal(np.asarray(seen[0]), 0.5)


@pytest.mark.parametrize("platforms", [(), ("cpu",)])
def test_pairs_where_they_are(monkeypatch, platforms):
    monkeypatch.setattr(_linalg, "PLATFORMS", platforms)
    pair = Pair.of_host(MATRIX, np.float32)
    whole = pair.in_place()
    assert isinstance(whole, jax.Array if platforms else np.ndarray)
    np.testing.assert_array_equal(np.asarray(whole), pair.to_host())
    np.testing.assert_allclose(pair.product(COLUMNS), pair.to_host() @ COLUMNS, atol=TOLERANCE)
