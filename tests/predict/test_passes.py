"""How often examples are read, in which batches, and in which precision."""

import jax
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import predict, stax
from ntk_sketch.solvers import _sums

KEY = jax.random.key(0)


def net():
    return stax.serial(stax.Dense(8, 1.4, 0.3), stax.Erf(), stax.Dense(1, 1.2, 0.1))


def data(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 5))
    return x, np.sin(2 * x[:, :2])


@pytest.mark.parametrize("n", [20, 90])
def test_training_examples_are_streamed_once(make_map, make_data, n):
    x, y = make_data(n)
    x_test, _ = make_data(5, seed=1)
    done = []

    def computed(*args, **kwargs):
        del done[:]
        ours(*args, **kwargs)
        return sum(done)

    options = {"diag_reg": 0.1, "progress": done.append, "exact_diagonal": False}
    ours = predict.gradient_descent_mse_ensemble(make_map(), x, y, **options)
    assert done == []
    assert computed(x_test=x_test, get="ntk") == n + 5
    assert computed(x_test=x_test, get="ntk", t=3.0) == 5
    # products between both kernels' features are needed now, and then serve each of them
    assert computed(x_test=x_test, get="ntk", compute_cov=True) == n + 5
    assert computed(x_test=x_test, compute_cov=True) == 5
    assert computed(x_test=x_test, get="nngp", t=np.ones(3), compute_cov="diagonal") == 5
    assert computed(get="ntk", compute_cov=True) == 0  # t = ∞: the targets
    # the training examples at finite times: ZZᵀ knows them, ZᵀZ does not
    assert (computed(t=1.0, get="ntk") == 0) == (n == 20)
    path = predict.gradient_descent_mse(make_map(), x, y, diag_reg=0.1, progress=done.append)
    del done[:]
    path(2.0, None, 0.0, x_test)
    assert sum(done) == n + 5


@pytest.mark.parametrize("n", [20, 90])
@pytest.mark.usefixtures("float64")
def test_batches(n):
    """Whatever their size, and of whatever calls the statistics are."""
    x, y = data(n)
    x_test, _ = data(13, 1)
    feature_map = ns.feature_map(net(), x, ns.RandomFeatures(12), key=KEY)
    results = []
    for size in (4, 7, 200):
        args = {"diag_reg": 0.1, "batch_size": size}
        ours = predict.gradient_descent_mse_ensemble(feature_map, x, y, **args)
        if size == 7:
            ours(x_test=x_test, get="ntk")
        results.append(
            [ours(t, x_test, None, cov) for t in (2.0, None) for cov in (True, "diagonal")]
        )
    for other in results[1:]:
        for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("on_host", others_slow([True, False], False))
def test_float32(monkeypatch, on_host):
    """Half of the digits at worst: rounding of features by eps moves a coordinate that is divided
    by √(s + λ) by eps √(s / λ), s the largest eigenvalue."""
    monkeypatch.setattr(_sums, "_on_host", lambda: on_host)
    x, y = data(300)
    x_test, _ = data(20, 1)
    results, penalty = {}, 1e-3
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            a, b, c = (v.astype(dtype) for v in (x, y, x_test))
            feature_map = ns.feature_map(net(), a[:40], ns.Nystroem(30), key=KEY)
            ours = predict.gp_inference(feature_map, a, b, diag_reg=penalty)
            found = ours(None, c, "diagonal")
            assert found.ntk.mean.dtype == found.ntk.covariance.dtype == dtype
            results[dtype] = jax.tree.map(np.asarray, found)
            prior = float(feature_map.diagonals(c)[0].max())
    error = 4 * np.finfo(np.float32).eps * np.sqrt(len(x) / penalty)
    for name in ("nngp", "ntk"):
        found, exact = (getattr(results[dtype], name) for dtype in ("float32", "float64"))
        np.testing.assert_allclose(found.mean, exact.mean, atol=error * np.abs(y).max())
        np.testing.assert_allclose(found.covariance, exact.covariance, atol=error * prior)


def test_few_examples_and_many_features_at_rest():
    """No regulariser, repeated examples: a warning of directions that are rounding and dropped."""
    x, y = (a.astype(np.float32) for a in data(12))
    x, y = np.concatenate([x, x]), np.concatenate([y, y])
    feature_map = ns.feature_map(net(), x, ns.RandomFeatures(64), key=KEY)
    ours = predict.gp_inference(feature_map, x, y)
    with pytest.warns(RuntimeWarning, match="ntk kernel .* rank-deficient at diag_reg=0") as told:
        mean = ours("ntk", x[:12])
    assert told[0].filename == __file__
    np.testing.assert_allclose(mean, y[:12], atol=1e-3)
