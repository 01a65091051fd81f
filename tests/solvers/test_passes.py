"""How often features are computed, for which examples, and what progress is reported."""

import sys
import time

import jax
import numpy as np
import pytest

from ntk_sketch.solvers import HoldOut, LeaveOneOut, Validation, accumulate, ridge
from ntk_sketch.streaming import stream
from ntk_sketch.streaming._progress import reporting

VALUES = [1e-3, 1e-2, 1.0]
KEY = jax.random.key(0)
SIZES = pytest.mark.parametrize("n", [15, 24, 60], ids=["dual", "dual then primal", "primal"])


class Counter:
    """Counts the examples of all passes."""

    def __init__(self):
        self.examples, self.batches = 0, 0

    def __call__(self, count):
        self.examples += count
        self.batches += 1


@SIZES
def test_predictions_of_the_whole_path(make_map, make_data, n):
    (x, y), (new, _), count = make_data(n), make_data(11, seed=1), Counter()
    solution = ridge(make_map(), x, y, diag_reg=VALUES, fit_intercept=True, batch_size=4)
    path = solution.predict_path(new, progress=count)
    assert path.shape == (3, 11, 3)
    assert (count.examples, count.batches) == (11, 3)  # one pass
    for one, predicted in zip(solution.path, path, strict=True):
        np.testing.assert_allclose(predicted, one.predict(new), rtol=1e-5, atol=1e-6)


def test_predictions_of_a_path_of_one_output(make_map, make_data):
    x, y = make_data(60)
    solution = ridge(make_map(), x, y[:, 0], diag_reg=VALUES, select="gcv")
    path = solution.predict_path(x[:5])
    assert path.shape == (3, 5)
    chosen = VALUES.index(solution.diag_reg)
    np.testing.assert_allclose(path[chosen], solution.predict(x[:5]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no path: diag_reg was a single number"):
        ridge(make_map(), x, y, diag_reg=0.1).predict_path(x)


@pytest.mark.usefixtures("x64")
@SIZES
@pytest.mark.parametrize("keep_features", [False, True])
def test_refit_is_the_regression_of_all(make_map, make_data, n, keep_features):
    """Chosen by the examples held out, fitted with them."""
    feature_map = make_map(dtype=np.float64)
    (x, y), (x_val, y_val) = make_data(n, np.float64), make_data(13, np.float64, seed=1)
    options = {"diag_reg": VALUES, "select": (x_val, y_val), "batch_size": 8}
    chosen, count = ridge(feature_map, x, y, **options), Counter()
    again = ridge(
        feature_map, x, y, **options, refit=True, keep_features=keep_features, progress=count
    )
    np.testing.assert_allclose(again.scores, chosen.scores, rtol=1e-9)
    assert again.diag_reg == chosen.diag_reg
    assert again.n_examples == n + 13
    assert count.examples == n + (13 if keep_features else 26)
    whole = ridge(
        feature_map, np.concatenate([x, x_val]), np.concatenate([y, y_val]), diag_reg=VALUES
    )
    np.testing.assert_allclose(again.path_weights, whole.path_weights, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("x64")
@SIZES
def test_a_share_held_out(make_map, make_data, n):
    """As by hand; copies of an example are on one side."""
    feature_map = make_map(dtype=np.float64)
    x, y = make_data(n, np.float64)
    groups = np.random.default_rng(0).permutation(np.arange(n) // 3) - 7
    held_out = HoldOut(0.3, key=KEY)
    order, validation = held_out.split(x, y, groups)
    assert isinstance(validation, Validation)
    out = np.setdiff1d(np.arange(n), order)
    np.testing.assert_array_equal(validation.x, x[out])
    assert not set(groups[order]) & set(groups[out])
    assert len(set(groups[out])) == round(0.3 * len(set(groups)))
    options = {"diag_reg": VALUES, "batch_size": 8}
    found = ridge(feature_map, x, y, select=held_out, groups=groups, **options)
    by_hand = ridge(feature_map, x[order], y[order], select=(x[out], y[out]), **options)
    np.testing.assert_allclose(found.scores, by_hand.scores, rtol=1e-9)
    np.testing.assert_allclose(found.path_weights, by_hand.path_weights, rtol=1e-9)
    again = ridge(feature_map, x, y, select=held_out, groups=groups, refit=True, **options)
    whole = ridge(feature_map, x, y, **options)
    np.testing.assert_allclose(again.path_weights, whole.path_weights, rtol=1e-7, atol=1e-9)


def test_shares_differ_by_key(make_data):
    x, y = make_data(40)
    first, second = (HoldOut(key=jax.random.key(i)).split(x, y, None)[0] for i in range(2))
    assert len(first) == len(second) == 32
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_kept_features_serve_leave_one_out(make_map, make_data, fit_intercept):
    x, y = make_data(60)
    options = {"diag_reg": VALUES, "select": "loo", "batch_size": 8}
    options["fit_intercept"] = fit_intercept
    again, once = Counter(), Counter()
    computed = ridge(make_map(), x, y, progress=again, **options)
    kept = ridge(make_map(), x, y, progress=once, keep_features=True, **options)
    np.testing.assert_allclose(kept.scores, computed.scores, rtol=1e-5)
    assert (again.examples, once.examples) == (120, 60)


@pytest.mark.parametrize("keep_features", [False, True])
def test_a_sample_is_kept_as_it_goes_by(make_map, make_data, keep_features):
    x, y = make_data(60)
    select = LeaveOneOut(x, y, sample=7, key=KEY)
    options = {"diag_reg": [1.0, 3.0], "extend_path": True, "batch_size": 8}
    again, count = Counter(), Counter()
    computed = ridge(make_map(), x, y, progress=again, select=select, **options)
    kept = ridge(
        make_map(), x, y, progress=count, select=select, keep_features=keep_features, **options
    )
    passes = len(kept.scores) - 1  # those of the path given, and each that it goes on by
    assert passes > 1
    np.testing.assert_allclose(kept.scores, computed.scores, rtol=1e-5)
    assert again.examples == 60 + 7 * passes
    assert count.examples == (60 if keep_features else again.examples)


def test_every_pass_reports(make_map, make_data):
    x, y = make_data(30)
    for run in (
        lambda progress: ridge(make_map(), x, y, batch_size=8, progress=progress),
        lambda progress: accumulate(make_map(), x, y, batch_size=8, progress=progress),
        lambda progress: list(stream(make_map(), x, batch_size=8, progress=progress)),
        lambda progress: ridge(make_map(), x, y).predict(x, progress=progress),
    ):
        count = Counter()
        run(count)
        assert count.examples == 30


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"),
    [(None, False, False), (True, False, True), (False, True, False), (True, True, True)],
)
def test_bars(make_map, make_data, progress, terminal, shown, monkeypatch, capsys):
    x, y = make_data(30)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    ridge(make_map(), x, y, batch_size=8, progress=progress)
    printed = capsys.readouterr().err
    assert ("features" in printed) == shown
    assert ("30/30" in printed) == shown


def test_on_a_terminal_only_what_takes_long_has_a_bar(make_map, make_data, monkeypatch, capsys):
    """A bar appears after a second, with the rate and the time left."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    x, y = make_data(30)
    ridge(make_map(), x, y, batch_size=8, progress=False)  # compiles
    ridge(make_map(), x, y, batch_size=8)
    assert not capsys.readouterr().err
    with reporting(None, 10, "features") as report:
        report(3)
        time.sleep(1.1)
        report(7)
    printed = capsys.readouterr().err
    assert "features" in printed
    assert "examples/s" in printed


class OfLandmarks:
    """A map that says which examples it was made from."""

    def __init__(self, feature_map, landmarks):
        self.feature_map, self.own = feature_map, landmarks

    def __call__(self, x):
        return self.feature_map(x)

    def is_landmark(self, x):
        return np.isin(np.asarray(x)[:, 0], self.own[:, 0])


def test_landmarks_are_not_held_out(make_map, make_data):
    x, y = make_data(40)
    feature_map = OfLandmarks(make_map(), x[:30])
    held_out = HoldOut(0.5, key=KEY)
    order, validation = held_out.split(x, y, None, feature_map.is_landmark(x))
    assert set(range(30)) <= set(order)
    assert len(validation.x) == 10  # all that there are
    solution = ridge(feature_map, x, y, diag_reg=VALUES, select=held_out)
    assert solution.n_examples == 30
    # Where an example is in a group with a landmark, neither is held out.
    groups = np.arange(40) % 35
    order, _ = held_out.split(x, y, groups, feature_map.is_landmark(x))
    assert set(groups[:30]) <= set(groups[order])
    with pytest.raises(ValueError, match=r"every example .* is a landmark"):
        ridge(OfLandmarks(make_map(), x), x, y, diag_reg=VALUES, select=held_out)


def test_groups_that_all_have_a_landmark(make_map, make_data):
    """None is left to estimate an error from: all count, with a warning, and no error of rank."""
    x, y = make_data(60)
    feature_map = OfLandmarks(make_map(), x[::2])
    groups = np.arange(60) // 2
    with pytest.warns(RuntimeWarning, match="or in a group with one"):
        solution = ridge(feature_map, x, y, diag_reg=VALUES, select="loo", groups=groups)
    assert np.isfinite(solution.scores).all()


def test_one_example_left_and_an_intercept(make_map, make_data):
    x, y = make_data(3)
    with pytest.raises(ValueError, match="at least two examples"):
        ridge(make_map(), x, y, select=HoldOut(0.8, key=KEY), fit_intercept=True)


def test_gcv_without_landmarks_is_one_pass(make_map, make_data):
    x, y = make_data(60)
    count = Counter()
    ridge(make_map(), x, y, diag_reg=VALUES, select="gcv", batch_size=8, progress=count)
    assert count.examples == 60


def test_features_are_kept_for_a_selector_of_the_same_examples(make_map, make_data):
    x, y = make_data(60)
    count, select = Counter(), LeaveOneOut(x.tolist(), y)
    options = {"keep_features": True, "progress": count, "batch_size": 8}
    ridge(make_map(), x.astype(np.float64), y, diag_reg=VALUES, select=select, **options)
    assert count.examples == 60


@pytest.mark.parametrize("progress", [0, 1, "yes", np.array([1, 2])])
def test_what_progress_is_not(make_map, make_data, progress):
    x, y = make_data(30)
    with pytest.raises(TypeError, match="needed: True, False, None"):
        ridge(make_map(), x, y, progress=progress)
