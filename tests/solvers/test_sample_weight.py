"""Regressions with weights of the examples, against copies of them, refitting and scikit-learn."""

import re
import warnings

import jax
import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from ntk_sketch.solvers import (
    GCV,
    GramState,
    HoldOut,
    LeaveOneOut,
    Validation,
    _examples,
    _sums,
    accumulate,
    ridge,
    solve,
)

VALUES = [1e-3, 1e-1]
SIZES = pytest.mark.parametrize("n", [15, 60], ids=["dual", "primal"])
INTERCEPT = pytest.mark.parametrize("fit_intercept", [False, True])
RTOL = 1e-9  # float64; conditions here are below 1e5


def _weights(n, seed=4):
    """Some of them 0."""
    weights = np.random.default_rng(seed).uniform(0.2, 3, size=n)
    weights[[2, n - 3]] = 0
    return weights


def _close(one, other, rtol=RTOL):
    np.testing.assert_allclose(one.weights, other.weights, rtol=0, atol=rtol)
    if one.intercept is not None:
        np.testing.assert_allclose(one.intercept, other.intercept, rtol=0, atol=rtol)


def _same(one, other):
    for name in ("weights", "intercept", "scores", "path_weights"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs)
    assert one.fits == other.fits


@SIZES
@pytest.mark.parametrize("on_host", [True, False])
def test_weights_of_one_are_none(make_map, make_data, monkeypatch, n, on_host):
    monkeypatch.setattr(_sums, "_on_host", lambda: on_host)
    feature_map, (x, y), other = make_map(), make_data(n), make_data(20, seed=2)
    y, ones = y + 3, np.ones(n)
    held = HoldOut(0.3, key=jax.random.key(0))
    for select, weighted in [
        ("loo", "loo"),
        ("gcv", "gcv"),
        (held, held),
        (other, (*other, np.ones(20))),
    ]:
        options = {"diag_reg": VALUES, "fit_intercept": True, "batch_size": 8}
        without = ridge(feature_map, x, y, select=select, **options)
        _same(ridge(feature_map, x, y, select=weighted, sample_weight=ones, **options), without)


@pytest.mark.usefixtures("x64")
@SIZES
@INTERCEPT
@pytest.mark.parametrize("on_host", [True, False])
def test_scikit_learn(make_map, make_data, monkeypatch, n, fit_intercept, on_host):
    """Weights that are integers, with zeros, and of any scale; λ relative to the weighted norm."""
    monkeypatch.setattr(_sums, "_on_host", lambda: on_host)
    feature_map, (x, y) = make_map(6, 20, np.float64), make_data(n, np.float64)
    y = y + fit_intercept * np.array([5.0, -100.0, 0.0])
    z = np.asarray(feature_map(x).ntk)
    for weights in (_weights(n), np.arange(n) % 4, 1e-6 * _weights(n)):
        scale = weights @ np.sum(z**2, axis=1) / weights.sum()
        options = {"fit_intercept": fit_intercept, "sample_weight": weights, "batch_size": 8}
        ours = ridge(feature_map, x, y, diag_reg=0.1, **options)
        theirs = Ridge(alpha=0.1 * scale, fit_intercept=fit_intercept).fit(z, y, weights)
        np.testing.assert_allclose(ours.weights, theirs.coef_.T, rtol=0, atol=1e-9)
        assert ours.n_examples == np.sum(weights > 0)
        if fit_intercept:
            np.testing.assert_allclose(ours.intercept, theirs.intercept_, rtol=0, atol=1e-9)
            continue
        kernel = KernelRidge(alpha=0.1 * scale, kernel="linear").fit(z, y, weights)
        np.testing.assert_allclose(ours.predict(x), kernel.predict(z), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [9, 60])
@INTERCEPT
def test_integers_are_copies(make_map, make_data, n, fit_intercept):
    """An example of weight 2 is left out with both copies of it."""
    feature_map, (x, y) = make_map(6, 20, np.float64), make_data(n, np.float64)
    times = np.arange(n) % 3
    copies = np.repeat(np.arange(n), times)
    options = {"diag_reg": VALUES, "fit_intercept": fit_intercept, "batch_size": 8}
    options |= {"select": "loo"}
    ours = ridge(feature_map, x, y, sample_weight=times, **options)
    theirs = ridge(feature_map, x[copies], y[copies], groups=copies, **options)
    _close(ours, theirs)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=RTOL)
    assert [fit.penalty for fit in ours.fits] == pytest.approx([fit.penalty for fit in theirs.fits])


def _refit(z, y, weights, penalty, keep, fit_intercept):
    return Ridge(alpha=penalty, fit_intercept=fit_intercept, solver="cholesky").fit(
        z[keep], y[keep], weights[keep]
    )


@pytest.mark.usefixtures("x64")
@SIZES
@INTERCEPT
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("loss", ["squared", "zero_one"])
def test_leave_one_out_is_refitting(make_map, make_data, n, fit_intercept, grouped, loss):
    feature_map, (x, y) = make_map(6, 20, np.float64), make_data(n, np.float64)
    weights, groups = _weights(n), np.arange(n) // (2 if grouped else 1)
    select = LeaveOneOut(x, y, groups if grouped else None, loss=loss, sample_weight=weights)
    options = {"diag_reg": VALUES, "fit_intercept": fit_intercept, "batch_size": 8}
    solution = ridge(feature_map, x, y, sample_weight=weights, select=select, **options)
    z = np.asarray(feature_map(x).ntk)
    for one, score in zip(solution.path, solution.scores, strict=True):
        total = 0.0
        for group in np.unique(groups):
            out = groups == group
            fitted = _refit(z, y, weights, one.penalty, ~out, fit_intercept)
            predicted = fitted.predict(z[out])
            losses = np.mean((predicted - y[out]) ** 2, axis=1)
            if loss == "zero_one":
                losses = predicted.argmax(axis=1) != y[out].argmax(axis=1)
            total += np.sum(weights[out] * losses)
        assert score == pytest.approx(total / weights.sum(), rel=RTOL)


@pytest.mark.usefixtures("x64")
@SIZES
@INTERCEPT
def test_generalised_cross_validation_is_its_definition(make_map, make_data, n, fit_intercept):
    """Also for weights that are larger all together, with a regulariser that is."""
    feature_map, (x, y) = make_map(6, 20, np.float64), make_data(n, np.float64)
    weights = _weights(n)
    options = {"fit_intercept": fit_intercept, "select": "gcv", "batch_size": 8}
    solution = ridge(feature_map, x, y, sample_weight=weights, diag_reg=VALUES, **options)
    root, real = np.sqrt(weights), weights > 0
    z, t = root[:, None] * np.asarray(feature_map(x).ntk), root[:, None] * y
    centring = np.eye(n) - fit_intercept * np.outer(root, root) / weights.sum()
    z = centring @ z
    for one, score in zip(solution.path, solution.scores, strict=True):
        complement = centring - z @ np.linalg.solve(z.T @ z + one.penalty * np.eye(20), z.T)
        share = np.trace(complement[np.ix_(real, real)]) / real.sum()
        expected = np.sum((complement @ t) ** 2) / weights.sum() / 3 / share**2
        assert score == pytest.approx(expected, rel=RTOL)
    larger = [100 * value for value in VALUES]
    scaled = ridge(feature_map, x, y, sample_weight=100 * weights, diag_reg=larger, **options)
    np.testing.assert_allclose(scaled.scores, solution.scores, rtol=RTOL)
    _close(scaled, solution)


class _Landmarks:
    """A map that has seen every fifth example."""

    def __init__(self, feature_map, x):
        self._map, self._seen = feature_map, x[::5]

    def __call__(self, x):
        return self._map(x)

    def is_landmark(self, x):
        return np.isin(np.asarray(x)[:, 0], self._seen[:, 0])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [50, 90], ids=["dual", "primal"])
@INTERCEPT
def test_landmarks_do_not_count(make_map, make_data, n, fit_intercept):
    (x, y), weights = make_data(n, np.float64), _weights(n)
    weights[5] = 0  # of a landmark
    feature_map = _Landmarks(make_map(6, 60, np.float64), x)
    options = {"diag_reg": VALUES, "fit_intercept": fit_intercept}
    z, counts = np.asarray(feature_map(x).ntk), ~feature_map.is_landmark(x) & (weights > 0)
    loo = ridge(feature_map, x, y, sample_weight=weights, select="loo", **options)
    gcv = ridge(feature_map, x, y, sample_weight=weights, select="gcv", **options)
    root = np.sqrt(weights)[:, None]
    centred = z - fit_intercept * (weights @ z) / weights.sum()
    for one, by_loo, by_gcv in zip(loo.path, loo.scores, gcv.scores, strict=True):
        hat = (root * centred) @ np.linalg.solve(
            (weights[:, None] * centred).T @ centred + one.penalty * np.eye(60),
            (root * centred).T,
        )
        hat += fit_intercept * (root @ root.T) / weights.sum()
        complement, share = np.eye(n) - hat, 1 - np.diag(hat)[counts]
        left = (complement @ (root * y))[counts]
        total = 3 * weights[counts].sum()
        assert by_loo == pytest.approx(np.sum((left / share[:, None]) ** 2) / total, rel=RTOL)
        assert by_gcv == pytest.approx(np.sum(left**2) / share.mean() ** 2 / total, rel=RTOL)
    batches = lambda: ((x[i : i + 20], y[i : i + 20], weights[i : i + 20]) for i in range(0, n, 20))  # noqa: E731
    for select, arrays in (("loo", loo), ("gcv", gcv)):
        found = ridge(feature_map, batches, select=select, **options)
        np.testing.assert_allclose(found.scores, arrays.scores, rtol=RTOL)
        _close(found, arrays)
    state = accumulate(feature_map, x, y, sample_weight=weights)
    options |= {"select": GCV(x, y, weights)}
    np.testing.assert_allclose(solve(feature_map, state, **options).scores, gcv.scores, rtol=RTOL)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("select", ["loo", "gcv"])
def test_landmarks_of_weight_0_are_not_missed(make_map, make_data, select):
    """The 40 other examples are enough to estimate an error from, without a warning."""
    (x, y), weights = make_data(50, np.float64), np.ones(50)
    weights[::5] = 0  # those that the map has seen
    others, small = weights > 0, make_map(6, 20, np.float64)
    options = {"diag_reg": VALUES, "select": select}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ridge(_Landmarks(small, x), x, y, sample_weight=weights, **options)
    alone = ridge(small, x[others], y[others], **options)
    np.testing.assert_allclose(found.scores, alone.scores, rtol=RTOL)


@pytest.mark.usefixtures("x64")
def test_a_batch_may_have_tiny_weights_alone(make_map, make_data):
    """They are refused only where all are tiny, whose sums would not be numbers of float32."""
    (x, y), weights = make_data(40, np.float64), np.repeat([1e-14, 1.0], 20)
    batches = [(x[s], y[s], weights[s]) for s in (slice(0, 20), slice(20, 40))]
    found = ridge(make_map(6, 20, np.float64), batches, diag_reg=0.1)
    _close(found, ridge(make_map(6, 20, np.float64), x, y, sample_weight=weights, diag_reg=0.1))
    with pytest.raises(ValueError, match="outside of 1e-12"):
        ridge(make_map(6, 20, np.float64), batches[:1], diag_reg=0.1)


@pytest.mark.usefixtures("x64")
@INTERCEPT
def test_one_factor_for_each_regulariser(make_map, make_data, monkeypatch, fit_intercept):
    """As all eigenvalues, which other sizes take."""
    (x, y), weights = make_data(60, np.float64), _weights(60)
    feature_map = make_map(6, 20, np.float64)
    options = {"diag_reg": VALUES, "fit_intercept": fit_intercept, "sample_weight": weights}
    for select in (
        "gcv",
        LeaveOneOut(x, y, sample=9, key=jax.random.key(0), sample_weight=weights),
    ):
        by_spectrum = ridge(feature_map, x, y, select=select, **options)
        with monkeypatch.context() as patch:
            patch.setattr(_examples, "FACTORED_PATH", 1)
            by_factors = ridge(feature_map, x, y, select=select, **options)
        np.testing.assert_allclose(by_factors.scores, by_spectrum.scores, rtol=RTOL)
        _close(by_factors, by_spectrum)


@pytest.mark.usefixtures("x64")
def test_examples_held_out_are_weighed(make_map, make_data):
    feature_map, (x, y) = make_map(6, 20, np.float64), make_data(60, np.float64)
    weights, (x_val, y_val) = _weights(60), make_data(31, np.float64, seed=5)
    w_val = _weights(31, seed=6)
    select = (x_val, y_val, w_val)
    options = {"diag_reg": VALUES, "batch_size": 8}
    found = ridge(feature_map, x, y, select=select, sample_weight=weights, **options)
    errors = [
        np.average(np.mean((one.predict(x_val) - y_val) ** 2, axis=1), weights=w_val)
        for one in found.path
    ]
    np.testing.assert_allclose(found.scores, errors, rtol=RTOL)
    refit = ridge(feature_map, x, y, select=select, refit=True, sample_weight=weights, **options)
    whole = [np.concatenate(pair) for pair in ((x, x_val), (y, y_val), (weights, w_val))]
    once = ridge(feature_map, *whole[:2], diag_reg=VALUES, sample_weight=whole[2])
    _close(refit, once.path[refit.chosen])
    held = HoldOut(0.4, key=jax.random.key(0))
    for n, data in [(60, (x, y)), (15, (x[:15], y[:15]))]:
        both = ridge(feature_map, *data, select=held, sample_weight=weights[:n], **options)
        order, validation = held.split(*data, sample_weight=weights[:n])
        hand = ridge(
            feature_map,
            *(a[order] for a in data),
            select=validation,
            sample_weight=weights[:n][order],
            **options,
        )
        _close(both, hand)
        np.testing.assert_allclose(both.scores, hand.scores, rtol=RTOL)


@pytest.mark.parametrize("on_host", [True, False])
def test_batches_and_checkpoints(make_map, make_data, monkeypatch, tmp_path, on_host):
    """The bits of an undisturbed run; and a run without weights, or with others, is another."""
    monkeypatch.setattr(_sums, "_on_host", lambda: on_host)
    feature_map, (x, y), weights = make_map(), make_data(5000), _weights(5000)
    path = tmp_path / "run"
    options = {"batch_size": 64, "sample_weight": weights}
    undisturbed = accumulate(feature_map, x, y, **options)
    seen = []

    def stop(count):
        seen.append(count)
        if sum(seen) > 4200:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        accumulate(feature_map, x, y, checkpoint=path, progress=stop, **options)
    others = weights.copy()
    others[0] = 7
    for wrong, message in [(None, "sample weights: given there, none here"), (others, "0 to 63")]:
        with pytest.raises(ValueError, match=message):
            accumulate(feature_map, x, y, checkpoint=path, batch_size=64, sample_weight=wrong)
    resumed = accumulate(feature_map, x, y, checkpoint=path, **options)
    assert resumed.weighted
    ours, theirs = (jax.tree.leaves(state) for state in (resumed, undisturbed))
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(a, b)

    def batches():
        for i in range(0, 5000, 300):
            yield x[i : i + 300], y[i : i + 300], weights[i : i + 300]

    found = accumulate(feature_map, batches, batch_size=64)
    one, other = (solve(feature_map, state, diag_reg=0.1) for state in (found, undisturbed))
    np.testing.assert_allclose(one.weights, other.weights, rtol=0, atol=1e-5)
    assert found.n_examples == undisturbed.n_examples == 4998
    np.testing.assert_array_equal(one.predict(batches), one.predict(x))


def test_states(make_map, make_data):
    """Padded rows, a merge of parts with and without weights, and what jax.jit makes of it."""
    (x, y), weights = make_data(80), _weights(50)
    z = np.asarray(make_map()(x).ntk)
    empty = GramState.init(20, 3)
    padded = [np.pad(a[:50], ((0, 14),) + ((0, 0),) * (a.ndim - 1)) for a in (z, y)]
    more = np.append(weights, np.full(14, 9.0))  # of rows that are not there
    first = empty.update(*padded, 50, sample_weight=more)
    jitted = jax.jit(lambda s, *a: s.update(*a[:2], 50, sample_weight=a[2]))(empty, *padded, more)
    state = first.merge(empty.update(z[50:], y[50:]))
    assert first.weighted
    assert jitted.weighted
    assert state.weighted
    assert int(state.n_examples) == 78
    all_weights = np.append(weights, np.ones(30))
    double = z.astype(np.float64)
    for found, expected in [
        (state.gram, double.T @ (all_weights[:, None] * double)),
        (state.cross, double.T @ (all_weights[:, None] * y)),
        (state.feature_sum, all_weights @ double),
        (state.weight, all_weights.sum()),
        (jitted.gram, first.gram.to_host()),
    ]:
        np.testing.assert_allclose(found.to_host(), expected, rtol=1e-5, atol=1e-5)


N = 12
BAD = {
    "negative": (np.full(N, -1.0), "finite and >= 0; 12 of 12 are not, the first is -1.0"),
    "NaN": (np.r_[np.ones(N - 1), np.nan], "1 of 12 are not, the first is nan of example 11"),
    "infinite": (np.r_[np.inf, np.ones(N - 1)], "the first is inf of example 0"),
    "all zero": (np.zeros(N), "0 for all examples: nothing is left to fit"),
    "too few": (np.ones(N - 1), r"has shape \(11,\); needed: \(12,\), one weight for each"),
    "a column": (np.ones((N, 1)), r"has shape \(12, 1\); needed: \(12,\)"),
    "huge": (np.full(N, 1e20), "largest sample_weight is 1e\\+20.*divide all of them by c"),
    "tiny": (np.full(N, 1e-20), "largest sample_weight is 1e-20.*and diag_reg too"),
    "complex": (np.full(N, 1j), "dtype complex128; needed: real numbers >= 0"),
    "text": (["a"] * N, "dtype <U1; needed: real numbers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_wrong_weights(make_map, make_data, kind):
    (x, y), (weights, message) = make_data(N), BAD[kind]
    refused = pytest.raises((ValueError, TypeError), match=message)
    with refused:
        ridge(make_map(), x, y, sample_weight=weights)
    with refused:
        accumulate(make_map(), x, y, sample_weight=weights)
    if kind not in ("all zero", "tiny"):  # a part of the examples may be that
        with refused:
            GramState.init(20, 3).update(make_map()(x).ntk, y, sample_weight=weights)
    if kind not in ("too few", "a column"):
        with pytest.raises((ValueError, TypeError), match="sample_weight"):
            ridge(make_map(), lambda: iter([(x, y, np.asarray(weights))]))


def test_what_does_not_fit_together(make_map, make_data):
    (x, y), weights, feature_map = make_data(40), np.ones(40), make_map()
    state = accumulate(feature_map, x, y, sample_weight=weights)
    fits = [
        lambda select, w: ridge(feature_map, x, y, select=select, sample_weight=w),
        lambda select, w: solve(feature_map, state, select=select),
    ]
    for fit in fits:
        for name, select in [("LeaveOneOut", LeaveOneOut(x, y)), ("GCV", GCV(x, y))][
            : 1 if fit is fits[0] else 2
        ]:
            with pytest.raises(ValueError, match=re.escape(f"{name}(x, y) was given examples")):
                fit(select, weights)
    weighted = LeaveOneOut(x, y, sample_weight=weights)
    with pytest.raises(ValueError, match="with sample_weight and the fit is without"):
        ridge(feature_map, x, y, select=weighted)
    with pytest.raises(ValueError, match=r"batches .x, y, sample_weight. in place of it"):
        ridge(feature_map, lambda: iter([(x, y)]), sample_weight=weights)
    with pytest.raises(ValueError, match=r"in batch 1.* no sample_weight, unlike the batches"):
        ridge(feature_map, lambda: iter([(x, y, weights), (x, y)]))
    with pytest.raises(ValueError, match="they have no weights, unlike the others"):
        ridge(feature_map, x, y, sample_weight=weights, select=Validation(x, y), refit=True)
    none_held = weights * (np.arange(40) < 1)
    with pytest.raises(ValueError, match="two examples"):
        ridge(feature_map, x, y, sample_weight=none_held, fit_intercept=True)
