"""Selection if landmarks are training examples: scores leave them out."""

import equinox as eqx
import jax
import numpy as np
import pytest
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.solvers import GCV, LeaveOneOut, accumulate, ridge, solve

VALUES = [1e-4, 1e-3, 1e-2, 1e-1]


@pytest.fixture(scope="module")
def kinked():
    """A kinked function of one of ten uniform columns; landmarks from the training examples."""
    x = np.random.default_rng(0).uniform(size=(2600, 10)).astype(np.float32)
    y = 200 * np.abs(x[:, 0] - 0.5)
    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu(), stax.Dense(1)]
    method = ns.Nystroem(width=256)
    feature_map = ns.feature_map(stax.serial(*layers), x[:600], method, key=jax.random.key(0))
    path = ridge(feature_map, x[:600], y[:600], diag_reg=VALUES, fit_intercept=True).path
    errors = [float(np.mean((one.predict(x[600:]) - y[600:]) ** 2)) for one in path]
    return feature_map, x[:600], y[:600], np.array(errors)


@pytest.mark.parametrize("select", ["loo", "gcv"])
def test_scores_track_the_test_error(kinked, select):
    """Over all examples they are three to six times too large at 1e-4 and choose 1e-1."""
    feature_map, x, y, errors = kinked
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select=select, fit_intercept=True)
    np.testing.assert_allclose(solution.scores, errors, rtol=0.2)
    assert errors[VALUES.index(solution.diag_reg)] < 1.15 * errors.min()

    everything = lambda x: feature_map(x)  # noqa: E731  (a map that does not say)
    naive = ridge(everything, x, y, diag_reg=VALUES, select=select, fit_intercept=True)
    assert errors[VALUES.index(naive.diag_reg)] > 1.15 * errors.min() or select == "gcv"
    assert np.all(naive.scores[0] > 1.4 * errors[0])


def test_examples_are_recognised_in_any_order_and_dtype(kinked):
    feature_map, x, _, _ = kinked
    known = feature_map.is_landmark(x)
    assert known.sum() == 256
    assert not feature_map.is_landmark(x + 1).any()
    shuffle = np.random.default_rng(1).permutation(600)
    for same in (x[shuffle], jnp.asarray(x[shuffle]), x[shuffle].astype(np.float64)):
        np.testing.assert_array_equal(feature_map.is_landmark(same), known[shuffle])
    zeros = np.array([[0.0, 1.0], [1.0, 2.0], [-0.0, 1.0]], np.float32)
    model = stax.serial(stax.Dense(1), stax.Relu())
    small = ns.feature_map(model, zeros[:2], ns.Exact(), key=jax.random.key(0))
    assert small.is_landmark(zeros).all()
    other = ns.feature_map(model, zeros, ns.RandomFeatures(4), key=jax.random.key(0))
    assert not other.is_landmark(zeros).any()


# ---- against the definition ----------------------------------------------------------------------


class Marked(eqx.Module):
    """A map whose landmarks are the examples with a positive first coordinate."""

    inner: eqx.Module

    def __call__(self, x):
        return self.inner(x)

    def is_landmark(self, x):
        return np.asarray(x)[:, 0] > 1


def _dense(feature_map, x, y, penalty, fit_intercept):
    """Residuals, 1 - leverages, and what examples are counted."""
    z = np.asarray(feature_map(x).ntk, np.float64)
    n, p = z.shape
    extended, ridge_matrix = z, penalty * np.eye(p)
    if fit_intercept:
        extended = np.concatenate([z, np.ones((n, 1))], axis=1)
        ridge_matrix = np.diag([penalty] * p + [0.0])
    hat = extended @ np.linalg.solve(extended.T @ extended + ridge_matrix, extended.T)
    return y - hat @ y, 1 - np.diag(hat), ~feature_map.is_landmark(x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [70, 18, 50], ids=["primal", "few", "dual"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("select", ["loo", "gcv"])
def test_scores_are_means_over_the_others(make_map, make_data, n, fit_intercept, select):
    p = 60 if n == 50 else 17
    feature_map = Marked(make_map(6, p, np.float64))
    x, y = make_data(n, np.float64)
    values = [1e-2, 1.0]
    options = {"diag_reg": values, "fit_intercept": fit_intercept}
    if n == 18:
        with pytest.warns(RuntimeWarning, match=r"of 18 examples are landmarks.*smaller width"):
            solution = ridge(feature_map, x, y, select=select, **options)
    else:
        solution = ridge(feature_map, x, y, select=select, **options)
    expected = []
    for one in solution.path:
        residual, complement, counted = _dense(feature_map, x, y, one.penalty, fit_intercept)
        if n == 18:  # too few others
            counted = np.full(n, True)
        residual, complement = residual[counted], complement[counted]
        if select == "loo":
            expected.append(np.mean((residual / complement[:, None]) ** 2))
        else:
            expected.append(np.mean(residual**2) / np.mean(complement) ** 2)
    np.testing.assert_allclose(solution.scores, expected, rtol=1e-9)
    selector = LeaveOneOut(x, y) if select == "loo" else GCV(x[::-1], y[::-1])
    if n == 70:
        state = accumulate(feature_map, x, y)
        parts = solve(feature_map, state, select=selector, **options)
        np.testing.assert_allclose(parts.scores, expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_group_with_a_landmark_is_not_counted(make_map, make_data):
    feature_map = Marked(make_map(6, 20, np.float64))
    x, y = make_data(80, np.float64)
    groups = np.arange(80) // 2
    marked = np.repeat(feature_map.is_landmark(x).reshape(-1, 2).any(axis=1), 2)
    solution = ridge(feature_map, x, y, diag_reg=[0.1], select="loo", groups=groups)
    z, total = np.asarray(feature_map(x).ntk), 0.0
    for group in np.unique(groups[~marked]):
        keep = groups != group
        system = z[keep].T @ z[keep] + solution.path[0].penalty * np.eye(20)
        weights = np.linalg.solve(system, z[keep].T @ y[keep])
        total += np.sum((z[~keep] @ weights - y[~keep]) ** 2)
    np.testing.assert_allclose(solution.scores, [total / y[~marked].size], rtol=1e-9)


@pytest.mark.parametrize("select", ["gcv", "loo"])
def test_the_warning_of_too_few_examples_names_the_callers_line(select):
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    feature_map = ns.feature_map(model, x, ns.Nystroem(20), key=jax.random.key(0))
    with pytest.warns(RuntimeWarning, match="too few others") as caught:
        ns.ridge(feature_map, x, x[:, 0] - x[:, 0].mean(), diag_reg=[0.1, 1.0], select=select)
    assert [w.filename for w in caught if "too few others" in str(w.message)] == [__file__]
