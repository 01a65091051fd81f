"""Estimators: scikit-learn's own checks, and agreement with the library's functions."""

import importlib
import importlib.util
import pickle

import counting
import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.interop.sklearn import NTKClassifier, NTKFeatures, NTKRegressor, _learning, _ridge
from ntk_sketch.interop.sklearn._posterior import Posterior, Sample
from ntk_sketch.numerics._precision import float64
from ntk_sketch.solvers import GramState

SMALL = {"n_components": 8, "depth": 1, "random_state": 0}
RIDGE = {"n_components": 50, "depth": 1, "random_state": 0, "alpha": 0.01}
CHECKED = [NTKFeatures(**SMALL), NTKRegressor(**RIDGE), NTKClassifier(**RIDGE)]


def not_for(estimator):
    if not isinstance(estimator, NTKClassifier):
        return {}
    equivalence = [
        f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")
    ]
    why = "their scale is from leave-one-out errors: of a row of weight two, not of one of two rows"
    return dict.fromkeys(equivalence, f"probabilities: {why}") | {
        "check_decision_proba_consistency": "probabilities are nearer one half where less is known"
    }


#: Of the tables of ten rows that scikit-learn tries.
FEW_ROWS = "ignore:Fewer features than the width asks for:UserWarning"


@parametrize_with_checks(CHECKED[:2], expected_failed_checks=not_for)
@pytest.mark.filterwarnings(FEW_ROWS)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(CHECKED[2:], expected_failed_checks=not_for)
@pytest.mark.filterwarnings(FEW_ROWS)
def test_checks_of_classifiers(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3))
    return x, np.abs(x).sum(1) + 0.1 * rng.normal(size=240)


@pytest.fixture(scope="module")
def fitted(table):
    x, y = table
    return NTKRegressor(40, random_state=0).fit(x[:200], y[:200])


@pytest.mark.parametrize("kernel", [pytest.param("ntk", marks=pytest.mark.slow), "nngp"])
def test_with_all_rows_as_landmarks_the_kernel_is_exact(table, kernel):
    x, y = table
    hidden = [stax.Dense(1, 1.3, 0.2), stax.Erf()]
    model = stax.serial(*hidden, *hidden, stax.Dense(1, 1.3, 0.2))
    y = y - y[:60].mean()
    alpha = 1e-3
    ours = NTKRegressor(
        60, alpha=alpha, fit_intercept=False, activation="erf", W_std=1.3, b_std=0.2, kernel=kernel
    ).fit(x[:60], y[:60])
    with float64():
        k = np.asarray(model[2](x[:60], None, kernel))
        k_test = np.asarray(model[2](x[60:], x[:60], kernel))
    theirs = KernelRidge(alpha=alpha * np.trace(k) / 60, kernel="precomputed").fit(k, y[:60])
    np.testing.assert_allclose(ours.predict(x[60:]), theirs.predict(k_test), rtol=1e-5, atol=1e-6)


def test_a_grid_of_alpha_computes_features_once(table, monkeypatch):
    x, y = table
    calls, accumulate = [], _ridge.accumulate

    def counting_calls(*args, **kwargs):
        calls.append(1)
        return accumulate(*args, **kwargs)

    monkeypatch.setattr(_ridge, "accumulate", counting_calls)
    _ridge.recent.clear()
    model = NTKRegressor(random_state=0, **{k: RIDGE[k] for k in ("n_components", "depth")})
    search = GridSearchCV(model, {"alpha": [1e-4, 1e-3, 1e-2]}, cv=2, refit=False).fit(x, y)
    assert len(calls) == 2
    assert len(set(search.cv_results_["mean_test_score"])) == 3


def test_a_second_problem_of_equal_shape_compiles_nothing(table):
    x, y = table
    NTKRegressor(40, random_state=0).fit(x[:200], y[:200]).predict(x)
    with counting.compiled() as programs:
        other = NTKRegressor(40, random_state=7).fit(x[40:], 3 * y[40:] + 1)
        other.predict(x)
    assert programs.count == 0


def test_predictive_deviations_are_those_of_errors(table, fitted):
    x, y = table
    mean, std = fitted.predict(x[200:], return_std=True)
    assert mean.shape == std.shape == (40,)
    z = (y[200:] - mean) / std
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.6
    far = fitted.predict(50 * x[200:], return_std=True)[1]
    assert far.min() > 3 * std.max()  # where there are no examples


def test_variances_of_weighted_rows():
    """Scaled by the errors of rows that are left out with their weights, by refitting."""
    rng = np.random.default_rng(0)
    z, y, weights = rng.normal(size=(25, 4)), rng.normal(size=(25, 2)), rng.uniform(0.5, 6, 25)
    missing, penalty = rng.uniform(0.1, 1, 25), 0.7

    def fitted(keep):
        z_mean, y_mean = (np.average(part[keep], 0, weights[keep]) for part in (z, y))
        weighted = (weights[keep, None] * (z[keep] - z_mean)).T
        inverse = np.linalg.inv(weighted @ (z[keep] - z_mean) + penalty * np.eye(4))
        return z_mean, y_mean, inverse, inverse @ weighted @ (y[keep] - y_mean)

    scale = 0.0
    for i in range(25):
        keep = np.arange(25) != i
        z_mean, y_mean, inverse, w = fitted(keep)
        row = z[i] - z_mean
        error = y[i] - y_mean - row @ w
        leverage = row @ inverse @ row + 1 / weights[keep].sum()  # of a row that is not fitted
        said = penalty / weights[i] + penalty * leverage + missing[i]
        scale = scale + error**2 / said / 25
    state = GramState.init(4, 2).update(z, y, sample_weight=weights)
    posterior = Posterior(state, penalty, True, Sample(z, missing, y, weights))
    z_mean, _, inverse, _ = fitted(np.full(25, True))
    leverages = np.einsum("ni,ij,nj->n", z - z_mean, inverse, z - z_mean) + 1 / weights.sum()
    expected = (penalty * (1 + leverages) + missing)[:, None] * scale
    np.testing.assert_allclose(posterior.variances(z, missing), expected, rtol=1e-4)


def test_labels_and_probabilities(table):
    x, _ = table
    y = np.array(["one", "two", "three"])[np.argmax(x, axis=1)]
    model = NTKClassifier(40, random_state=0).fit(x[:200], y[:200])
    assert model.score(x[200:], y[200:]) > 0.8
    p = model.predict_proba(x[200:])
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.classes_[p.argmax(1)], model.predict(x[200:]))
    index = np.searchsorted(model.classes_, y[200:])
    assert -np.log(p[np.arange(40), index]).mean() < 0.6  # of guessing: 1.1
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))


def test_parts_are_the_whole(table):
    x, y = table
    whole = NTKRegressor(30, random_state=0, alpha=1e-3)
    whole.fit(x[:100], y[:100])
    parts = clone(whole).partial_fit(x[:100], y[:100]).partial_fit(x[100:], y[100:])
    np.testing.assert_array_equal(parts.feature_map_(x).ntk, whole.feature_map_(x).ntk)
    assert int(parts.statistics_.n_examples) == len(x)
    error, before = (np.mean((m.predict(x[100:]) - y[100:]) ** 2) for m in (parts, whole))
    assert error < before
    with pytest.raises(ValueError, match="all rows at once"):
        parts.set_params(alpha="loo").partial_fit(x, y)


def test_tables_of_other_libraries(table, fitted):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    x, y = table
    names = ["a", "b", "c"]
    for frame in (pandas.DataFrame(x, columns=names), polars.DataFrame(x, schema=names)):
        model = NTKRegressor(40, random_state=0).fit(frame[:200], y[:200])
        assert list(model.feature_names_in_) == names
        np.testing.assert_array_equal(model.predict(frame), fitted.predict(x))
    features = NTKFeatures(5, random_state=0).set_output(transform="pandas")
    z = features.fit_transform(pandas.DataFrame(x, columns=names))
    assert list(z.columns) == [f"ntkfeatures{i}" for i in range(5)]


def test_sparse_rows_become_dense_in_parts(table, fitted, monkeypatch):
    from ntk_sketch.interop.sklearn import _rows

    monkeypatch.setattr(_rows, "_DENSE", 150)  # 50 rows
    x, y = table
    sparse = scipy.sparse.csr_array(x)
    for alpha in ("gcv", "loo"):
        model = NTKRegressor(40, random_state=0, alpha=alpha).fit(sparse[:200], y[:200])
        dense = NTKRegressor(40, random_state=0, alpha=alpha).fit(x[:200], y[:200])
        assert model.alpha_ == dense.alpha_
        np.testing.assert_allclose(model.predict(sparse), dense.predict(x), rtol=1e-6)


def test_digits_of_the_input_are_kept(table):
    x, y = table
    wide = NTKRegressor(40, random_state=0, alpha=1e-3).fit(x, y)
    narrow = clone(wide).fit(x.astype(np.float32), y)
    assert wide.predict(x).dtype == np.float64
    assert narrow.predict(x.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(narrow.predict(x.astype(np.float32)), wide.predict(x), atol=1e-3)


def test_images_and_models_of_ones_own():
    x, y = load_digits(return_X_y=True)
    x = x / 16
    convolutional = NTKClassifier(
        64, method=ns.Nystroem(64), image_shape=(8, 8, 1), depth=1, random_state=0
    )
    assert convolutional.fit(x[:400], y[:400]).score(x[400:800], y[400:800]) > 0.9
    model = stax.serial(stax.Dense(1), stax.Gelu(), stax.Dense(1))
    own = make_pipeline(StandardScaler(), NTKClassifier(300, model=model, random_state=0))
    assert own.fit(x[:400], y[:400]).score(x[400:800], y[400:800]) > 0.85


def test_the_default_width_of_a_small_table_is_its_rows(table):
    """Warnings would be errors. A width that was asked for and is not there is told."""
    x, y = table
    for rows in (17, 40):
        assert NTKRegressor(depth=1).fit(x[:rows], y[:rows]).feature_map_.n_features["ntk"] == rows
    with pytest.warns(UserWarning, match="width 41 asked for, 40 used"):
        NTKRegressor(41, depth=1).fit(x[:40], y[:40])
    twice = NTKRegressor(depth=1).fit(x[[0, *range(20)]], y[[0, *range(20)]])
    assert twice.feature_map_.n_features["ntk"] == 20
    with pytest.warns(UserWarning, match="width 1024 asked for, 20 used"):  # more may come
        NTKRegressor(depth=1).partial_fit(x[:20], y[:20])
    random = NTKRegressor(depth=1, method="random_features").fit(x[:40], y[:40])
    assert random.feature_map_.n_features["ntk"] > 1024


@pytest.mark.parametrize("extra", ["sklearn", "flax"])
def test_without_the_library(extra, monkeypatch):
    module = importlib.import_module(f"ntk_sketch.interop.{extra}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = rf'interop\.{extra} needs {extra}, which is not installed: pip install "ntk-sketch\['
    with pytest.raises(ModuleNotFoundError, match=message):
        importlib.reload(module)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": "aic"}, "alpha must be one of gcv, loo"),
        ({"alpha": -1.0}, "alpha=-1.0; every value must be finite and >= 0"),
        ({"alpha": [0.1, np.nan]}, "alpha=.*finite and >= 0"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"activation": stax.Relu()}, "what makes a layer"),
        ({"method": "magic"}, "method must be one of"),
        ({"method": 3}, "a method of ntk_sketch"),
        ({"n_components": 0}, "n_components must be a positive integer"),
        ({"depth": 1.5}, "depth must be a positive integer"),
        ({"image_shape": (2, 2, 1)}, "rows have 3 columns"),
        ({"kernel": "rbf"}, "get"),
    ],
)
def test_bad_parameters(table, parameters, message):
    x, y = table
    with pytest.raises((TypeError, ValueError), match=message):
        NTKRegressor(**(RIDGE | parameters)).fit(x, y)


def test_classes_that_do_not_do(table):
    x, _ = table
    with pytest.raises(ValueError, match="at least two classes"):
        NTKClassifier(**RIDGE).fit(x, ["a"] * len(x))
    with pytest.raises(ValueError, match="classes="):
        NTKClassifier(**RIDGE).partial_fit(x, [0, 1] * 120)
    with pytest.raises(ValueError, match="not among"):
        NTKClassifier(**RIDGE).partial_fit(x, [0, 2] * 120, classes=[0, 1])


@pytest.mark.filterwarnings("ignore:Fewer features")
def test_weights_are_repeated_rows(table):
    x, y = table
    weights = np.random.default_rng(1).integers(0, 3, 60).astype(float)
    index = np.repeat(np.arange(60), weights.astype(int))
    for estimator, target in ((NTKRegressor, y), (NTKClassifier, x[:, 0] > 0)):
        weighted = estimator(**RIDGE | {"n_components": 60})
        repeated = clone(weighted).fit(x[index], target[index])
        weighted.fit(x[:60], target[:60], weights)
        ours, theirs = weighted.solution_, repeated.solution_
        with float64():
            np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        NTKRegressor(**RIDGE).fit(x, y, np.linspace(-1, 1, len(x)))


@pytest.mark.parametrize("relevance", [pytest.param("diagonal", marks=pytest.mark.slow), "full"])
def test_feature_learning_finds_the_columns_that_matter(relevance):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 10))
    y = np.sin(2 * x[:, 0]) * x[:, 1]
    options = {"n_components": 150, "depth": 1, "random_state": 0, "relevance": relevance}
    plain, learned = (
        NTKRegressor(feature_learning=rounds, **options).fit(x[:400], y[:400]) for rounds in (0, 3)
    )
    assert learned.score(x[400:], y[400:]) > plain.score(x[400:], y[400:]) + 0.1
    root = learned.feature_map_.views.preprocess.root
    matrix = np.diag(root**2) if relevance == "diagonal" else root @ root
    assert np.diagonal(matrix)[:2].min() > 5 * np.diagonal(matrix)[2:].max()


def test_relevances_are_outer_products_of_gradients(table):
    x, y = table
    model = NTKRegressor(**RIDGE).fit(x, y)
    step, gradients = 1e-5, []
    for column in np.eye(3):
        difference = model.predict(x + step * column) - model.predict(x - step * column)
        gradients.append(difference / (2 * step))
    g = np.stack(gradients, axis=1)
    expected = g.T @ g / np.mean(np.sum(g**2, axis=0))
    with float64():
        full = _learning.relevance_root(model.solution_, x, "full")
        diagonal = _learning.relevance_root(model.solution_, x, "diagonal")
    np.testing.assert_allclose(full @ full, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(diagonal**2, np.diagonal(expected), rtol=1e-5)


def test_feature_learning_stops_where_held_out_rows_lose(table, monkeypatch):
    x, y = table
    plain = NTKRegressor(**RIDGE).fit(x, y)
    model = NTKRegressor(feature_learning=5, **RIDGE)
    rounds = []

    def harmful(*_):
        rounds.append(1)
        return np.array([1.0, 0.01, 0.01])

    monkeypatch.setattr(_ridge, "relevance_root", harmful)
    np.testing.assert_array_equal(model.fit(x, y).predict(x), plain.predict(x))
    assert len(rounds) == 1
    with pytest.raises(ValueError, match="not available with image_shape"):
        clone(model).set_params(image_shape=(3, 1, 1)).fit(x, y)
    with pytest.raises(ValueError, match="relevance must be one of"):
        clone(model).set_params(relevance="all").fit(x, y)
