"""Regression and selection on batches: equal to those on arrays, or refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.solvers import (
    GCV,
    HoldOut,
    LeaveOneOut,
    Validation,
    _sums,
    accumulate,
    ridge,
    solve,
)

VALUES = [1e-3, 1e-1, 10.0]
KEY = jax.random.key(0)
EPS = float(np.finfo(np.float32).eps)
N = 300


class Loader:
    """Batches of changing sizes; counts its passes, and may give each another order."""

    def __init__(self, x, y, shuffle=False):
        self.x, self.y, self.shuffle, self.passes = x, y, shuffle, 0

    def __iter__(self):
        self.passes += 1
        order = np.arange(len(self.x))
        if self.shuffle:
            order = np.random.default_rng(self.passes).permutation(len(self.x))
        sizes = itertools.cycle([7, 50, 1, 23])
        start = 0
        while start < len(order):
            stop = start + next(sizes)
            yield self.x[order[start:stop]], self.y[order[start:stop]]
            start = stop


@pytest.fixture(params=[True, False], ids=["sums on the host", "sums on the device"])
def on_host(request, monkeypatch):
    monkeypatch.setattr(_sums, "_on_host", lambda: request.param)
    return request.param


def check_same(ours, theirs, on_host):
    """One regression as another: to rounding on the host, else to that of float32 sums in another
    order, times the condition that solving loses.
    """
    for one, other in zip(ours, theirs, strict=True):
        relative = 1e-6 if on_host else 10 * EPS * other.condition
        pairs = [(one.weights, other.weights)]
        if other.intercept is not None:
            pairs.append((one.intercept, other.intercept))
        unit = max(np.abs(np.asarray(b, np.float64)).max() for _, b in pairs)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=0, atol=relative * unit)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("one_output", [False, True])
@pytest.mark.parametrize(("select", "passes"), [(None, 1), ("gcv", 1), ("loo", 2), ("pair", 1)])
def test_as_of_arrays(make_map, make_data, on_host, select, passes, fit_intercept, one_output):
    feature_map, (x, y), (x_val, y_val) = make_map(), make_data(N), make_data(40, seed=1)
    if one_output:
        y, y_val = y[:, 0], y_val[:, 0]
    options = {"select": (x_val, y_val) if select == "pair" else select, "batch_size": 16}
    options |= {"diag_reg": VALUES, "fit_intercept": fit_intercept}
    loader = Loader(x, y)
    ours, theirs = (ridge(feature_map, *data, **options) for data in [(loader,), (x, y)])
    assert loader.passes == passes
    assert ours.n_examples == N
    assert ours.path_weights.shape == theirs.path_weights.shape
    check_same(ours.path, theirs.path, on_host)
    if select is not None:
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-6 if on_host else 1e-4)
        assert ours.diag_reg == theirs.diag_reg


def _gram_states(feature_map, x, y, **options):
    return [accumulate(feature_map, *data, **options) for data in [(Loader(x, y),), (x, y)]]


@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        (lambda n: np.ones(n), 0.0),
        (lambda n: np.ones(n), 1e6),
        (lambda n: 1e-32 * np.ones(n), 0.0),
        (lambda n: 1e32 * np.ones(n), 0.0),
        (lambda n: np.where(np.arange(n) < n // 2, 1e-30, 1e30), 0.0),
        (lambda n: np.where(np.arange(n) < n // 2, 0.0, 1e-30), 0.0),
        (lambda n: np.where(np.arange(n) < n // 2, 0.0, 1e30), 0.0),
        (lambda n: np.where(np.arange(n) < n // 2, 1e30, 1e-3), 0.0),
        (lambda n: np.geomspace(1e-30, 1e30, n), 0.0),
    ],
    ids=["1", "mean", "tiny", "huge", "grow", "0, tiny", "0, huge", "shrink", "ever larger"],
)
def test_units_of_targets_that_come_block_by_block(make_map, make_data, on_host, scale, shift):
    """Those of the first block; no sum overflows or loses digits where a later one is larger."""
    n = 6000  # three blocks on the host, six on the device
    feature_map, (x, y) = make_map(), make_data(n, np.float64)
    x, y = x.astype(np.float32), y * scale(n)[:, None] + shift
    for fit_intercept in (False, True):
        ours, theirs = (
            solve(feature_map, state, diag_reg=0.1, fit_intercept=fit_intercept)
            for state in _gram_states(feature_map, x, y, batch_size=64)
        )
        check_same([ours], [theirs], on_host)


def test_units_of_targets_that_are_zero_at_first(make_map, make_data, on_host):
    """A whole block of zeros says nothing of the unit; squares keep their digits."""
    (x, y), feature_map, scale = make_data(2500), make_map(), 1e-25
    y = scale * y.astype(np.float64)
    y[:2100] = 0
    batches = lambda: ((x[i : i + 500], y[i : i + 500]) for i in range(0, 2500, 500))  # noqa: E731
    found = accumulate(feature_map, batches, batch_size=256)
    norm = found.target_norm.to_host() * (found.units().scale / scale) ** 2
    centred = y / scale - found.units().shift / scale
    np.testing.assert_allclose(norm, np.sum(centred**2, axis=0), rtol=1e-6)


def test_accumulate_is_ridge(make_map, make_data):
    feature_map, (x, y) = make_map(), make_data(N)
    state = accumulate(feature_map, Loader(x[:90], y[:90]), batch_size=16)
    state = state.merge(accumulate(feature_map, x[90:], y[90:]))
    parts = solve(feature_map, state, diag_reg=VALUES, select=LeaveOneOut(Loader(x, y)))
    whole = ridge(feature_map, x, y, diag_reg=VALUES, select="loo")
    np.testing.assert_allclose(parts.path_weights, whole.path_weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-5)
    with pytest.raises(ValueError, match=r"given 90 examples .* statistics are of 300"):
        solve(feature_map, state, select=LeaveOneOut(Loader(x[:90], y[:90])), diag_reg=VALUES)


def test_few_examples_are_primal_too(make_map, make_data):
    """Fewer examples than features: arrays are solved in the dual form."""
    feature_map, (x, y) = make_map(), make_data(12)
    ours, theirs = (ridge(feature_map, *d, diag_reg=0.1) for d in [(Loader(x, y),), (x, y)])
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-5, atol=1e-5)


# ---- predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [False, True])
def test_predictions_of_batches(make_map, make_data, pairs):
    x, y = make_data(N)
    solution = ridge(make_map(), x, y, diag_reg=VALUES, select="gcv", batch_size=16)
    loader = Loader(x, y) if pairs else lambda: (part for part, _ in Loader(x, y))
    np.testing.assert_array_equal(solution.predict(loader), solution.predict(x))
    np.testing.assert_array_equal(solution.predict_path(loader), solution.predict_path(x))
    once = (part for part, _ in Loader(x, y))
    np.testing.assert_array_equal(solution.predict(once), solution.predict(x))
    with pytest.raises(ValueError, match=r"in batch 1, .*shape"):
        solution.predict(lambda: iter([x[:5], x[:5, :4]]))
    with pytest.raises(ValueError, match="gives nothing"):
        solution.predict(lambda: iter([]))


# ---- landmarks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinked():
    """A map whose landmarks are half of the examples; a kinked function of one column."""
    x = np.random.default_rng(0).uniform(size=(300, 5)).astype(np.float32)
    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu(), stax.Dense(1)]
    made = ns.feature_map(stax.serial(*layers), x[:200], ns.Nystroem(60), key=KEY)
    return made, x, 20 * (np.abs(x[:, :1] - 0.5) - 0.25)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_gcv_leaves_landmarks_out_in_one_pass(kinked, fit_intercept):
    feature_map, x, y = kinked
    options = {"diag_reg": VALUES, "select": "gcv", "fit_intercept": fit_intercept}
    expected = ridge(feature_map, x, y, **options).scores
    assert not np.allclose(ridge(lambda x: feature_map(x), x, y, **options).scores, expected)
    np.testing.assert_allclose(ridge(feature_map, Loader(x, y), **options).scores, expected, 1e-5)
    once = iter(Loader(x, y))  # a generator, which cannot be read again
    np.testing.assert_allclose(ridge(feature_map, once, **options).scores, expected, 1e-5)
    options["select"] = GCV()
    np.testing.assert_allclose(ridge(feature_map, Loader(x, y), **options).scores, expected, 1e-5)


def test_leave_one_out_leaves_landmarks_out(kinked):
    feature_map, x, y = kinked
    options = {"diag_reg": VALUES, "select": "loo"}
    expected = ridge(feature_map, x, y, **options).scores
    for loader in (Loader(x, y), Loader(x, y, shuffle=True)):
        np.testing.assert_allclose(ridge(feature_map, loader, **options).scores, expected, 1e-5)
        assert loader.passes == 2


@pytest.mark.parametrize("select", ["gcv", "loo"])
def test_too_few_others(kinked, select):
    """All count, and the warning names this line."""
    feature_map, x, y = kinked
    known = np.flatnonzero(feature_map.is_landmark(x))
    some = np.concatenate([known, np.setdiff1d(np.arange(300), known)[:5]])
    options = {"diag_reg": [0.1, 1.0], "select": select}
    with pytest.warns(RuntimeWarning, match="60 of 65 examples are landmarks") as caught:
        ours = ridge(feature_map, Loader(x[some], y[some]), **options)
    assert [w.filename for w in caught if "too few others" in str(w.message)] == [__file__]
    with pytest.warns(RuntimeWarning, match="60 of 65 examples are landmarks"):
        theirs = ridge(feature_map, x[some], y[some], **options)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-3)


# ---- examples held out ---------------------------------------------------------------------------


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_share_held_out(kinked, refit, shuffle):
    """The same examples in every pass and any order, none of them a landmark or fitted."""
    feature_map, x, y = kinked
    select = HoldOut(0.3, key=jax.random.key(3))
    loader, seen = Loader(x, y, shuffle), []

    def spy(batches):
        seen.append(batches)
        return batches

    original = HoldOut.views
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HoldOut, "views", lambda self, *a: spy(original(self, *a)))
        found = ridge(feature_map, loader, diag_reg=VALUES, select=select, refit=refit)
    assert loader.passes == 2 + refit
    [(_, validation)] = seen
    held = np.concatenate([np.asarray(b.x)[: b.stop - b.start] for b in validation.x.blocks(64)])
    assert not feature_map.is_landmark(held).any()
    out = (x[:, None] == held[None]).all(axis=2).any(axis=1)
    assert abs(out.sum() - 0.3 * 240) < 4 * np.sqrt(0.3 * 0.7 * 240)
    assert len(held) == out.sum()
    by_hand = ridge(feature_map, x[~out], y[~out], diag_reg=VALUES, select=(x[out], y[out]))
    np.testing.assert_allclose(found.scores, by_hand.scores, rtol=1e-4)
    whole = ridge(feature_map, x, y, diag_reg=VALUES) if refit else by_hand
    np.testing.assert_allclose(found.path_weights, whole.path_weights, rtol=1e-3, atol=1e-4)
    other = ridge(feature_map, loader, diag_reg=VALUES, select=HoldOut(0.3, key=KEY))
    assert not np.allclose(other.scores, found.scores)


def test_validation_on_batches(make_map, make_data):
    feature_map, (x, y), (x_val, y_val) = make_map(), make_data(N), make_data(45, seed=1)
    expected = ridge(feature_map, x, y, diag_reg=VALUES, select=(x_val, y_val), refit=True)
    for data in [(Loader(x, y),), (x, y)]:
        select = Validation(Loader(x_val, y_val))
        found = ridge(feature_map, *data, diag_reg=VALUES, select=select, refit=True)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
        np.testing.assert_allclose(found.path_weights, expected.path_weights, rtol=1e-4, atol=1e-5)
    few = ridge(feature_map, x[:9], y[:9], diag_reg=VALUES, select=select, refit=True)
    assert few.n_examples == 9 + 45
    with pytest.raises(ValueError, match=r"validation have 1 outputs .* statistics have 3"):
        ridge(feature_map, x, y, select=Validation(Loader(x_val, y_val[:, :1])))


# ---- refused before a batch is read --------------------------------------------------------------


def once():
    raise AssertionError("a batch was read")
    yield


X = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
REFUSED = {
    "loo of an iterator": ({"select": "loo"}, "leave-one-out, a second pass, .*generator .*once"),
    "HoldOut of an iterator": ({"select": HoldOut(key=KEY)}, "HoldOut, .*without calling it"),
    "groups": ({"select": "loo", "groups": np.arange(8)}, "groups are of arrays"),
    "groups with HoldOut": (
        {"select": HoldOut(key=KEY), "groups": np.arange(8)},
        "groups are of arrays",
    ),
    "groups with gcv": ({"select": "gcv", "groups": np.arange(8)}, "groups are left out together"),
    "kept features": ({"keep_features": True}, "keep_features=True holds the features of all"),
    "refit": ({"refit": True}, "select=None holds none"),
    "unknown": ({"select": "aic"}, "select='aic' is unknown"),
    "path": ({"extend_path": True}, "extend_path=True goes on"),
    "negative": ({"diag_reg": -1.0}, "finite and >= 0"),
    "batch_size": ({"batch_size": -3}, "batch_size must be a positive integer, got -3"),
    "no batch_size": ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_a_batch_is_read(make_map, options, message):
    with pytest.raises(ValueError, match=message):
        ridge(make_map(), once(), **options)


def test_refused_before_features_are_computed(features_type):
    def feature_map(x):
        if not isinstance(x, jax.core.Tracer):
            raise AssertionError("features were computed")
        return features_type(None, x)

    for options, message in [
        ({"select": (X[:, :5], X)}, r"x_val has shape \(8, 5\)"),
        ({"select": (X, X[:, :1])}, "y_val has 1 outputs but y has 6"),
        ({"get": "cntk"}, "known: 'nngp', 'ntk'"),
    ]:
        with pytest.raises(ValueError, match=message):
            ridge(feature_map, [(X, X)], **options)
    with pytest.raises(ValueError, match="at least two examples, got 1"):
        ridge(lambda x: features_type(None, x), [(X[:1], X[:1])], fit_intercept=True)


def test_what_iterators_cannot_be_read_for(make_data):
    batches = (pair for pair in [make_data(8)])
    for make in (LeaveOneOut, Validation):
        with pytest.raises(ValueError, match=r"a generator can be read once only"):
            make(batches)
    with pytest.raises(ValueError, match="groups of batches"):
        LeaveOneOut([make_data(8)], groups=np.arange(8))


def test_all_held_out_or_none(make_map, make_data):
    x, y = make_data(6)
    with pytest.raises(ValueError, match="no example is held out"):
        ridge(make_map(), [(x, y)], diag_reg=VALUES, select=HoldOut(1e-9, key=KEY))
    with pytest.raises(ValueError, match="no example is left to fit"):
        ridge(make_map(), [(x, y)], diag_reg=VALUES, select=HoldOut(1 - 1e-9, key=KEY))


def test_features_that_overflow(features_type, make_data):
    x, y = make_data(64)
    x[40] = 1e15
    with pytest.raises(ValueError, match=r"features of examples 32 to 47 .*not finite"):
        ridge(lambda x: features_type(None, x * jnp.float32(1e30)), [(x, y)], batch_size=16)
