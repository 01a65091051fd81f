"""`approximation_error` against its definitions, and its standard errors against real spreads."""

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.diagnostics._approximation_error import Estimate, KernelError, _kernel_error

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


def net():
    """Without kinks, at which NT's kernels are exact to the square root of rounding only."""
    return stax.serial(stax.Dense(4, 1.3, 0.2), stax.Erf(), stax.Dense(4, 1.1, 0.1), stax.Erf())


def inputs(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 5))


def naive(close, exact, diag_reg):
    """The definitions, written out."""
    n = len(exact)
    centring = np.eye(n) - np.ones((n, n)) / n

    def relative(a, b):
        return np.sqrt(((a - b) ** 2).sum() / (b**2).sum())

    values, vectors = np.linalg.eigh(exact + diag_reg * np.mean(np.diag(exact)) * np.eye(n))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return {
        "relative": relative(close, exact),
        "centred": relative(centring @ close @ centring, centring @ exact @ centring),
        "spectral": np.linalg.norm(root @ (close - exact) @ root, 2),
    }


@pytest.mark.parametrize("diag_reg", [1e-3, 0.3])
def test_definitions(diag_reg):
    """With all examples in the subset, errors do not depend on their order."""
    x = inputs(9)
    model = net()
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(16), key=KEY)
    errors = ns.approximation_error(feature_map, x, pairs=45, key=KEY, diag_reg=diag_reg)
    assert set(errors) == {"nngp", "ntk"}
    for name, error in errors.items():
        assert isinstance(error, KernelError)
        assert error.n_examples == 9
        close = np.asarray(feature_map.kernel_fn(x, None, name))
        exact = np.asarray(model[2](x, None, name))
        for kind, value in naive(close, exact, diag_reg).items():
            estimate = getattr(error, kind)
            assert isinstance(estimate, Estimate)
            assert estimate.standard_error > 0
            # Rounding over the smallest relative eigenvalue of `exact` + λ, above 1e-5.
            np.testing.assert_allclose(estimate.value, value, rtol=1e-9)


def test_the_subset_is_drawn_by_the_key():
    x = inputs(30)
    feature_map = ns.feature_map(net(), x, ns.RandomFeatures(16), key=KEY)
    first, again, other = (
        ns.approximation_error(feature_map, x, pairs=40, key=jax.random.key(k))["ntk"]
        for k in (1, 1, 2)
    )
    # 8 · 9 / 2 = 36 ≤ 40 < 45.
    assert first.n_examples == 8
    assert first == again
    assert first.relative != other.relative


def test_only_what_the_map_has():
    x = inputs(5)
    feature_map = ns.feature_map(net(), x, ns.RandomFeatures(16), key=KEY, get="ntk")
    assert set(ns.approximation_error(feature_map, x, pairs=15, key=KEY)) == {"ntk"}


def test_exact_features_have_no_error():
    x = inputs(6)
    feature_map = ns.feature_map(net(), x, ns.Exact(), key=KEY)
    for error in ns.approximation_error(feature_map, x, pairs=21, key=KEY).values():
        # What `Exact` promises on its sample; the spectral error divides it by λ.
        assert error.relative.value < 1e-8
        assert error.centred.value < 1e-8
        assert error.spectral.value < 1e-8 / 1e-3


def test_errors_fall_with_width():
    """Like width^(-1/2): 16 times the width, a quarter of the error; half is asked for."""
    x = inputs(12)
    small, large = (
        ns.approximation_error(
            ns.feature_map(net(), x, ns.RandomFeatures(width, orthogonal=False), key=KEY),
            x,
            pairs=78,
            key=KEY,
        )
        for width in (64, 1024)
    )
    for name in ("nngp", "ntk"):
        for kind in ("relative", "centred", "spectral"):
            before, after = (getattr(e[name], kind).value for e in (small, large))
            assert after < before / 2


def test_standard_errors():
    """The mean estimate of 30 subsets is within a factor 3 of the spread between them."""
    x, model = inputs(600), net()
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(32), key=KEY, get="ntk")
    close, exact = (np.asarray(fn(x, None, "ntk")) for fn in (feature_map.kernel_fn, model[2]))
    blocks = [slice(20 * i, 20 * (i + 1)) for i in range(30)]
    errors = [_kernel_error(close[b, b], exact[b, b], 1e-3) for b in blocks]
    for kind in ("relative", "centred"):
        estimates = [getattr(error, kind) for error in errors]
        spread = np.std([e.value for e in estimates], ddof=1)
        claimed = np.mean([e.standard_error for e in estimates])
        assert spread / 3 < claimed < 3 * spread


# ------------------------------------------------------------------ errors


@pytest.fixture(scope="module")
def small_map():
    x = inputs(4).astype(np.float32)
    return ns.feature_map(net(), x, ns.RandomFeatures(4), key=KEY)


def test_bad_input(small_map):
    with pytest.raises(ValueError, match="pairs=5: at least 6 are needed"):
        ns.approximation_error(small_map, inputs(9), pairs=5, key=KEY)
    with pytest.raises(ValueError, match="x has 2 examples; at least 3"):
        ns.approximation_error(small_map, inputs(2), pairs=50, key=KEY)
    with pytest.raises(ValueError, match=r"x has shape \(9, 4\).*need \(n, 5\)"):
        ns.approximation_error(small_map, inputs(9)[:, :4], pairs=50, key=KEY)
    with pytest.raises(ValueError, match="NaN or infinite"):
        ns.approximation_error(small_map, inputs(9) * np.nan, pairs=50, key=KEY)
    with pytest.raises(TypeError, match="dtype int"):
        ns.approximation_error(small_map, inputs(9).astype(int), pairs=50, key=KEY)


def test_standard_errors_are_the_jackknifes():
    """`(g - 1) / g Σ (θ_i - mean θ)²` over the g estimates without one example each."""
    rng = np.random.default_rng(3)
    exact = (lambda a: a @ a.T)(rng.normal(size=(7, 9)))
    noise = 0.1 * rng.normal(size=(7, 7))
    close = exact + noise + noise.T
    without = []
    for left_out in range(7):
        keep = np.delete(np.arange(7), left_out)
        part = np.ix_(keep, keep)
        without.append(np.linalg.norm((close - exact)[part]) / np.linalg.norm(exact[part]))
    expected = np.sqrt(6 / 7 * np.sum((without - np.mean(without)) ** 2))
    found = _kernel_error(close, exact, 1e-3).relative.standard_error
    np.testing.assert_allclose(found, expected, rtol=1e-12)
