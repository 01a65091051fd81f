"""Results do not depend on the units of targets, and few features lose no digits."""

import warnings

import numpy as np
import pytest
from jax import numpy as jnp
from marks import others_slow

from ntk_sketch.solvers import (
    GCV,
    GramState,
    LeaveOneOut,
    Validation,
    _sums,
    accumulate,
    ridge,
    solve,
)

VALUES = [1e-4, 1e-2, 1.0]


@pytest.mark.parametrize("n", [15, 300], ids=["dual", "primal"])
@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("factor", others_slow([1e-32, 1e-20, 3.8e26, 1e37], 1e-32, 1e37))
def test_units_of_targets(make_map, make_data, monkeypatch, n, on_host, factor):
    monkeypatch.setattr(_sums, "_on_host", lambda: on_host)
    feature_map = make_map()
    (x, y), (x_val, y_val) = make_data(n), make_data(40, seed=1)
    y, y_val = y.astype(np.float64), y_val.astype(np.float64)
    for select in ("gcv", "loo", (x_val, y_val)):
        validation = (x_val, factor * y_val)
        given = validation if isinstance(select, tuple) else select
        for fit_intercept in (False, True):
            options = {"diag_reg": VALUES, "fit_intercept": fit_intercept}
            plain = ridge(feature_map, x, y, select=select, **options)
            scaled = ridge(feature_map, x, factor * y, select=given, **options)
            np.testing.assert_allclose(scaled.scores / factor**2, plain.scores, rtol=1e-4)
            assert scaled.diag_reg == plain.diag_reg
            weights = np.asarray(scaled.weights, np.float64) / factor
            np.testing.assert_allclose(weights, plain.weights, rtol=1e-4, atol=1e-5)
        state = accumulate(feature_map, x, factor * y)
        one_go = ridge(feature_map, x, factor * y, diag_reg=VALUES)
        for one, other in zip(solve(feature_map, state, diag_reg=VALUES).path, one_go.path):  # noqa: B905
            ours, theirs = (np.asarray(s.weights, np.float64) / factor for s in (one, other))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_states_of_huge_targets_merge(make_map, make_data):
    """The inverse of their unit is a normal number of float32, in which states are merged."""
    feature_map, (x, y) = make_map(), make_data(40)
    y = 5e37 * y.astype(np.float64)
    y[20:] += 1e38
    first, second = (accumulate(feature_map, x[s], y[s]) for s in (slice(0, 20), slice(20, 40)))
    found = first.merge(second)
    t = found.units().of(y)
    expected = np.asarray(feature_map(x).ntk, np.float64).T @ t
    largest = np.abs(t).max()
    np.testing.assert_allclose(found.cross.to_host(), expected, rtol=0, atol=1e-4 * largest)


def _close(found, feature_map, x, y, tolerance=1e-5):
    """Cross products and squares of targets, relative to the largest, in the units found."""
    t = found.units().of(y.astype(np.float64))
    cross = np.asarray(feature_map(x).ntk, np.float64).T @ t
    atol = tolerance * np.abs(cross).max()
    np.testing.assert_allclose(found.cross.to_host(), cross, rtol=0, atol=atol)
    np.testing.assert_allclose(found.target_norm.to_host(), np.sum(t**2, axis=0), rtol=tolerance)
    assert np.abs(t).max() > 1e-10, "their squares are rounding of float32"


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1e20])
def test_states_of_tiny_targets_merge(make_map, make_data, scale):
    """Distances between their means are numbers below the normal ones of float32."""
    feature_map, (x, y) = make_map(), make_data(40)
    y = scale * y.astype(np.float64)
    first, second = (accumulate(feature_map, x[s], y[s]) for s in (slice(0, 20), slice(20, 40)))
    _close(first.merge(second), feature_map, x, y)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("value", [None, 0.0, 1.0])
def test_targets_without_spread_have_no_say_in_units(make_map, make_data, scale, value):
    """Those of no examples at all, of zeros, and of equal numbers whose mean is taken away."""
    feature_map, (x, y) = make_map(), make_data(40)
    y = scale * y.astype(np.float64)
    state, seen = accumulate(feature_map, x[20:], y[20:]), slice(20, 40)
    other = GramState.init(20, 3)
    if value is not None:
        y[:20], seen = value * scale, slice(0, 40)
        other = accumulate(feature_map, x[:20], y[:20])
    for found in (state.merge(other), other.merge(state)):
        _close(found, feature_map, x[seen], y[seen])


@pytest.mark.parametrize("n", [15, 300], ids=["dual", "primal"])
def test_selectors_as_objects_are_those_by_name(make_map, make_data, n):
    feature_map = make_map()
    (x, y), other = make_data(n), make_data(40, seed=1)
    for named, selector in [
        ("gcv", GCV()),
        ("gcv", GCV(x, y)),
        ("loo", LeaveOneOut(x, y)),
        (other, Validation(*other)),
        (list(other), Validation(*other)),
    ]:
        by_name = ridge(feature_map, x, y, diag_reg=VALUES, select=named)
        as_object = ridge(feature_map, x, y, diag_reg=VALUES, select=selector)
        np.testing.assert_array_equal(by_name.scores, as_object.scores)
    state = accumulate(feature_map, x, y)
    by_tuple = solve(feature_map, state, diag_reg=VALUES, select=other)
    as_object = solve(feature_map, state, diag_reg=VALUES, select=Validation(*other))
    np.testing.assert_array_equal(by_tuple.scores, as_object.scores)
    with pytest.raises(ValueError, match="both x and y"):
        GCV(x)


def test_solve_gives_the_shapes_of_ridge(make_map, make_data):
    x, y = make_data(60)
    feature_map = make_map()
    for targets in (y, y[:, 0], y[:, :1]):
        halves = [accumulate(feature_map, x[s], targets[s]) for s in (slice(0, 20), slice(20, 60))]
        parts = solve(feature_map, halves[0].merge(halves[1]), diag_reg=VALUES, select="gcv")
        one_go = ridge(feature_map, x, targets, diag_reg=VALUES, select="gcv")
        assert parts.weights.shape == one_go.weights.shape
        assert parts.predict(x).shape == one_go.predict(x).shape == targets.shape
        np.testing.assert_allclose(parts.scores, one_go.scores, rtol=1e-4)


def test_few_features_on_a_cpu_lose_no_direction(features_type):
    """Powers up to 9 on [0, 1]: 10 features, of which float32 sums resolve 7."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(4000, 1)).astype(np.float32)
    y = (np.sin(6 * x) + 0.01 * rng.normal(size=x.shape)).astype(np.float32)
    feature_map = lambda x: features_type(None, x ** jnp.arange(10, dtype=x.dtype)[None])  # noqa: E731
    z = np.asarray(feature_map(x).ntk, np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = ridge(feature_map, x, y, diag_reg=1e-8)
    assert solution.rank == 10
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    fitted = u @ ((s**2 / (s**2 + solution.penalty))[:, None] * (u.T @ y))
    assert solution.condition > 1e7
    # weights of the order 100 in float32
    np.testing.assert_allclose(solution.predict(x), fitted, rtol=0, atol=1e-4)
