"""Log-determinants and traces against dense decompositions, for every kind of operator."""

import jax
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from jax import numpy as jnp
from small_operators import dense_operator, sparse_operator

from ntk_sketch.solvers import GramState
from ntk_sketch.spectral import _chebyshev, log_determinant, trace_of_function
from ntk_sketch.spectral._lanczos import Lanczos
from ntk_sketch.spectral._matfree import lanczos_forms
from ntk_sketch.spectral._operator import Operator
from ntk_sketch.spectral._plan import pilot
from ntk_sketch.spectral._series import log_series

KEY = jax.random.key(0)
METHODS = ("chebyshev", "randomized_chebyshev", "lanczos")


def exact(a):
    return np.linalg.slogdet(a)[1]


# ------------------------------------------------------------------ one quadratic form


def test_every_unit_vector(matrix):
    """Then the trace is exact but for the truncation, which the bound is above; half as many
    products as degrees."""
    values = np.linalg.eigvalsh(matrix)
    series, n, calls = log_series(values[0], values[-1]), len(matrix), []

    def product(v):
        calls.append(v.shape)
        return matrix @ v

    for degree in (1, 2, 7, 12, 120):
        calls.clear()
        weights = np.tile(series.values[: degree + 1, None], (1, n))
        forms = _chebyshev.quadratic_forms(product, np.eye(n), series, weights, 0.0)
        assert abs(forms.sum() - exact(matrix)) <= n * series.error(degree) + 1e-11
        assert len(calls) == max(len(weights) // 2, 1)
        p = np.polynomial.chebyshev.chebval(
            (values - series.centre) / series.radius, series.values[: degree + 1]
        )
        assert forms.sum() == pytest.approx(p.sum(), abs=1e-11)


def test_lanczos_quadrature(matrix):
    """N steps are exact for polynomials of degree 2 N - 1; of all steps, for every function."""
    v = np.random.default_rng(0).normal(size=(40, 3))
    lanczos = Lanczos(lambda v: matrix @ v, v)
    lanczos.extend(4)
    power = np.linalg.matrix_power(matrix, 7)
    expected = np.einsum("ik,ij,jk->k", v, power, v)
    np.testing.assert_allclose(lanczos.quadratic_forms(lambda s: s**7), expected, rtol=1e-10)
    lanczos.extend(26)
    values, vectors = np.linalg.eigh(matrix)
    expected = np.log(values) @ (vectors.T @ v) ** 2
    np.testing.assert_allclose(lanczos.quadratic_forms(np.log), expected, rtol=1e-8)
    (low, low_error), (high, high_error) = lanczos.extremes()
    assert low == pytest.approx(values[0], abs=2 * low_error + 1e-9)
    assert high == pytest.approx(values[-1], abs=2 * high_error + 1e-9)


def test_bracket(matrix):
    """Gauss's quadrature from above and Radau's from below, closer with every step."""
    v = np.random.default_rng(0).normal(size=(40, 1))
    values, vectors = np.linalg.eigh(matrix)
    exact = float(np.log(values) @ (vectors.T @ v)[:, 0] ** 2)
    lanczos, before = Lanczos(lambda v: matrix @ v, v), (np.inf, -np.inf)
    for _ in range(12):
        lanczos.extend(1)
        upper, lower = lanczos.bracket(np.log, 0.9 * values[0])
        assert before[1] < lower < exact < upper < before[0]
        before = upper, lower
    width = lanczos.steps_for(np.log, 0.9 * values[0], 1e-6, 40)
    assert width <= 1e-6
    assert lanczos.bracket(np.log, 0.9 * values[0])[0] == pytest.approx(exact, abs=2e-6)


def test_kernels():
    """Few large eigenvalues and many at the shift: some steps do for what a series cannot."""
    x = np.linspace(0, 1, 200)
    kernel = np.exp(-(((x[:, None] - x) / 0.1) ** 2))
    for shift in (1e-2, 1e-6):
        found = log_determinant(kernel, key=KEY, shift=shift, method="lanczos", probes=32)
        assert found.degree <= 100  # the series: some 10,000 at the smaller one
        truth = exact(kernel + shift * np.eye(200))
        assert found.truncation_bound < 1e-3 * abs(truth)
        assert abs(found.value - truth) < 4 * found.standard_error + found.truncation_bound
    with pytest.raises(ValueError, match="or use method='lanczos'"):
        log_determinant(kernel, key=KEY, shift=1e-8)


def test_bracket_where_the_krylov_space_ends():
    """Two steps are exact for two eigenvalues; further ones are rounding and do not count."""
    values = np.repeat([1.0, 3.0], 6)
    v = np.random.default_rng(2).normal(size=(12, 1))
    lanczos = Lanczos(lambda v: values[:, None] * v, v)
    lanczos.extend(5)
    expected = np.log(3) * np.sum(v[6:] ** 2)
    np.testing.assert_allclose(lanczos.bracket(np.log, 0.5), [expected, expected], rtol=1e-12)


def test_the_interval_holds_all_eigenvalues():
    """Of a spectrum without gaps, whose ends ten steps do not reach."""
    values = np.linspace(1, 2, 300)
    operator = Operator(scipy.sparse.linalg.aslinearoperator(np.diag(values)), None, 0.0)
    v = np.random.default_rng(0).normal(size=(300, 1))
    low, high = pilot(operator, np.log, v, -np.inf, None, True).interval
    assert 0.5 < low <= 1
    assert 2 <= high < 2.5


def test_lanczos_where_the_krylov_space_ends():
    """Two eigenvalues alone: the third step has nothing left."""
    a = np.diag([1.0] * 5 + [4.0] * 5)
    lanczos = Lanczos(lambda v: a @ v, np.ones((10, 1)))
    lanczos.extend(6)
    np.testing.assert_allclose(lanczos.quadratic_forms(np.log), 5 * np.log(4))
    found = log_determinant(a, key=KEY, tolerance=1e-6)
    np.testing.assert_allclose(found.value, 5 * np.log(4), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_equal_to_matfree(matrix):
    """The recurrence without reorthogonalisation against theirs with it."""
    v = np.random.default_rng(0).normal(size=(40, 3))
    lanczos = Lanczos(lambda v: matrix @ v, v)
    lanczos.extend(9)
    a = jnp.asarray(matrix)
    theirs = lanczos_forms(lambda v: a @ v, jnp.asarray(v.T), jnp.log, 9)
    np.testing.assert_allclose(lanczos.quadratic_forms(np.log), theirs, rtol=1e-9)


# ------------------------------------------------------------------ every kind of operator


def kinds(matrix):
    a = jnp.asarray(matrix)
    root = np.linalg.cholesky(matrix).T
    empty = GramState.init(len(matrix), 1, np.float64 if a.dtype == np.float64 else np.float32)
    state = empty.update(jnp.asarray(root, a.dtype), jnp.zeros((len(matrix), 1), a.dtype))
    return {
        "array": matrix,
        "jax": a,
        "sparse": scipy.sparse.csr_array(matrix),
        "linear operator": scipy.sparse.linalg.aslinearoperator(matrix),
        "state": state,
        "function": lambda v: a @ v,
    }


@pytest.mark.parametrize("kind", ["array", "jax", "sparse", "linear operator", "state", "function"])
def test_operators(matrix, kind, float64):
    """All give the same number, whose error is within 4 standard errors and the bound."""
    operator = kinds(matrix)[kind]
    options = {"size": 40} if kind == "function" else {}
    found = log_determinant(operator, key=KEY, shift=0.5, probes=16, tolerance=1e-3, **options)
    reference = log_determinant(matrix, key=KEY, shift=0.5, probes=16, tolerance=1e-3)
    assert found.value == pytest.approx(reference.value, rel=2e-3)
    truth = exact(matrix + 0.5 * np.eye(40))
    assert abs(found.value - truth) < 4 * found.standard_error + found.truncation_bound
    assert found.probes == 16
    assert 0.5 <= found.interval[0] <= np.linalg.eigvalsh(matrix)[0] + 0.5
    assert found.interval[1] >= np.linalg.eigvalsh(matrix)[-1] + 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_sparse_precisions(method, seed):
    a = sparse_operator(600, seed)
    key = jax.random.key(seed)
    found = log_determinant(a, key=key, method=method, tolerance=3e-3)
    values = np.linalg.eigvalsh(a.toarray())
    rounding = len(values) * np.finfo(float).eps * values[-1]
    assert found.interval[0] <= values[0] + rounding
    assert found.interval[1] >= values[-1] - rounding
    truth = np.log(values).sum()
    assert found.standard_error + found.truncation_bound <= 3e-3 * abs(found.value)
    assert abs(found.value - truth) < 4 * found.standard_error + found.truncation_bound
    assert log_determinant(a, key=key, method=method, tolerance=3e-3) == found


@pytest.mark.parametrize("method", METHODS)
def test_right_on_average(method):
    """Mean over keys within 4 standard errors; those of the estimates fit the spread."""
    a = dense_operator(24, 10.0)
    estimates = [
        log_determinant(a, key=jax.random.key(i), method=method, probes=8, tolerance=1e-5)
        for i in range(60)
    ]
    values = np.array([e.value for e in estimates])
    errors = np.array([e.standard_error for e in estimates])
    assert abs(values.mean() - exact(a)) < 4 * values.std(ddof=1) / 60**0.5
    ratio = np.mean(errors**2) / values.var(ddof=1)  # an F distribution of 420 and 59 degrees
    assert 0.6 < ratio < 1.7
    assert abs(exact(a)) > 10 * values.std() / 60**0.5  # the case is no trivial one


@pytest.mark.parametrize("method", ["chebyshev", "lanczos"])
def test_bound(method, matrix):
    """Above what the truncation changes, probe by probe the same; and not far above."""
    interval = tuple(np.linalg.eigvalsh(matrix)[[0, -1]] * [0.99, 1.01])
    options = {"key": KEY, "probes": 8, "method": method, "interval": interval}
    fine = log_determinant(matrix, degree=25, **options)
    for degree in (2, 4, 6):
        coarse = log_determinant(matrix, degree=degree, **options)
        off = abs(coarse.value - fine.value)
        assert off <= coarse.truncation_bound + fine.truncation_bound
        assert coarse.truncation_bound < 1e4 * off
        assert coarse.degree == degree
    nothing = log_determinant(matrix, key=KEY, probes=2, method="lanczos", degree=9)
    assert nothing.interval is None
    assert np.isnan(nothing.truncation_bound)


def test_random_degrees_have_no_truncation_error():
    """With a mean degree of 3, where a fixed one of 3 is far off."""
    a = dense_operator(24, 2000.0)
    options = {"probes": 64, "degree": 3, "interval": (0.19, 410.0)}
    found = {
        method: np.array(
            [
                log_determinant(a, key=jax.random.key(i), method=method, **options).value
                for i in range(40)
            ]
        )
        for method in METHODS[:2]
    }
    errors = {m: v.std(ddof=1) / 40**0.5 for m, v in found.items()}
    assert abs(found["chebyshev"].mean() - exact(a)) > 10 * errors["chebyshev"]
    off = found["randomized_chebyshev"].mean() - exact(a)
    assert abs(off) < 4 * errors["randomized_chebyshev"]


def test_error_falls_with_probes():
    """As 1 / √probes: the exponent within 3 of its own standard errors."""
    a, sizes, keys = dense_operator(24, 10.0), np.array([4, 16, 64]), 40
    spread = [
        np.std(
            [log_determinant(a, key=jax.random.key(i), probes=int(m)).value for i in range(keys)]
        )
        for m in sizes
    ]
    logs = np.log(sizes) - np.log(sizes).mean()
    slope = logs @ np.log(spread) / (logs @ logs)
    error = (1 / (2 * keys)) ** 0.5 / (logs @ logs) ** 0.5
    assert abs(slope + 0.5) < 3 * error


# ------------------------------------------------------------------ other functions


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("f", [np.exp, jnp.sqrt, lambda s: s / (s + 0.1)])
def test_traces(matrix, method, f):
    found = trace_of_function(matrix, f, key=KEY, method=method, probes=64)
    values = np.linalg.eigvalsh(matrix)
    truth = float(np.sum(np.asarray(f(values))))
    assert abs(found.value - truth) < 4 * found.standard_error + found.truncation_bound
    assert found.interval[0] <= values[0]
    assert found.interval[1] >= values[-1]


def test_negative_eigenvalues(matrix):
    """Of an indefinite operator, on an interval around all of them."""
    a = matrix - 2 * np.eye(40)
    found = trace_of_function(a, np.exp, key=KEY, shift=0.5, probes=64)
    values = np.linalg.eigvalsh(a) + 0.5
    assert found.interval[0] < values[0] < 0
    off = abs(found.value - np.exp(values).sum())
    assert off < 4 * found.standard_error + found.truncation_bound


def test_degree_follows_the_condition():
    """About as √κ, and as the logarithm of the tolerance."""

    def degree(condition, tolerance=1e-2):
        a = np.diag(np.geomspace(1, condition, 64) * 3)
        interval = (3.0, 3.0 * condition)
        options = {"interval": interval, "tolerance": tolerance, "probes": 1, "key": KEY}
        return log_determinant(a, **options).degree

    assert 7 < degree(1e4) / degree(1e2) < 12
    assert degree(1e2, 1e-4) < 3 * degree(1e2)
