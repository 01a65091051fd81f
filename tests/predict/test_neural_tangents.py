"""Predictions from features against `nt.predict` with the same kernel."""

import functools

import jax
import numpy as np
import pytest
from marks import also_by_default, others_slow

import ntk_sketch as ns

# isort: split
import neural_tangents as nt  # importable after `ntk_sketch`

from ntk_sketch import predict, stax

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
#: From the prior to what is as good as t = ∞; as the second axis of t.
TIMES = np.array([[0.0, 1e-9, 0.3], [20.0, 3e3, 1e7]])
N, M = 6, 3
# Features reproduce the kernel to rounding, times the condition number 1e3 / diag_reg of the train
# kernels. ReLU is less: NT's kernel is exact to the square root of eps where examples coincide.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}

NETS = {
    "dense Relu": lambda: stax.serial(
        stax.Dense(8, 1.4, 0.3), stax.Relu(), stax.Dense(8, 1.2, 0.1), stax.Relu(), stax.Dense(1)
    ),
    "dense Erf": lambda: stax.serial(stax.Dense(8, 1.4, 0.3), stax.Erf(), stax.Dense(1, 1.1, 0.2)),
    "conv": lambda: stax.serial(
        stax.Conv(4, (3, 3), W_std=1.3, b_std=0.2, padding="SAME"),
        stax.Erf(),
        stax.AvgPool((2, 2), (2, 2)),
        stax.Flatten(),
        stax.Dense(1, 1.2, 0.1),
    ),
}


def inputs(net, n, seed):
    shape = (4, 2, 1) if net == "conv" else (4,)
    return np.random.default_rng(seed).normal(size=(n, *shape))


@functools.cache
def made(net):
    """An exact map for all examples there are."""
    model = NETS[net]()
    sample = np.concatenate([inputs(net, N, 0), inputs(net, M, 1)])
    return model, ns.feature_map(model, sample, ns.Exact(), key=jax.random.key(0))


def data(net, side, outputs=2):
    """`side`: fewer examples than features; or more, since every example comes many times."""
    x = inputs(net, N, 0)
    if side == "n > p":
        p = max(made(net)[1].n_features.values())
        x = np.concatenate([x] * (p // N + 2))
        assert len(x) > p
    return x, np.random.default_rng(2).normal(size=(len(x), outputs)), inputs(net, M, 1)


def pairs_of(ours, theirs):
    """Arrays that must be equal, of results of equal structure."""
    assert jax.tree.structure(tuple(ours)) == jax.tree.structure(tuple(theirs))
    return zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)


over_nets = pytest.mark.parametrize("net", also_by_default(NETS, "dense Erf"))
over_sides = pytest.mark.parametrize("side", ["n < p", "n > p"])


@pytest.mark.parametrize(
    "case",
    others_slow(
        [f"{net}, {side}" for net in NETS for side in ("n < p", "n > p")],
        "dense Relu, n > p",
    ),
)
@pytest.mark.parametrize("train", [False, True])
def test_ensemble(case, train):
    """Both kernels, all times, means, covariances and variances; test and training examples."""
    net, side = case.split(", ")
    model, feature_map = made(net)
    x, y, x_test = data(net, side)
    args = {"learning_rate": 0.7, "diag_reg": 1e-3}
    ours = predict.gradient_descent_mse_ensemble(feature_map, x, y, **args)
    theirs = nt.predict.gradient_descent_mse_ensemble(model[2], x, y, **args)
    where = None if train else x_test
    for t in (TIMES, None):
        expected, found = (f(t, where, ("ntk", "nngp"), True) for f in (theirs, ours))
        variances = ours(t, where, ("ntk", "nngp"), "diagonal")
        means = ours(t, where, ("ntk", "nngp"))
        for a, b in pairs_of(found, expected):
            np.testing.assert_allclose(a, b, **TOLERANCE)
        for i, one in enumerate(expected):
            diagonal = np.diagonal(one.covariance, axis1=-2, axis2=-1)
            np.testing.assert_allclose(variances[i].covariance, diagonal, **TOLERANCE)
            np.testing.assert_allclose(variances[i].mean, one.mean, **TOLERANCE)
            np.testing.assert_allclose(means[i], one.mean, **TOLERANCE)
    for get in ("ntk", "nngp"):
        for a, b in pairs_of(ours(5.0, where, get, True), theirs(5.0, where, get, True)):
            np.testing.assert_allclose(a, b, **TOLERANCE)


@pytest.mark.parametrize("side", others_slow(["n < p", "n > p"], "n < p"))
@pytest.mark.parametrize("absolute", [False, True])
def test_ensemble_of_approximate_features(side, absolute):
    """The kernel of a small map, of low rank: the regulariser holds both sides."""
    model = NETS["dense Erf"]()
    x, x_test = inputs("dense", 60, 3), inputs("dense", 7, 4)
    x = x[:20] if side == "n < p" else x
    y = np.sin(x[:, :2])
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(12), key=jax.random.key(1))
    p = feature_map.n_features["ntk"]
    assert (len(x) > p) == (side == "n > p")
    args = {"diag_reg": 0.02, "diag_reg_absolute_scale": absolute}
    ours = predict.gradient_descent_mse_ensemble(
        feature_map, x, y, **args, exact_diagonal=False, batch_size=16
    )
    theirs = nt.predict.gradient_descent_mse_ensemble(feature_map.kernel_fn, x, y, **args)
    for t in (TIMES, None):
        for where in (x_test, None):
            for a, b in pairs_of(
                ours(t, where, None, True), theirs(t, where, ("nngp", "ntk"), True)
            ):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", others_slow(["n < p", "n > p"], "n > p"))
@over_nets
def test_gp_inference(net, side):
    model, feature_map = made(net)
    x, y, x_test = data(net, side)
    both = ("nngp", "ntk")
    ours = predict.gp_inference(feature_map, x, y, diag_reg=1e-3)
    theirs = nt.predict.gp_inference(model[2](x, None, both), y, diag_reg=1e-3)
    cross, own = model[2](x_test, x, both), model[2](x_test, None, both)
    for get in ("nngp", "ntk", "ntkgp", ("ntkgp", "nngp")):
        for a, b in pairs_of(ours(get, x_test, True), theirs(get, cross, own)):
            np.testing.assert_allclose(a, b, **TOLERANCE)
        np.testing.assert_allclose(
            jax.tree.leaves(ours(get, x_test)), jax.tree.leaves(theirs(get, cross)), **TOLERANCE
        )
    fitted = ours("nngp", compute_cov=True)
    np.testing.assert_array_equal(fitted.mean, y)
    np.testing.assert_array_equal(fitted.covariance, np.zeros((len(x), len(x))))


@over_sides
@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_gradient_descent_mse(side, get):
    """From given outputs at t = 0, from numbers, and of either set of examples alone."""
    model, feature_map = made("dense Erf")
    x, y, x_test = data("dense Erf", side)
    args = {"learning_rate": 0.4, "diag_reg": 1e-3}
    ours = predict.gradient_descent_mse(feature_map, x, y, **args, get=get)
    theirs = nt.predict.gradient_descent_mse(model[2](x, None, get), y, **args)
    cross = model[2](x_test, x, get)
    start, start_test = RNG.normal(size=y.shape), RNG.normal(size=(M, 2))
    for t in (TIMES, 3.0, None):
        for fx, fx_test in ((start, start_test), (0.0, 0.0), (0.5, -1.0), (start, 0.0)):
            whole = np.broadcast_to(fx, y.shape), np.broadcast_to(fx_test, start_test.shape)
            for a, b in pairs_of(ours(t, fx, fx_test, x_test), theirs(t, *whole, cross)):
                np.testing.assert_allclose(a, b, **TOLERANCE)
        found, expected = ours(t, None, start_test, x_test), theirs(t, None, start_test, cross)
        np.testing.assert_allclose(found, expected, **TOLERANCE)
        np.testing.assert_allclose(ours(t, start), theirs(t, start), **TOLERANCE)
        np.testing.assert_allclose(ours(t), theirs(t, np.zeros_like(y)), **TOLERANCE)


def test_results_are_those_of_neural_tangents():
    """Named tuples of the same names, also of one kernel in a tuple."""
    model, feature_map = made("dense Erf")
    x, y, x_test = data("dense Erf", "n < p")
    ours = predict.gradient_descent_mse_ensemble(feature_map, x, y, diag_reg=1e-3)
    theirs = nt.predict.gradient_descent_mse_ensemble(model[2], x, y, diag_reg=1e-3)
    one = ours(1.0, x_test, "ntk", True)
    assert isinstance(one, nt.predict.Gaussian)
    for get in (("ntk",), ("ntk", "nngp")):
        a, b = ours(1.0, x_test, get), theirs(1.0, x_test, get)
        assert a._fields == b._fields
        assert type(a).__name__ == type(b).__name__
    assert ours(1.0, x_test)._fields == ("nngp", "ntk")


@over_sides
def test_targets_without_an_axis(side):
    """(n,) gives what (n, 1) gives, without that axis."""
    _, feature_map = made("dense Erf")
    x, y, x_test = data("dense Erf", side, outputs=1)
    for get in ("nngp", "ntk"):
        column, flat = (
            predict.gradient_descent_mse_ensemble(feature_map, x, targets, diag_reg=1e-3)
            for targets in (y, y[:, 0])
        )
        for where in (x_test, None):
            for t in (TIMES, 2.0, None):
                a, b = column(t, where, get, True), flat(t, where, get, True)
                np.testing.assert_array_equal(a.mean[..., 0], b.mean)
                np.testing.assert_array_equal(a.covariance, b.covariance)
    paths = [
        predict.gradient_descent_mse(feature_map, x, targets, diag_reg=1e-3)
        for targets in (y, y[:, 0])
    ]
    column, flat = paths[0](TIMES, y, y[:M], x_test), paths[1](TIMES, y[:, 0], y[:M, 0], x_test)
    for a, b in zip(column, flat, strict=True):
        np.testing.assert_array_equal(a[..., 0], b)


def test_without_regulariser():
    """As Neural Tangents by default; finite times too."""
    model, feature_map = made("dense Erf")
    x, y, x_test = data("dense Erf", "n < p")
    assert np.linalg.cond(model[2](x, None, "nngp")) < 1e5  # ten digits are left
    ours = predict.gradient_descent_mse_ensemble(feature_map, x, y)
    theirs = nt.predict.gradient_descent_mse_ensemble(model[2], x, y)
    for t in (TIMES, None):
        for where in (x_test, None):
            expected = theirs(t, where, ("nngp", "ntk"), True)
            for a, b in pairs_of(ours(t, where, None, True), expected):
                np.testing.assert_allclose(a, b, **TOLERANCE)


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("widths", [(30, 10), (10, 30), (30, 30)])
def test_maps_of_your_own(features_type, n, widths):
    """Any function that gives features, whichever of the two kernels has more of them."""
    weights = [np.random.default_rng(p).normal(size=(4, p)) / 2 for p in widths]

    def feature_map(x):
        return features_type(*(jax.numpy.tanh(x @ w) for w in weights))

    def kernel_fn(x1, x2=None, get=None):
        a, b = feature_map(x1), feature_map(x1 if x2 is None else x2)
        found = features_type(a.nngp @ b.nngp.T, a.ntk @ b.ntk.T)
        return getattr(found, get) if isinstance(get, str) else found

    x, x_test = inputs("dense", n, 5), inputs("dense", M, 6)
    y = np.sin(x[:, :2])
    options = {"batch_size": 16, "exact_diagonal": False}
    ours = predict.gradient_descent_mse_ensemble(feature_map, x, y, diag_reg=0.02, **options)
    theirs = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y, diag_reg=0.02)
    for t in (TIMES, None):
        for where in (x_test, None):
            expected = theirs(t, where, ("nngp", "ntk"), True)
            for a, b in pairs_of(ours(t, where, None, True), expected):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
            variances = ours(t, where, "ntk", "diagonal").covariance
            diagonal = np.diagonal(expected.ntk.covariance, axis1=-2, axis2=-1)
            np.testing.assert_allclose(variances, diagonal, rtol=1e-8, atol=1e-9)
