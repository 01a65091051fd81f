"""Samples: their moments, and that each is one trained function."""

import jax
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import predict, stax

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(7)
TIMES = np.array([0.0, 30.0, np.inf])


@pytest.fixture(scope="module")
def feature_map():
    model = stax.serial(stax.Dense(8, 1.4, 0.3), stax.Erf(), stax.Dense(1, 1.2, 0.1))
    with jax.enable_x64(True):
        return ns.feature_map(model, data(40, 0)[0], ns.Nystroem(10), key=jax.random.key(0))


def data(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x, np.sin(2 * x[:, :2])


over_sides = pytest.mark.parametrize("n", [8, 60])


@over_sides
@pytest.mark.parametrize("get", others_slow(["nngp", "ntk", "ntkgp"], "ntk"))
def test_moments(feature_map, n, get):
    """Within 4.5 standard errors of mean and covariance: there are 200 of them."""
    x, y = data(n, 1)
    x_test, size = data(5, 2)[0], 20_000
    if get == "ntkgp":
        ours = predict.gp_inference(feature_map, x, y, diag_reg=0.05)
        expected = ours(get, x_test, True)
        mean, covariance = np.asarray(expected.mean)[None], np.asarray(expected.covariance)[None]
        samples = ours.sample(x_test, key=KEY, n_samples=size, get=get)[:, None]
    else:
        ours = predict.gradient_descent_mse_ensemble(feature_map, x, y, diag_reg=0.05)
        mean, covariance = map(np.asarray, ours(TIMES, x_test, get, True))
        samples = ours.sample(x_test, key=KEY, n_samples=size, t=TIMES, get=get)
    samples = np.asarray(samples)
    assert samples.shape == (size, *mean.shape)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    error = np.abs(samples.mean(0) - mean)
    assert np.all(error < 4.5 * np.sqrt(variances / size)[..., None])
    for output in range(2):
        centred = samples[..., output] - mean[..., output]
        found = np.einsum("sti,stj->tij", centred, centred) / size
        spread = variances[:, :, None] * variances[:, None, :] + covariance**2
        assert np.all(np.abs(found - covariance) < 4.5 * np.sqrt(spread / size))


@over_sides
def test_a_sample_is_a_network_that_is_trained(feature_map, n):
    """Its outputs at t are those of `gradient_descent_mse` from its outputs at 0."""
    x, y = data(n, 1)
    x_test, _ = data(5, 2)
    args = {"diag_reg": 0.05, "learning_rate": 0.6}
    ours = predict.gradient_descent_mse_ensemble(feature_map, x, y, **args, exact_diagonal=False)
    path = predict.gradient_descent_mse(feature_map, x, y, **args)
    start, *later = np.asarray(ours.sample(x_test, key=KEY, t=TIMES, get="ntk"))[0]
    [on_training] = np.asarray(ours.sample(x, key=KEY, t=0.0, get="ntk"))
    expected = path(TIMES[1:], on_training, start, x_test)[1]
    np.testing.assert_allclose(np.stack(later), expected, rtol=1e-9, atol=1e-9)
    # both halves of that are there to be wrong
    assert not np.allclose(expected, path(TIMES[1:], None, start, x_test), atol=0.1)
    assert not np.allclose(expected, path(TIMES[1:], on_training, 0.0, x_test)[1], atol=0.1)


def test_shapes_and_keys(feature_map):
    x, y = data(60, 1)
    x_test, _ = data(7, 2)
    ours = predict.gradient_descent_mse_ensemble(
        feature_map, x, y[:, 0], diag_reg=0.05, exact_diagonal=False
    )
    both = ours.sample(x_test, key=KEY, n_samples=3, t=np.ones((2, 4)))
    assert both._fields == ("nngp", "ntk")
    assert both.ntk.shape == both.nngp.shape == (3, 2, 4, 7)
    one = ours.sample(x_test, key=KEY, n_samples=3, get="ntk")
    assert one.shape == (3, 7)
    # a function: the same at other examples with it, and in other batches
    few = ours.sample(x_test[:2], key=KEY, n_samples=3, get="ntk")
    np.testing.assert_allclose(few, one[:, :2], rtol=1e-10)
    other = ours.sample(x_test, key=jax.random.key(8), n_samples=3, get="ntk")
    assert not np.allclose(other, one)
    with pytest.raises(TypeError, match=r"key must be a key of .*, got 3"):
        ours.sample(x_test, key=3)
    with pytest.raises(ValueError, match="n_samples must be a positive integer, got 0"):
        ours.sample(x_test, key=KEY, n_samples=0)
