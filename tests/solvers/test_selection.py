"""Scores against their definitions, by dense algebra and by refitting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.solvers import GCV, HoldOut, LeaveOneOut, Validation, accumulate, ridge, solve
from ntk_sketch.solvers._loss import loss_of
from ntk_sketch.streaming._feature_stream import FeatureStream

pytestmark = pytest.mark.usefixtures("x64")

VALUES = [1e-3, 1e-2, 1.0]
SIZES = pytest.mark.parametrize("n", [15, 60], ids=["dual", "primal"])
# float64; conditions here are below 1e5
RTOL = 1e-9


def _dense(feature_map, x, diag_reg):
    z = np.asarray(feature_map(x).ntk)
    gram = z @ z.T
    return z, gram, diag_reg * np.trace(gram) / len(z)


def _refit(z, y, penalty, keep):
    p = z.shape[1]
    return np.linalg.solve(z[keep].T @ z[keep] + penalty * np.eye(p), z[keep].T @ y[keep])


def _left_out_error(z, y, penalty, groups):
    """Mean squared error of every group under a fit without it, one by one."""
    total = 0.0
    for group in np.unique(groups):
        out = groups == group
        total += np.sum((z[out] @ _refit(z, y, penalty, ~out) - y[out]) ** 2)
    return total / y.size


@SIZES
def test_gcv_is_its_definition(make_map, make_data, n):
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(n, np.float64)
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select="gcv", batch_size=8)
    expected = []
    for value in VALUES:
        _, gram, penalty = _dense(feature_map, x, value)
        complement = np.eye(n) - gram @ np.linalg.inv(gram + penalty * np.eye(n))
        residual = np.sum((complement @ y) ** 2) / n
        expected.append(residual / (np.trace(complement) / n) ** 2 / 3)
    np.testing.assert_allclose(solution.scores, expected, rtol=RTOL)
    assert solution.diag_reg == VALUES[int(np.argmin(expected))]
    np.testing.assert_array_equal(solution.weights, solution.path[int(np.argmin(expected))].weights)


@SIZES
def test_leave_one_out_is_refitting(make_map, make_data, n):
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(n, np.float64)
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select="loo", batch_size=8)
    expected = []
    for value in VALUES:
        z, _, penalty = _dense(feature_map, x, value)
        expected.append(_left_out_error(z, y, penalty, np.arange(n)))
    np.testing.assert_allclose(solution.scores, expected, rtol=RTOL)
    assert solution.diag_reg == VALUES[int(np.argmin(expected))]


@SIZES
@pytest.mark.parametrize("kind", ["pairs", "uneven and shuffled", "larger than a batch"])
def test_leave_one_group_out_is_refitting(make_map, make_data, n, kind):
    groups = {
        "pairs": np.arange(n) // 2,
        "uneven and shuffled": np.random.default_rng(0).integers(-3, 4, n) ** 3,
        "larger than a batch": np.where(np.arange(n) % 4 == 0, 7, np.arange(n) + 100),
    }[kind]
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(n, np.float64)
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select="loo", groups=groups, batch_size=3)
    expected = []
    for value in VALUES:
        z, _, penalty = _dense(feature_map, x, value)
        expected.append(_left_out_error(z, y, penalty, groups))
    np.testing.assert_allclose(solution.scores, expected, rtol=RTOL)


def test_copies_must_be_left_out_together(make_map, make_data):
    """Why groups exist: with exact copies, leave-one-out sees the answer and flatters every fit;
    leaving both copies out gives the score of the data without copies at half of λ."""
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(30, np.float64)
    twice = np.concatenate([x, x]), np.concatenate([y, y])
    groups = np.tile(np.arange(30), 2)
    values = np.array([0.1, 1.0, 10.0])
    absolute = {"diag_reg_absolute_scale": True, "select": "loo"}
    once = ridge(feature_map, x, y, diag_reg=values / 2, **absolute)
    grouped = ridge(feature_map, *twice, diag_reg=values, groups=groups, **absolute)
    alone = ridge(feature_map, *twice, diag_reg=values, **absolute)
    np.testing.assert_allclose(grouped.scores, once.scores, rtol=RTOL)
    assert np.all(alone.scores < 0.9 * grouped.scores)


@SIZES
def test_validation_is_the_error_there(make_map, make_data, n):
    feature_map = make_map(6, 20, np.float64)
    (x, y), other = make_data(n, np.float64), make_data(33, np.float64, seed=5)
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select=other, batch_size=8)
    expected = [np.mean((one.predict(other[0]) - other[1]) ** 2) for one in solution.path]
    np.testing.assert_allclose(solution.scores, expected, rtol=RTOL)


def _left_out_wrong(z, y, penalty, groups, counted=None):
    """Share of examples whose largest prediction, under a fit without their group, is not that of
    their target."""
    wrong = []
    for group in np.unique(groups if counted is None else groups[counted]):
        out = groups == group
        predictions = z[out] @ _refit(z, y, penalty, ~out)
        wrong.extend(predictions.argmax(axis=1) != y[out].argmax(axis=1))
    return np.mean(wrong)


def _classes(x):
    labels = np.asarray(3 * np.sin(2 * x[:, 0]) + x[:, 1]).astype(int) % 3
    return np.eye(3)[labels] - 1 / 3


@SIZES
@pytest.mark.parametrize("grouped", [False, True])
def test_wrong_classes_left_out_are_those_of_refitting(make_map, make_data, n, grouped):
    feature_map, (x, _) = make_map(6, 20, np.float64), make_data(n, np.float64)
    y, groups = _classes(x), np.arange(n) // (2 if grouped else 1)
    select = LeaveOneOut(x, y, groups if grouped else None, loss="zero_one")
    scores = ridge(feature_map, x, y, diag_reg=VALUES, select=select, batch_size=8).scores
    expected = []
    for value in VALUES:
        z, _, penalty = _dense(feature_map, x, value)
        expected.append(_left_out_wrong(z, y, penalty, groups))
    assert 0 < min(expected) <= max(expected) < 1
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@SIZES
@pytest.mark.parametrize("grouped", [False, True])
def test_a_sample_is_the_mean_over_it(make_map, make_data, n, grouped):
    feature_map, (x, y) = make_map(6, 20, np.float64), make_data(n, np.float64)
    groups = np.arange(n) // 2 if grouped else None
    select = LeaveOneOut(x, y, groups, sample=5, key=jax.random.key(3))
    order = select.order(FeatureStream(feature_map, "ntk", 8))[0]
    assert len(order) == (10 if grouped else 5)
    assert np.all(np.diff(order) > 0)
    scores = ridge(feature_map, x, y, diag_reg=VALUES, select=select, batch_size=8).scores
    expected, names = [], np.arange(n) if groups is None else groups
    for value in VALUES:
        z, _, penalty = _dense(feature_map, x, value)
        errors = []
        for group in np.unique(names[order]):
            out = names == group
            errors.append(np.mean((z[out] @ _refit(z, y, penalty, ~out) - y[out]) ** 2))
        expected.append(np.mean(errors))
    np.testing.assert_allclose(scores, expected, rtol=RTOL)
    other = LeaveOneOut(x, y, groups, sample=5, key=jax.random.key(4))
    assert not np.array_equal(order, other.order(FeatureStream(feature_map, "ntk", 8))[0])


@pytest.mark.parametrize("path", [[1e-6, 1e-5, 1e-4], [1e-4, 1e-6, 1e-5]])
def test_of_equal_scores_the_largest_regulariser_is_taken(make_map, make_data, path):
    """No class is wrong with any of them."""
    feature_map, (x, _) = make_map(6, 20, np.float64), make_data(60, np.float64)
    y = np.tile([0.5, -0.5], (60, 1))  # one class alone
    select = LeaveOneOut(x, y, loss="zero_one")
    solution = ridge(feature_map, x, y, diag_reg=path, select=select, fit_intercept=True)
    np.testing.assert_array_equal(solution.scores, 0)
    assert solution.diag_reg == 1e-4
    assert solution.chosen == path.index(1e-4)


@SIZES
def test_wrong_classes_among_others(make_map, make_data, n):
    feature_map, (x, _), (other, _) = (
        make_map(6, 20, np.float64),
        make_data(n, np.float64),
        make_data(33, np.float64, seed=5),
    )
    y, y_other = _classes(x), _classes(other)
    select = Validation(other, y_other, loss="zero_one")
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select=select, batch_size=8)
    wrong = [np.asarray(s.predict(other)).argmax(1) != y_other.argmax(1) for s in solution.path]
    expected = np.mean(wrong, axis=1)
    np.testing.assert_allclose(solution.scores, expected, rtol=1e-12)
    held = HoldOut(0.4, key=jax.random.key(0), loss="zero_one")
    scores = ridge(feature_map, x, y, diag_reg=VALUES, select=held).scores
    order, validation = held.split(x, y)
    by_hand = ridge(feature_map, x[order], y[order], diag_reg=VALUES, select=validation).scores
    np.testing.assert_allclose(scores, by_hand, rtol=1e-12)
    assert np.all(scores * len(validation.x) % 1 < 1e-9)  # counts


def test_predictions_that_are_no_numbers_are_not_right():
    """Whatever class the comparison with NaN chooses."""
    targets = np.array([[1.0, 0.0]] * 4)
    residuals = np.array([[np.nan, 0.0], [0.0, np.inf], [0.0, 0.0], [1.0, -1.0]])
    losses = loss_of("zero_one", 2)(residuals, targets)
    np.testing.assert_array_equal(losses, [np.inf, np.inf, 0, 1])


def test_one_example_or_group_at_least_is_fitted(make_data):
    """Where the share held out rounds to all of them."""
    x, y = make_data(6)
    held = HoldOut(0.95, key=jax.random.key(0))
    for groups, count in ((None, 1), (np.arange(6) // 2, 2)):
        fitted, others = held.split(x, y, groups)
        assert (len(fitted), len(others.x)) == (count, 6 - count)


@pytest.mark.parametrize("select", ["gcv", "loo"])
def test_interpolant_of_least_norm_has_a_score(make_map, make_data, select):
    """diag_reg=0, n < p: residuals and 1 - h are all zero; the scores are their limit for λ → 0."""
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(15, np.float64)
    at_zero = ridge(feature_map, x, y, diag_reg=[0, 1.0], select=select).scores[0]
    near = ridge(feature_map, x, y, diag_reg=[1e-9, 1.0], select=select).scores[0]
    # the difference is of first order in λ / smallest eigenvalue, here below 1e-5
    assert at_zero == pytest.approx(near, rel=1e-4)
    z, _, _ = _dense(feature_map, x, 0)
    if select == "loo":
        total = 0.0
        for i in range(15):
            keep = np.arange(15) != i
            weights = np.linalg.lstsq(z[keep], y[keep], rcond=None)[0]
            total += np.sum((z[i] @ weights - y[i]) ** 2)
        assert at_zero == pytest.approx(total / y.size, rel=1e-8)


def test_an_example_that_cannot_be_left_out_gives_an_infinite_score(features_type, make_data):
    """The last feature is there for one example only: at λ = 0 that example is interpolated."""
    x, y = make_data(30, np.float64)
    x[:, 5] = 0
    x[4, 5] = 1
    feature_map = lambda x: features_type(None, x)  # noqa: E731
    scores = ridge(feature_map, x, y, diag_reg=[0, 0.1], select="loo").scores
    assert scores[0] == np.inf
    assert np.isfinite(scores[1])
    with pytest.raises(ValueError, match="every score is infinite"):
        ridge(feature_map, x, y, diag_reg=0, select="loo")


def test_a_single_value_has_its_score(make_map, make_data):
    x, y = make_data(60, np.float64)
    solution = ridge(make_map(6, 20, np.float64), x, y, diag_reg=0.1, select="loo")
    assert solution.scores.shape == (1,)
    assert solution.path == ()
    assert solution.diag_reg == 0.1


def test_selectors_with_solve(make_map, make_data):
    """Statistics in parts, then every selector: the same as `ridge` in one go."""
    feature_map = make_map(6, 20, np.float64)
    (x, y), other = make_data(60, np.float64), make_data(33, np.float64, seed=5)
    state = accumulate(feature_map, x[:21], y[:21]).merge(accumulate(feature_map, x[21:], y[21:]))
    groups = jnp.arange(60) // 3
    for named, selector in [
        ({"select": "gcv"}, GCV()),
        ({"select": "loo"}, LeaveOneOut(x, y)),
        ({"select": "loo", "groups": groups}, LeaveOneOut(x, y, groups)),
        ({"select": other}, Validation(*other)),
    ]:
        one_go = ridge(feature_map, x, y, diag_reg=VALUES, **named)
        parts = solve(feature_map, state, diag_reg=VALUES, select=selector)
        np.testing.assert_allclose(parts.scores, one_go.scores, rtol=RTOL)
        assert parts.diag_reg == one_go.diag_reg


def test_float32_scores(make_map, make_data):
    """What users run: float32 features, scores to about eps times the condition."""
    feature_map = make_map(6, 20)
    x, y = make_data(400)
    z, _, _ = _dense(feature_map, x, 0)
    z = z.astype(np.float64)
    for select in ("gcv", "loo"):
        solution = ridge(feature_map, x, y, diag_reg=[0.01, 1.0], select=select)
        assert solution.weights.dtype == jnp.float32
        for one, score in zip(solution.path, solution.scores, strict=True):
            hat = z @ np.linalg.solve(z.T @ z + one.penalty * np.eye(20), z.T)
            residual = y - hat @ y
            share = np.diag(hat) if select == "loo" else np.trace(hat) / 400
            expected = np.mean((residual / (1 - np.reshape(share, (-1, 1)))) ** 2)
            rtol = 10 * float(np.finfo(np.float32).eps) * one.condition
            assert score == pytest.approx(expected, rel=rtol)


@pytest.mark.parametrize("n", [15, 60])  # fewer examples than features, and more
@pytest.mark.parametrize("select", ["gcv", "loo"])
def test_the_order_of_the_examples(make_map, make_data, n, select):
    """Sorted by their target they give the regression that they give shuffled."""
    x, y = make_data(n)
    path, sort = [1e-3, 1e-2, 0.1], np.argsort(y[:, 0])
    one, other = (
        ridge(make_map(), x[i], y[i], diag_reg=path, select=select, batch_size=8)
        for i in (np.arange(n), sort)
    )
    assert one.diag_reg == other.diag_reg
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
    np.testing.assert_allclose(one.predict(x), other.predict(x), rtol=1e-3, atol=1e-4)
