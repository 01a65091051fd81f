"""Every wrong input: what was got, what is needed, what to do, before any feature is computed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.solvers import (
    GramState,
    HoldOut,
    LeaveOneOut,
    Validation,
    _sums,
    accumulate,
    ridge,
    solve,
)

N = 8
X = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)


def _with(array, index, value):
    array = array.copy()
    array[index] = value
    return array


CASES = {
    "negative diag_reg": ({"diag_reg": -1e-3}, ValueError, "finite and >= 0"),
    "negative on a path": ({"diag_reg": [0.1, -1.0]}, ValueError, "finite and >= 0"),
    "diag_reg is NaN": ({"diag_reg": float("nan")}, ValueError, "finite and >= 0"),
    "empty path": ({"diag_reg": []}, ValueError, "empty sequence"),
    "diag_reg is boolean": ({"diag_reg": np.array([True])}, TypeError, "sequence of such numbers"),
    "diag_reg is a matrix": ({"diag_reg": np.ones((2, 2))}, TypeError, "sequence of such numbers"),
    "x has a NaN": ({"x": _with(X, (3, 1), np.nan)}, ValueError, "x is not finite .* in row 3"),
    "x is infinite": ({"x": _with(X, (5, 0), -np.inf)}, ValueError, "x is not finite .* in row 5"),
    "y has a NaN": ({"y": _with(Y, (2, 0), np.nan)}, ValueError, "y is not finite .* in row 2"),
    "x is integer": ({"x": X.astype(np.uint8)}, TypeError, r"x.astype\(np.float32\) / 255"),
    "x has one axis": ({"x": X[:, 0]}, ValueError, r"One example is x\[None\]; .* x\[:, None\]"),
    "x is empty": ({"x": X[:0], "y": Y[:0]}, ValueError, "at least one example"),
    "y is integer": (
        {"y": np.arange(N)},
        TypeError,
        re.escape("y = jax.nn.one_hot(y, 10) - 0.1"),
    ),
    "y is boolean": ({"y": Y > 0}, TypeError, r"become -1 and 1: y = 2.0 \* y - 1.*one-hot rows"),
    "y is counts": ({"y": np.arange(N)}, TypeError, r"Counts .* y = y.astype\(np.float32\)"),
    "y is text": ({"y": list("abcdefgh")}, TypeError, r"labels = np.unique\(y, return_inverse"),
    "y is None": ({"y": None}, TypeError, "y must be one array .* got NoneType"),
    "y is huge": (
        {"y": Y.astype(float) * 1e39},
        ValueError,
        "outside of the range of float32.*y / c",
    ),
    "y is tiny": ({"y": Y.astype(float) * 1e-42}, ValueError, "outside of the range of float32"),
    "one example with an intercept": (
        {"x": X[:1], "y": Y[:1], "fit_intercept": True},
        ValueError,
        "at least two examples",
    ),
    "one example of weight > 0 with an intercept": (
        {"sample_weight": np.eye(N)[2], "fit_intercept": True},
        ValueError,
        "at least two examples, got 1",
    ),
    "x overflows when squared": ({"x": X * 1e20}, ValueError, "squares overflow float32: scale"),
    "lengths differ": ({"y": Y[:5]}, ValueError, "8 examples but 5 rows of y"),
    "y has three axes": ({"y": Y[..., None]}, ValueError, r"\(n,\) or \(n, outputs\)"),
    "y has no outputs": ({"y": Y[:, :0]}, ValueError, "no outputs"),
    "unknown get": ({"get": "cntk"}, ValueError, "known: 'nngp', 'ntk'"),
    "unknown select": ({"select": "aic"}, ValueError, r"known: None, 'gcv', 'loo', \(x_val"),
    "select of four": ({"select": (X, Y, 1, 1)}, ValueError, "tuple of 4"),
    "x_val of wrong rank": ({"select": (X[:, None], Y)}, ValueError, "same shape"),
    "x_val has a NaN": ({"select": (_with(X, 0, np.nan), Y)}, ValueError, "x_val is not finite"),
    "y_val is too short": ({"select": (X, Y[:2])}, ValueError, "2 rows of y_val"),
    "y_val is integer": ({"select": (X, np.arange(N))}, TypeError, "y_val = jax.nn.one_hot"),
    "y_val of other width": ({"select": (X, Y[:, 0])}, ValueError, "y_val has 1 outputs .* has 3"),
    "classes in one column": (
        {"y": Y[:, :1], "select": HoldOut(0.5, key=jax.random.key(0), loss="zero_one")},
        ValueError,
        "one column: give one for each class",
    ),
    "groups without loo": ({"groups": np.arange(N)}, ValueError, "together by select='loo'"),
    "groups with gcv": (
        {"select": "gcv", "groups": np.arange(N)},
        ValueError,
        "together by select='loo'",
    ),
    "refit with gcv": (
        {"select": "gcv", "refit": True},
        ValueError,
        r"select='gcv' holds none: use select=\(x_val, y_val\)",
    ),
    "refit without selection": ({"refit": True}, ValueError, "select=None holds none"),
    "one group to hold out": (
        {"select": HoldOut(0.5, key=jax.random.key(0)), "groups": np.zeros(N, int)},
        ValueError,
        "two groups of them, at least",
    ),
    "progress is a number": ({"progress": 5}, TypeError, "progress=5; needed: True"),
    "groups not integer": (
        {"select": "loo", "groups": np.ones(N)},
        TypeError,
        "groups has dtype float64",
    ),
    "groups too short": ({"select": "loo", "groups": np.arange(3)}, ValueError, r"needed: \(8,\)"),
    "batch_size is zero": ({"batch_size": 0}, ValueError, "positive integer"),
    "a mesh": ({"mesh": object()}, TypeError, "mesh is a object; needed: a jax.sharding.Mesh"),
}


@pytest.mark.parametrize(("change", "error", "message"), CASES.values(), ids=CASES.keys())
def test_before_any_feature(features_type, change, error, message):
    computed = []

    def feature_map(x):
        jax.debug.callback(lambda: computed.append(True))
        return features_type(None, x)

    given = {"x": X, "y": Y, **change}
    x, y = given.pop("x"), given.pop("y")
    with pytest.raises(error, match=message):
        ridge(feature_map, x, y, **given)
    jax.effects_barrier()
    assert not computed


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1, "a fifth", None])
def test_share_held_out(share):
    with pytest.raises(ValueError, match=r"HoldOut\(share\): a share, 0 < share < 1, is needed"):
        HoldOut(share, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"jax.random.key\(0\)"):
        HoldOut(0.5, key=0)


def test_losses_and_samples():
    with pytest.raises(ValueError, match="loss='log' is unknown; known: 'squared', 'zero_one'"):
        LeaveOneOut(X, Y, loss="log")
    for selector in (LeaveOneOut, Validation):
        with pytest.raises(ValueError, match="one column: give one for each class"):
            selector(X, Y[:, :1], loss="zero_one")
    with pytest.raises(ValueError, match="loss='log' is unknown"):
        HoldOut(0.5, key=jax.random.key(0), loss="log")
    with pytest.raises(ValueError, match="sample"):
        LeaveOneOut(X, Y, sample=0, key=jax.random.key(0))
    for options in ({"sample": 5}, {"key": jax.random.key(0)}):
        with pytest.raises(ValueError, match="go together"):
            LeaveOneOut(X, Y, **options)


def test_unselected_path_does_not_predict(make_map):
    solution = ridge(make_map(), X, Y, diag_reg=[0.1, 1.0])
    assert solution.weights is None
    assert solution.scores is None
    assert solution.diag_reg == (0.1, 1.0)
    with pytest.raises(ValueError, match=r"solution.path\[i\], or fit with select='gcv'"):
        solution.predict(X)
    with pytest.raises(ValueError, match="none of them selected"):
        _ = solution.penalty


def test_kernel_that_was_not_asked_for(features_type):
    with pytest.raises(ValueError, match=r"get='ntk', but this feature map gives \['nngp'\]"):
        ridge(lambda x: features_type(x, None), X, Y)
    with pytest.raises(ValueError, match="gives no features"):
        ridge(lambda x: x, X, Y)


def test_positions_are_left(features_type):
    with pytest.raises(ValueError, match=r"\(8, 3, 2\).*Flatten, GlobalAvgPool or GlobalSumPool"):
        ridge(lambda x: features_type(None, x.reshape(-1, 3, 2)), X, Y)


@pytest.mark.parametrize("n", [5, 40])
def test_features_that_are_not_finite(features_type, n):
    x = np.ones((n, 6), np.float32)
    x[4] = -1
    with pytest.raises(ValueError, match=r"examples 4 to [45] .* not finite"):
        ridge(lambda x: features_type(None, jnp.sqrt(x)), x, np.ones(n, np.float32), batch_size=2)


@pytest.mark.parametrize("on_host", [True, False])
def test_sums_that_overflow(features_type, monkeypatch, on_host):
    monkeypatch.setattr(_sums, "_on_host", lambda: on_host)
    x = np.full((40, 6), 1e18, np.float32)
    with pytest.raises(ValueError, match="overflows float32: scale the inputs"):
        ridge(lambda x: features_type(None, 100 * x), x, np.ones(40, np.float32))


def test_predict_checks_its_inputs(make_map, features_type):
    solution = ridge(make_map(), X, Y)
    for x, error, message in [
        (X[:0], ValueError, "at least one example"),
        (X.astype(int), TypeError, "floating point"),
        (_with(X, 1, np.nan), ValueError, "x is not finite"),
    ]:
        with pytest.raises(error, match=message):
            solution.predict(x)
    any_width = ridge(lambda x: features_type(None, x), X, Y)
    with pytest.raises(ValueError, match="have 4 features but the weights are for 6"):
        any_width.predict(X[:, :4])


def test_solve_checks_its_inputs(make_map):
    feature_map = make_map()
    state = accumulate(feature_map, X, Y)
    with pytest.raises(ValueError, match="finite and >= 0"):
        solve(feature_map, state, diag_reg=-1.0)
    with pytest.raises(ValueError, match="has seen no example"):
        solve(feature_map, GramState.init(20, 3))
    with pytest.raises(TypeError, match="the statistics do not hold the examples"):
        solve(feature_map, state, select="loo")
    with pytest.raises(ValueError, match="5 examples but the statistics are of 8"):
        solve(feature_map, state, select=LeaveOneOut(X[:5], Y[:5]))
    with pytest.raises(ValueError, match="1 outputs but the statistics have 3"):
        solve(feature_map, state, select=Validation(X, Y[:, 0]))
