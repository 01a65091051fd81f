"""Regression and predictions on features of a finite network, against Neural Tangents."""

import warnings

import jax
import neural_tangents as nt
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch.empirical import empirical_feature_map
from ntk_sketch.solvers import accumulate, solve


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(30, 3)).astype("f4"), rng.normal(size=(7, 3)).astype("f4")
    return x, np.sin(x[:, :2]), x_test


@pytest.fixture(scope="module")
def features(tiny):
    """All rows: the features are exact."""
    key = jax.random.key(0)
    return empirical_feature_map(tiny.apply_fn, tiny.params, 64, key=key, x=tiny.x)


@pytest.fixture(scope="module")
def kernels(tiny, data):
    """(train, train) and (test, train), in float64."""
    x, _, x_test = data
    fn = nt.empirical_ntk_fn(tiny.apply_fn)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return [np.asarray(fn(a, x, tiny.params), "f8") for a in (x, x_test)]


def test_ridge(features, data, kernels):
    x, y, x_test = data
    train, test = kernels
    penalty = 1e-2 * np.trace(train) / len(x)
    expected = test @ np.linalg.solve(train + penalty * np.eye(len(x)), y)
    solution = ns.ridge(features, x, y, diag_reg=1e-2)
    np.testing.assert_allclose(solution.predict(x_test), expected, atol=1e-4)
    path = ns.ridge(features, x, y, diag_reg=[1e-3, 1e-2], select="loo", batch_size=8)
    assert path.diag_reg in (1e-3, 1e-2)


def test_accumulated_in_pieces(tiny, features, data):
    """Statistics of the same map are added, of another one refused."""
    x, y, x_test = data
    whole = solve(features, accumulate(features, x, y), diag_reg=1e-2)
    states = [accumulate(features, x[rows], y[rows]) for rows in (slice(0, 13), slice(13, None))]
    merged = solve(features, states[0].merge(states[1]), diag_reg=1e-2)
    np.testing.assert_allclose(merged.predict(x_test), whole.predict(x_test), atol=1e-4)
    other = empirical_feature_map(
        tiny.apply_fn, tiny.params, 64, key=jax.random.key(1), x=tiny.x, mode="reverse"
    )
    with pytest.raises(ValueError, match=r"differ.* in what was drawn"):
        states[0].merge(accumulate(other, x, y))


def test_linearised_training(tiny, features, data, kernels):
    """The trajectory of gradient descent from the network's own outputs, at three times."""
    x, y, x_test = data
    train, test = kernels
    outputs = [np.asarray(tiny.apply_fn(tiny.params, a)) for a in (x, x_test)]
    times = [0.0, 30.0, 1e3]
    ours = ns.predict.gradient_descent_mse(features, x, y, diag_reg=1e-3)
    predict = nt.predict.gradient_descent_mse(train.astype("f4"), y, diag_reg=1e-3)
    for t in times:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            expected = predict(t, *outputs, test.astype("f4"))[1]
        found = ours(t, *outputs, x_test)[1]
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_exact_variances(features, data, kernels):
    """Of gradients that are not sketched; `predict` asks for them, and has no reason to warn."""
    x, y, x_test = data
    _, diagonal = features.diagonals(x)
    np.testing.assert_allclose(diagonal, np.diag(kernels[0]), rtol=1e-5)
    predict_fn = ns.predict.gradient_descent_mse_ensemble(features, x, y, diag_reg=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, variance = predict_fn(x_test=x_test, get="ntk", compute_cov="diagonal")
    assert mean.shape == (7, 2)
    assert np.all(variance > 0)


def test_fingerprint(tiny):
    """The same for the same map, another for another network, width, key or parameters."""

    def of(apply_fn=tiny.apply_fn, params=tiny.params, width=8, key=0):
        options = {"key": jax.random.key(key), "x": tiny.x}
        return empirical_feature_map(apply_fn, params, width, **options).fingerprint

    def twice(params, x):
        return 2 * tiny.apply_fn(params, x)

    first = of()
    assert first == of()
    assert of(twice).model != first.model
    assert of(width=9).method != first.method
    assert of(key=1)[:2] == first[:2]
    assert of(key=1).arrays != first.arrays
    assert of(params=jax.tree.map(lambda p: 2 * p, tiny.params)).arrays != first.arrays


def test_approximation_error(features, data):
    """Against the map's own exact kernel: rounding alone."""
    errors = ns.approximation_error(features, data[0], pairs=21, key=jax.random.key(0))
    assert errors["ntk"].relative.value < 1e-5
    assert errors["nngp"].relative.value < 1e-5
