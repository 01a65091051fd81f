"""The intercept, against the extended system and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ntk_sketch.solvers import accumulate, ridge, solve

VALUES = [1e-3, 1e-1]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [12, 20, 21, 90])
def test_scikit_learn(make_map, make_data, n):
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(n, np.float64)
    y = y + np.array([5.0, -100.0, 0.0])
    for value in VALUES:
        options = {"diag_reg": value, "diag_reg_absolute_scale": True, "fit_intercept": True}
        solution = ridge(feature_map, x, y, **options)
        theirs = Ridge(alpha=value, fit_intercept=True).fit(np.asarray(feature_map(x).ntk), y)
        np.testing.assert_allclose(solution.weights, theirs.coef_.T, rtol=0, atol=1e-9)
        np.testing.assert_allclose(solution.intercept, theirs.intercept_, rtol=0, atol=1e-9)
        np.testing.assert_allclose(
            solution.predict(x), theirs.predict(np.asarray(feature_map(x).ntk)), atol=1e-9
        )
        parts = accumulate(feature_map, x[:7], y[:7]).merge(accumulate(feature_map, x[7:], y[7:]))
        primal = solve(feature_map, parts, **options)
        np.testing.assert_allclose(primal.weights, solution.weights, rtol=0, atol=1e-9)
        np.testing.assert_allclose(primal.intercept, solution.intercept, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [14, 60])
@pytest.mark.parametrize("size", [1, 2])
def test_leave_one_out_is_refitting(make_map, make_data, n, size):
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(n, np.float64)
    y, groups = y + 7, np.arange(n) // size
    solution = ridge(
        feature_map, x, y, diag_reg=VALUES, select="loo", groups=groups, fit_intercept=True
    )
    z = np.asarray(feature_map(x).ntk)
    for one, score in zip(solution.path, solution.scores, strict=True):
        total = 0.0
        for group in np.unique(groups):
            keep = groups != group
            left = Ridge(alpha=one.penalty).fit(z[keep], y[keep])
            total += np.sum((left.predict(z[~keep]) - y[~keep]) ** 2)
        assert score == pytest.approx(total / y.size, rel=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [14, 60])
@pytest.mark.parametrize("select", ["gcv", "validation"])
def test_other_scores_are_their_definitions(make_map, make_data, n, select):
    feature_map = make_map(6, 20, np.float64)
    (x, y), (x_val, y_val) = make_data(n, np.float64), make_data(33, np.float64, seed=5)
    y, y_val = y + 7, y_val + 7
    choice = "gcv" if select == "gcv" else (x_val, y_val)
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select=choice, fit_intercept=True)
    centring = np.eye(n) - 1 / n
    z = centring @ np.asarray(feature_map(x).ntk)
    for one, score in zip(solution.path, solution.scores, strict=True):
        hat = z @ np.linalg.solve(z.T @ z + one.penalty * np.eye(20), z.T)
        complement = centring - hat
        expected = np.mean((complement @ y) ** 2) / (np.trace(complement) / n) ** 2
        if select == "validation":
            expected = np.mean((np.asarray(one.predict(x_val)) - y_val) ** 2)
        assert score == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_interpolant_with_an_intercept_has_a_score(make_map, make_data):
    """diag_reg=0, n < p: the limit for λ → 0."""
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(15, np.float64)
    for select in ("gcv", "loo"):
        options = {"select": select, "fit_intercept": True}
        at_zero, near = ridge(feature_map, x, y, diag_reg=[0, 1e-9], **options).scores
        assert at_zero == pytest.approx(near, rel=1e-4)


@pytest.mark.default_flags
@pytest.mark.parametrize("n", [12, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_mean_costs_no_digits(make_map, make_data, n, dtype):
    """Weights in float32 do not depend on it; without an intercept a warning names the remedy."""
    feature_map = make_map()
    x, y = make_data(n)
    mean = 4096.0 if dtype == np.float32 else 1e7
    y = np.round(y * 1024).astype(dtype) / 1024  # exact with the mean added
    plain = ridge(feature_map, x, y, diag_reg=0.01, fit_intercept=True)
    moved = ridge(feature_map, x, y + mean, diag_reg=0.01, fit_intercept=True)
    np.testing.assert_allclose(moved.weights, plain.weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved.intercept, plain.intercept + mean, rtol=3e-7)
    with pytest.warns(RuntimeWarning, match="mean of the targets outweighs.*fit_intercept=True"):
        ridge(feature_map, x, y + mean, diag_reg=0.01)
    state = accumulate(feature_map, x, y + mean)
    with pytest.warns(RuntimeWarning, match="mean of the targets outweighs.*fit_intercept=True"):
        solve(feature_map, state, diag_reg=0.01)


def test_shapes_of_one_output(make_map, make_data):
    x, y = make_data(60)
    feature_map = make_map()
    vector = ridge(feature_map, x, y[:, 0], diag_reg=VALUES, select="gcv", fit_intercept=True)
    assert vector.intercept.shape == ()
    assert vector.path[0].intercept.shape == ()
    assert vector.predict(x).shape == (60,)
    matrix = ridge(feature_map, x, y[:, :1], diag_reg=VALUES, select="gcv", fit_intercept=True)
    assert matrix.intercept.shape == (1,)
    np.testing.assert_allclose(matrix.predict(x)[:, 0], vector.predict(x), rtol=1e-5, atol=1e-6)
    assert ridge(feature_map, x, y).intercept is None
