"""Gram matrices of streamed features as operators."""

import jax
import numpy as np
import pytest
from scipy.sparse.linalg import cg

from ntk_sketch.spectral import FeatureGram, log_determinant, trace_of_function


@pytest.mark.parametrize("side", ["features", "examples"])
def test_products(make_map, make_data, side, tmp_path):
    """Of one vector and of several, in batches; from a file that the first pass writes."""
    feature_map, (x, _) = make_map(), make_data(45)
    z = np.asarray(feature_map(x).ntk).astype(np.float64)
    expected = z.T @ z if side == "features" else z @ z.T
    v = np.random.default_rng(0).normal(size=(len(expected), 3))
    for cache in (None, tmp_path / "z.safetensors"):
        gram = FeatureGram(feature_map, x, side=side, batch_size=16, cache=cache)
        assert gram.shape == expected.shape
        np.testing.assert_allclose(gram @ v, expected @ v, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(gram @ v[:, 0], expected @ v[:, 0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(gram.T @ v, expected @ v, rtol=1e-9, atol=1e-9)
    assert (tmp_path / "z.safetensors").exists()


def test_both_sides_have_one_determinant(make_map, make_data):
    """But for the shift of the examples that features do not reach."""
    feature_map, (x, _) = make_map(), make_data(45)
    z = np.asarray(feature_map(x).ntk).astype(np.float64)
    truth = np.linalg.slogdet(z @ z.T + 0.7 * np.eye(45))[1]
    options = {"shift": 0.7, "key": jax.random.key(0), "probes": 32}
    for side, missing in (("features", 45 - 20), ("examples", 0)):
        found = log_determinant(FeatureGram(feature_map, x, side=side), **options)
        least = 0.7 if side == "examples" else np.linalg.eigvalsh(z.T @ z)[0] + 0.7
        assert 0.7 <= found.interval[0] <= least + 1e-12
        value = found.value + missing * np.log(0.7)
        assert abs(value - truth) < 4 * found.standard_error + found.truncation_bound
    size = trace_of_function(
        FeatureGram(feature_map, x), lambda s: s / (s + 0.7), key=jax.random.key(0), probes=32
    )
    values = np.linalg.eigvalsh(z.T @ z)
    off = abs(size.value - np.sum(values / (values + 0.7)))
    assert off < 4 * size.standard_error + size.truncation_bound


def test_for_other_solvers(make_map, make_data):
    """SciPy takes it as any operator."""
    feature_map, (x, y) = make_map(), make_data(45)
    z = np.asarray(feature_map(x).ntk).astype(np.float64)
    found, failed = cg(FeatureGram(feature_map, x), z.T @ y[:, 0], rtol=1e-10)
    assert not failed
    np.testing.assert_allclose(z.T @ (z @ found), z.T @ y[:, 0], rtol=1e-6, atol=1e-6)


def test_refused(make_map, make_data):
    feature_map, (x, _) = make_map(), make_data(5)
    with pytest.raises(ValueError, match="side must be one of features, examples"):
        FeatureGram(feature_map, x, side="rows")
    with pytest.raises(ValueError, match="get must be one of nngp, ntk"):
        FeatureGram(feature_map, x, get="cov")
    with pytest.raises(ValueError, match="x is not finite"):
        FeatureGram(feature_map, x * np.nan)
