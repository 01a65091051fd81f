"""Variances of maps with few features, with and without the corrected diagonal."""

import warnings

import jax
import numpy as np
import pytest

import ntk_sketch as ns

# isort: split
import neural_tangents as nt  # importable after `ntk_sketch`

from ntk_sketch import predict, stax

KEY = jax.random.key(0)
GETS = ("nngp", "ntk", "ntkgp")


def net():
    return stax.serial(stax.Dense(8, 1.4, 0.3), stax.Relu(), stax.Dense(1, 1.2, 0.1))


def data(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 6))
    return x, np.sin(x[:, :1])


@pytest.fixture
def small():
    """A map of 6 landmarks for inputs in 6 dimensions, and 40 examples."""
    x, y = data(40, 0)
    return ns.feature_map(net(), x, ns.Nystroem(6), key=KEY), x, y


def exact_variances(x, y, x_test, diag_reg):
    kernel_fn, both = net()[2], ("nngp", "ntk")
    theirs = nt.predict.gp_inference(kernel_fn(x, None, both), y, diag_reg=diag_reg)
    found = theirs(GETS, kernel_fn(x_test, x, both), kernel_fn(x_test, None, both))
    return {name: np.diag(getattr(found, name).covariance) for name in GETS}


@pytest.mark.usefixtures("float64")
def test_variances_of_a_small_map(small):
    """Near those of the exact kernel, or above; a small part of them without the diagonal."""
    feature_map, x, y = small
    x_test, _ = data(30, 1)
    exact = exact_variances(x, y, x_test, 1e-3)
    found = predict.gp_inference(feature_map, x, y, diag_reg=1e-3)(GETS, x_test, "diagonal")
    plain = predict.gp_inference(feature_map, x, y, diag_reg=1e-3, exact_diagonal=False)
    without = plain(GETS, x_test, "diagonal")
    for name in GETS:
        assert np.all(getattr(found, name).covariance > 0.8 * exact[name])
        assert np.median(getattr(without, name).covariance) < 0.1 * np.median(exact[name])
        np.testing.assert_array_equal(getattr(found, name).mean, getattr(without, name).mean)


@pytest.mark.usefixtures("float64")
def test_what_is_added(small):
    """k(x, x) - |z(x)|² of the prior's kernel, on the diagonal alone and at any time."""
    feature_map, x, y = small
    x_test, _ = data(11, 1)
    z = feature_map(x_test)
    exact = net()[2](x_test, None, ("nngp", "ntk"))
    lacks = {
        name: np.diag(getattr(exact, name)) - np.sum(np.asarray(getattr(z, name)) ** 2, axis=1)
        for name in ("nngp", "ntk")
    }
    assert min(v.min() for v in lacks.values()) > 0
    times = np.array([0.0, 2.0, np.inf])
    args = {"diag_reg": 1e-3, "batch_size": 4}
    ours, plain = (
        predict.gradient_descent_mse_ensemble(feature_map, x, y, **args, exact_diagonal=added)
        for added in (True, False)
    )
    for compute_cov in (True, "diagonal"):
        found, without = (f(times, x_test, None, compute_cov) for f in (ours, plain))
        for name in ("nngp", "ntk"):
            added = getattr(found, name).covariance - getattr(without, name).covariance
            expected = np.diag(lacks["nngp"]) if compute_cov is True else lacks["nngp"]
            np.testing.assert_allclose(added, np.stack([expected] * 3), atol=1e-12)
    # at t = 0 all variances are those of the exact prior
    prior = ours(0.0, x_test, "ntk", "diagonal").covariance
    np.testing.assert_allclose(prior, np.diag(exact.nngp), rtol=1e-10)
    ntkgp = [
        predict.gp_inference(feature_map, x, y, diag_reg=1e-3, exact_diagonal=added)(
            "ntkgp", x_test, "diagonal"
        ).covariance
        for added in (True, False)
    ]
    np.testing.assert_allclose(ntkgp[0] - ntkgp[1], lacks["ntk"], atol=1e-12)


def test_exact_features_miss_nothing():
    """Rounding of float32 adds nothing that counts, and takes nothing away."""
    x, y = (a.astype(np.float32) for a in data(30, 0))
    feature_map = ns.feature_map(net(), x, ns.Exact(), key=KEY)
    args = {"diag_reg": 1e-2}
    with_it, without = (
        predict.gp_inference(feature_map, x, y, **args, exact_diagonal=added)(
            "nngp", x, "diagonal"
        ).covariance
        for added in (True, False)
    )
    added = np.asarray(with_it) - np.asarray(without)
    prior = np.asarray(feature_map.diagonals(x)[0])
    assert np.all(added >= 0)
    assert np.all(added < 1e-5 * prior)


@pytest.mark.usefixtures("float64")
def test_normalised_features_miss_nothing_by_this_measure():
    """Random features have the exact norms: nothing is added, and their variances stay a small part
    of the exact ones, as the documentation says."""
    (x, y), (x_test, _) = data(200, 0), data(30, 1)
    feature_map = ns.feature_map(net(), x, ns.RandomFeatures(16), key=KEY)
    found, without = (
        predict.gp_inference(feature_map, x, y, diag_reg=1e-3, exact_diagonal=added)(
            "nngp", x_test, "diagonal"
        ).covariance
        for added in (True, False)
    )
    np.testing.assert_allclose(found, without, atol=1e-12)
    assert np.median(found) < 0.1 * np.median(exact_variances(x, y, x_test, 1e-3)["nngp"])


def test_maps_without_exact_variances(make_map, make_data):
    """Users' own callables, and maps averaged over transforms: a warning, or a word that the
    features alone are meant."""
    x, y = make_data(60)
    image = np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype(np.float32)
    conv = stax.serial(stax.Conv(1, (3, 3)), stax.Relu(), stax.Flatten())
    averaged = ns.feature_map(conv, image, ns.Nystroem(8), key=KEY).averaged(ns.maps.mirrored)
    for feature_map, inputs, targets in [(make_map(), x, y), (averaged, image, y[:9])]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            alone = predict.gp_inference(
                feature_map, inputs, targets, diag_reg=0.1, exact_diagonal=False
            )
            expected = alone("nngp", inputs[:4], True)
            predict.gp_inference(feature_map, inputs, targets, diag_reg=0.1)("nngp", inputs[:4])
        ours = predict.gp_inference(feature_map, inputs, targets, diag_reg=0.1)
        with pytest.warns(RuntimeWarning, match=r"too small by .*exact_diagonal=False") as told:
            found = ours("nngp", inputs[:4], True)
        assert told[0].filename == __file__
        np.testing.assert_array_equal(found.covariance, expected.covariance)
        with pytest.warns(RuntimeWarning, match="features alone") as told:
            ours.sample(inputs[:4], key=KEY, get="nngp")
        assert told[0].filename == __file__
