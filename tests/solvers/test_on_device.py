"""A regression with decompositions on a device is the same as with LAPACK.

The device is this CPU, on which the same programs run as on a GPU.
"""

import jax
import numpy as np
import pytest
import scipy.linalg

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.numerics import _linalg
from ntk_sketch.solvers import _examples as examples

PATH = [1e-3, 0.1]
MODEL = stax.serial(stax.Dense(1, b_std=0.3), stax.Relu(), stax.Dense(1))
rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4)).astype(np.float32)
Y = np.stack([np.sin(X.sum(1)), X[:, 0] * X[:, 1] + 0.3], axis=1)


@pytest.fixture(scope="module")
def feature_map():
    """24 features."""
    return ns.feature_map(MODEL, X, ns.RandomFeatures(12), key=jax.random.key(0))


@pytest.fixture
def on_device(monkeypatch):
    """From here on matrices stay with XLA: LAPACK is not there."""

    def begin():
        def refused(*args, **kwargs):
            raise AssertionError("a decomposition on the host")

        monkeypatch.setattr(_linalg, "PLATFORMS", ("cpu",))
        monkeypatch.setattr(scipy.linalg, "eigh", refused)
        monkeypatch.setattr(scipy.linalg, "cholesky", refused)
        for name in ("eigvalsh", "inv", "solve"):
            monkeypatch.setattr(np.linalg, name, refused)

    return begin


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n", [120, 20])
@pytest.mark.parametrize("select", ["loo", "gcv", "factor"])
def test_ridge(feature_map, on_device, monkeypatch, select, n, fit_intercept):
    """Of many examples by the spectrum and by factors, of few in the dual form."""
    if select == "factor":
        monkeypatch.setattr(examples, "FACTORED_PATH", 0)
    options = {"select": "gcv" if select == "factor" else select, "fit_intercept": fit_intercept}
    host = ns.ridge(feature_map, X[:n], Y[:n], diag_reg=PATH, **options)
    on_device()
    device = ns.ridge(feature_map, X[:n], Y[:n], diag_reg=PATH, **options)
    np.testing.assert_allclose(device.scores, host.scores, rtol=1e-6)
    largest = np.abs(host.path_weights).max()
    np.testing.assert_allclose(device.path_weights, host.path_weights, atol=1e-6 * largest)
    assert device.diag_reg == host.diag_reg
    for fit, other in zip(device.fits, host.fits, strict=True):
        assert fit.rank == other.rank
        assert fit.condition == pytest.approx(other.condition, rel=1e-6)
        assert 0 < fit.residual < 1e-12 * fit.condition


@pytest.mark.parametrize("n", [100, 20])
def test_gradient_descent(feature_map, on_device, n):
    def predictions():
        make = ns.predict.gradient_descent_mse_ensemble
        predict_fn = make(feature_map, X[:n], Y[:n], diag_reg=1e-2)
        return predict_fn(10.0, X[100:], ("ntk", "nngp"), compute_cov=True)

    host = predictions()
    on_device()
    for a, b in zip(jax.tree.leaves(predictions()), jax.tree.leaves(host), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_evidence(feature_map, on_device):
    options: dict = {"diag_reg": PATH}
    host = ns.predict.log_evidence(feature_map, X, Y, **options)
    on_device()
    np.testing.assert_allclose(
        ns.predict.log_evidence(feature_map, X, Y, **options), host, rtol=1e-9
    )
