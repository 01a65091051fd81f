"""Log-determinants with the largest eigenvalues taken out of the estimate."""

import warnings

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.solvers._nystroem_inverse import NystroemInverse
from ntk_sketch.spectral import FeatureGram, log_determinant

KEY = jax.random.key(0)
SHIFT = 1e-3


@pytest.fixture(scope="module")
def kernel():
    x = np.random.default_rng(0).normal(size=(200, 2))
    return np.exp(-((x[:, None] - x) ** 2).sum(-1))


@pytest.fixture(scope="module")
def truth(kernel):
    return np.linalg.slogdet(kernel + SHIFT * np.eye(200))[1]


def test_preconditioner(kernel):
    """P is U diag(s) Uᵀ + λI, which A + λI is not below."""
    nearly = NystroemInverse(lambda v: kernel @ v, 200, 30, 1e-16)
    p = np.linalg.inv(nearly.root_at(SHIFT)(nearly.root_at(SHIFT)(np.eye(200))))
    assert np.linalg.slogdet(p)[1] == pytest.approx(nearly.log_determinant(SHIFT), rel=1e-10)
    low, high = np.linalg.eigvalsh(p)[[0, -1]]
    assert (low, high) == pytest.approx((SHIFT, nearly.largest + SHIFT), rel=1e-6)
    root = nearly.root_at(SHIFT)(np.eye(200))
    values = np.linalg.eigvalsh(root @ (kernel + SHIFT * np.eye(200)) @ root)
    assert values[0] > 1 - 1e-9
    nearly_inverse = nearly.at(SHIFT)(np.eye(200))  # up to a factor, and equal below rank
    below = nearly._values[-1] + SHIFT
    inverse = np.linalg.inv(
        p + nearly._values[-1] * (np.eye(200) - nearly._vectors @ nearly._vectors.T)
    )
    np.testing.assert_allclose(nearly_inverse, below * inverse, atol=1e-8)


@pytest.mark.parametrize("rank", [60, 200, 1000])
def test_less_is_left_to_probes(kernel, truth, rank):
    options = {"shift": SHIFT, "method": "lanczos", "key": KEY, "probes": 16}
    plain = log_determinant(kernel, **options)
    found = log_determinant(kernel, rank=rank, **options)
    assert abs(plain.value - truth) < 4 * plain.standard_error
    assert found.degree < plain.degree
    if rank == 60:
        assert found.standard_error < plain.standard_error / 4
        assert abs(found.value - truth) < 4 * found.standard_error + found.truncation_bound
        assert abs(found.value - truth) > 1e-9 * abs(truth)
    else:  # of all directions
        assert found.value == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("kind", ["JAX", "features", "examples"])
def test_kinds_of_operators(kernel, make_map, make_data, kind):
    options = {"shift": 0.5, "method": "lanczos", "key": KEY, "rank": 10, "absolute_tolerance": 1.0}
    if kind == "JAX":
        a, operator = kernel, jnp.asarray(kernel)
        options["size"] = 200
    else:
        feature_map, (x, _) = make_map(), make_data(45)
        z = np.asarray(feature_map(x).ntk).astype(np.float64)
        a = z.T @ z if kind == "features" else z @ z.T
        operator = FeatureGram(feature_map, x, side=kind)
    found = log_determinant(operator, tolerance=1e-9, **options)
    exact = np.linalg.slogdet(a + 0.5 * np.eye(len(a)))[1]
    assert abs(found.value - exact) < 4 * found.standard_error + found.truncation_bound + 1e-5
    assert found.probes % (8 if kind == "JAX" else 32) == 0


@pytest.mark.parametrize("rank", [0, 10])
def test_an_absolute_tolerance(kernel, rank):
    """Of a log-determinant of about 0, to which nothing can be relative."""
    a = kernel + SHIFT * np.eye(200)
    unit = np.exp(np.linalg.slogdet(a)[1] / 200)
    options = {"method": "lanczos", "key": KEY, "rank": rank}
    options["shift"] = SHIFT / unit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = log_determinant(kernel / unit, absolute_tolerance=8.0, **options)
    assert found.standard_error + found.truncation_bound <= 8
    assert abs(found.value) < 3 * 8
    assert found.probes < 512
    with pytest.warns(RuntimeWarning, match=r"after 512 probes .* absolute_tolerance=0\. Give"):
        log_determinant(kernel / unit, tolerance=1e-6, **options)


def test_refused(kernel):
    good = {"shift": SHIFT, "method": "lanczos", "key": KEY, "rank": 5}
    for change, message in [
        ({"shift": 0.0}, r"plus a shift above 0, .* got shift=0.0"),
        ({"method": "chebyshev"}, "got .*method='chebyshev'"),
        ({"interval": (1e-3, 9.0)}, r"got .*interval=\(0.001, 9.0\)"),
        ({"rank": -1}, "rank"),
        ({"shift": -1.0}, "shift=-1.0; needed"),
        ({"absolute_tolerance": -1.0}, "absolute_tolerance=-1.0; needed"),
        ({"absolute_tolerance": np.inf}, "absolute_tolerance=inf; needed"),
    ]:
        with pytest.raises(ValueError, match=message):
            log_determinant(kernel, **good | change)
    with pytest.raises(ValueError, match="rank=5: the preconditioner is made on the host"):
        jax.grad(lambda s: log_determinant(jnp.asarray(kernel), **good | {"shift": s}).value)(1.0)
