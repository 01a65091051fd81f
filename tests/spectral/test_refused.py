"""Bad input: what was got, what is needed, what to do."""

import sys

import jax
import numpy as np
import pytest
import scipy.sparse
from jax import numpy as jnp
from small_operators import dense_operator

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.spectral import log_determinant, trace_of_function

KEY = jax.random.key(0)
A = dense_operator(12)
FEATURES = ns.feature_map(stax.Dense(1), np.ones((2, 3), np.float32), ns.Exact(), key=KEY)


def test_operators():
    for operator, error, message in [
        (np.ones((3, 4)), ValueError, r"shape \(3, 4\); needed: a square one"),
        (np.ones(3), ValueError, r"shape \(3,\); needed: a square one"),
        (np.eye(3, dtype=int), TypeError, r"dtype int64; needed: real .*astype\(float\)"),
        (np.eye(3) * 1j, TypeError, "dtype complex128; needed: real floating point"),
        ("matrix", TypeError, "operator must be one array or a square array, a SciPy sparse"),
        (A * np.nan, ValueError, "144 entries that are NaN or infinite"),
        (scipy.sparse.csr_array([[1.0, np.inf], [np.inf, 1.0]]), ValueError, "2 entries that"),
        (scipy.sparse.eye_array(3, dtype=int), TypeError, "dtype int64; needed: real floating"),
        (scipy.sparse.eye_array(3) * 1j, TypeError, "dtype complex128; needed: real floating"),
        (jnp.eye(3) * jnp.inf, ValueError, "products with the operator are NaN or infinite"),
        (A + np.triu(A), ValueError, r"not symmetric: uᵀ A v = .*\(A \+ A.T\) / 2"),
        (lambda v: v, TypeError, "give size=n, its length"),
        (FEATURES, TypeError, r"is a feature map; .* FeatureGram\(feature_map, x\)"),
    ]:
        with pytest.raises(error, match=message):
            log_determinant(operator, key=KEY)
    with pytest.raises(ValueError, match="size=5, but the operator has 12 rows"):
        log_determinant(A, size=5, key=KEY)
    with pytest.raises(ValueError, match=r"vector of shape \(4,\) into \(2,\)"):
        log_determinant(lambda v: v[:2], size=4, key=KEY)
    with pytest.raises(TypeError, match=r"one of NumPy as scipy.*LinearOperator"):
        log_determinant(lambda v: np.asarray(v), size=4, key=KEY)


def test_not_positive_definite():
    for a, message in [
        (A - 0.5 * np.eye(12), "not positive definite: it has an eigenvalue of -0.299 or less"),
        (-A, "not positive definite"),
        (np.diag([1.0, 0.0, 2.0]), "not positive definite"),
    ]:
        with pytest.raises(ValueError, match=message):
            log_determinant(a, key=KEY)
    with pytest.raises(ValueError, match="without its shift is not positive semidefinite"):
        log_determinant(A - 0.5 * np.eye(12), shift=1.0, key=KEY)


def test_outside_of_the_interval():
    with pytest.raises(ValueError, match=r"eigenvalue is 6 or more, above the interval \(0.1, 5"):
        log_determinant(A, interval=(0.1, 5.0), key=KEY)
    with pytest.raises(ValueError, match=r"eigenvalue is 0.201125 or less, below 0.3"):
        log_determinant(A, interval=(0.3, 7.0), key=KEY)
    hidden = np.diag([9.0] + [1.0] * 5 + [2.0] * 10)  # which few probes of the pilot see
    series = {"interval": (0.9, 3.0), "key": KEY}
    with pytest.raises(ValueError, match="eigenvalue is 9 or more"):
        log_determinant(hidden, **series)


def test_the_recurrence_notices():
    """Where the pilot did not."""
    from ntk_sketch.spectral._chebyshev import quadratic_forms
    from ntk_sketch.spectral._series import log_series

    series = log_series(0.2, 5.0)
    weights = np.tile(series.values[:20, None], (1, 2))
    v = np.random.default_rng(0).normal(size=(12, 2))
    with pytest.raises(ValueError, match=r"outside of \[0.2, 5\].*recurrence grows"):
        quadratic_forms(lambda v: A @ v, v, series, weights, 0.0)


def test_options():
    for options, error, message in [
        ({"method": "cholesky"}, ValueError, "method must be one of chebyshev"),
        ({"tolerance": 0.0}, ValueError, "tolerance=0.0; needed: a relative error"),
        ({"probes": 0}, ValueError, "probes must be a positive integer"),
        ({"degree": 2.5}, TypeError, "degree must be a positive integer"),
        ({"interval": (2.0, 1.0)}, ValueError, "needed: two finite numbers, low < high"),
        ({"interval": (0.0, 1.0)}, ValueError, "needs eigenvalues above 0"),
        ({"shift": -1.0}, ValueError, "needed: a finite number, 0 or more"),
        ({"shift": np.nan}, ValueError, "needed: a finite number, 0 or more"),
        ({"key": 3}, TypeError, "key must be a key of jax.random"),
    ]:
        with pytest.raises(error, match=message):
            log_determinant(A, **({"key": KEY} | options))
    with pytest.raises(TypeError, match="f must be a function of arrays, got float"):
        trace_of_function(A, 2.0, key=KEY)
    with pytest.raises(ValueError, match="a kink or a jump"):
        trace_of_function(A - np.eye(12), np.abs, key=KEY)


def test_conditions():
    """A least eigenvalue that Lanczos does not find, and one that needs too many degrees."""
    a = scipy.sparse.diags_array(np.geomspace(1e-9, 1.0, 3000))
    a = scipy.sparse.linalg.aslinearoperator(a)
    with pytest.raises(ValueError, match=r"least eigenvalue was not found in 400 products.*shift="):
        log_determinant(a, key=KEY)
    with pytest.raises(ValueError, match=r"polynomial of degree .*larger shift"):
        log_determinant(a, key=KEY, interval=(1e-10, 1.1))


def test_tolerance_not_met():
    """Of a matrix whose log-determinant is 0."""
    a = np.array([[1.25, 0.75], [0.75, 1.25]])  # eigenvalues 2 and 1/2
    with pytest.warns(
        RuntimeWarning, match=r"after 512 probes .* tolerance=0.01, absolute_tolerance=0\."
    ):
        found = log_determinant(a, key=KEY)
    assert abs(found.value) < 4 * found.standard_error + found.truncation_bound


def test_without_matfree(monkeypatch):
    monkeypatch.setitem(sys.modules, "matfree", None)
    options = {"interval": (0.01, 7.0), "key": KEY, "method": "lanczos"}
    with pytest.raises(ImportError, match=r'pip install "ntk-sketch\[spectral\]"'):
        jax.grad(lambda s: log_determinant(s * jnp.asarray(A), **options).value)(1.0)
    found = log_determinant(jnp.asarray(A), probes=2, **options)  # which needs none of it
    assert found.probes == 2
