"""Every wrong input: what was got, what is needed, what to do, before any feature is computed."""

import re

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import predict, stax

N = 8
X = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)
KEY = jax.random.key(0)


def _with(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.fixture
def untouched(features_type):
    """A map that must not compute anything."""

    def feature_map(x):
        if not isinstance(x, jax.core.Tracer):  # examples are traced for the shape
            raise AssertionError("features were computed before the inputs were checked")
        return features_type(x, x)

    return feature_map


OF_ALL = {
    "negative diag_reg": ({"diag_reg": -1e-3}, ValueError, "finite and >= 0"),
    "a path": ({"diag_reg": [0.1, 1.0]}, ValueError, r"is a sequence; needed: one number.*select"),
    "diag_reg is text": ({"diag_reg": "small"}, TypeError, "diag_reg='small'; needed: a number"),
    "x has a NaN": ({"x": _with(X, (3, 1), np.nan)}, ValueError, "x_train is not finite .* row 3"),
    "y is infinite": (
        {"y": _with(Y, (2, 0), np.inf)},
        ValueError,
        "y_train is not finite .* row 2",
    ),
    "x is integer": ({"x": X.astype(np.uint8)}, TypeError, "x_train has dtype uint8"),
    "x has one axis": ({"x": X[:, 0]}, ValueError, r"x_train must have shape \(n, ..., channels\)"),
    "y is labels": ({"y": np.arange(N)}, TypeError, "y_train has dtype int64.*one_hot"),
    "y has three axes": ({"y": Y[..., None]}, ValueError, r"y_train has shape \(8, 3, 1\); needed"),
    "lengths differ": ({"y": Y[:5]}, ValueError, "8 examples but 5 rows of y_train"),
    "batch_size is zero": ({"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
}
FUNCTIONS = {
    "ensemble": predict.gradient_descent_mse_ensemble,
    "mse": predict.gradient_descent_mse,
    "gp": predict.gp_inference,
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("case", OF_ALL)
def test_training(untouched, function, case):
    change, error, message = OF_ALL[case]
    given = {"x": X, "y": Y, **change}
    x, y = given.pop("x"), given.pop("y")
    with pytest.raises(error, match=message):
        FUNCTIONS[function](untouched, x, y, **given)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_maps(features_type, function):
    make, model = FUNCTIONS[function], stax.serial(stax.Dense(1), stax.Relu())
    with pytest.raises(TypeError, match=r"is a Layer, a network; needed: its feature map"):
        make(model, X, Y)
    with pytest.raises(TypeError, match=r"feature_map is a ndarray; needed"):
        make(X @ X.T, X, Y)
    with pytest.raises(ValueError, match=r"gives no features"):
        make(lambda x: x, X, Y)
    with pytest.raises(ValueError, match=r"Flatten, GlobalAvgPool or GlobalSumPool"):
        make(lambda x: features_type(None, x.reshape(-1, 3, 2)), X, Y)
    with pytest.raises(TypeError, match=r"on the host and cannot be traced"):
        jax.grad(lambda x: make(lambda x: features_type(x, x), x, Y)())(X)


@pytest.mark.parametrize("function", ["ensemble", "mse"])
@pytest.mark.parametrize(
    ("rate", "error"), [(0.0, ValueError), (np.nan, ValueError), ("fast", TypeError)]
)
def test_learning_rate(untouched, function, rate, error):
    with pytest.raises(error, match=r"learning_rate="):
        FUNCTIONS[function](untouched, X, Y, learning_rate=rate)


PREDICTIONS = {
    "negative t": ({"t": -1.0}, ValueError, "every time must be >= 0"),
    "negative among t": ({"t": np.array([1.0, -1.0])}, ValueError, "every time must be >= 0"),
    "t is NaN": ({"t": np.nan}, ValueError, "every time must be >= 0"),
    "t is text": ({"t": "late"}, TypeError, r"needed: None \(infinity\), a number >= 0"),
    "t is empty": ({"t": []}, ValueError, "t is empty"),
    "unknown get": ({"get": "cntk"}, ValueError, "get='cntk'; known: 'nngp', 'ntk'"),
    "get of gp_inference": ({"get": "ntkgp"}, ValueError, "get='ntkgp' of gp_inference"),
    "nothing to get": ({"get": ()}, ValueError, r"get=\(\); known"),
    "twice the same": ({"get": ("ntk", "ntk")}, ValueError, "same name twice"),
    "unknown covariance": (
        {"compute_cov": "variances"},
        ValueError,
        r"compute_cov='variances'; needed: False .* or 'diagonal'",
    ),
    "x_test has a NaN": ({"x_test": _with(X, 1, np.nan)}, ValueError, "x_test is not finite"),
    "x_test of another shape": (
        {"x_test": X[:, :4]},
        ValueError,
        re.escape("x_test has shape (8, 4); this model and feature map need (n, 6)"),
    ),
    "x_test is empty": ({"x_test": X[:0]}, ValueError, "x_test is empty.*at least one example"),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_ensemble(untouched, case):
    change, error, message = PREDICTIONS[case]
    ours = predict.gradient_descent_mse_ensemble(untouched, X, Y, exact_diagonal=False)
    with pytest.raises(error, match=message):
        ours(**{"x_test": X, **change})
    if "compute_cov" not in change:
        with pytest.raises(error, match=message):
            ours.sample(**{"x_test": X, "key": KEY, **change})


def test_exact_diagonal_is_a_choice(untouched):
    with pytest.raises(TypeError, match="exact_diagonal='no'; needed: True or False"):
        predict.gp_inference(untouched, X, Y, exact_diagonal="no")


def test_kernels_that_the_map_lacks():
    """Each is named, with why it is needed."""
    model = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
    only = {
        get: ns.feature_map(model, X, ns.RandomFeatures(4), key=KEY, get=get)
        for get in ("nngp", "ntk")
    }
    with pytest.raises(ValueError, match=r"get='ntk' needs ntk features, but .*\['nngp'\]: make"):
        predict.gradient_descent_mse_ensemble(only["nngp"], X, Y)(x_test=X, get="ntk")
    with pytest.raises(ValueError, match=r"get='nngp' needs nngp features"):
        predict.gradient_descent_mse(only["ntk"], X, Y, get="nngp")
    ours = predict.gradient_descent_mse_ensemble(only["ntk"], X, Y, diag_reg=0.1)
    assert ours(x_test=X)._fields == ("ntk",)  # all that it has
    why = r"get='ntk', whose covariance is that of networks drawn from the NNGP.* needs nngp"
    with pytest.raises(ValueError, match=why):
        ours(x_test=X, get="ntk", compute_cov=True)
    with pytest.raises(ValueError, match="needs nngp"):
        ours.sample(X, key=KEY)
    posterior = predict.gp_inference(only["ntk"], X, Y, diag_reg=0.1)
    assert posterior("ntkgp", X, True).covariance.shape == (N, N)


TRAJECTORIES = {
    "nothing asked for": ({"fx_train_0": None}, ValueError, "both None.*such as fx_test_0=0.0"),
    "x_test alone": ({"x_test": X}, ValueError, "x_test is given, but .* need fx_test_0=0.0 too"),
    "fx_test_0 alone": ({"fx_test_0": 0.0}, ValueError, "fx_test_0 is given, but .* need x_test"),
    "fx_train_0 too short": (
        {"fx_train_0": Y[:5]},
        ValueError,
        re.escape("fx_train_0 has shape (5, 3); needed: (8, 3)"),
    ),
    "fx_test_0 is NaN": ({"fx_test_0": np.nan, "x_test": X}, ValueError, "fx_test_0 has entries"),
    "fx_train_0 is text": ({"fx_train_0": "zero"}, TypeError, "fx_train_0 has dtype"),
    "negative t": ({"t": -1.0}, ValueError, "every time must be >= 0"),
}


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_mse(untouched, case):
    change, error, message = TRAJECTORIES[case]
    with pytest.raises(error, match=message):
        predict.gradient_descent_mse(untouched, X, Y)(**change)


def test_unknown_kernel_of_mse(untouched):
    with pytest.raises(ValueError, match="get must be one of nngp, ntk, got 'cntk'"):
        predict.gradient_descent_mse(untouched, X, Y, get="cntk")
