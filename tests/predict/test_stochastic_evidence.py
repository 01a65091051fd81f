"""The evidence from products, against the one from a decomposition."""

import jax
import numpy as np
import pytest

from ntk_sketch.predict import _stochastic_evidence, log_evidence

KEY = jax.random.key(0)
STOCHASTIC = {"log_determinant": "stochastic", "key": KEY}


@pytest.mark.parametrize(
    "n",
    [pytest.param(60, marks=pytest.mark.slow), 300],
    ids=["fewer examples", "more examples"],
)
@pytest.mark.parametrize(
    ("get", "options"),
    [
        ("ntk", {"diag_reg": [1e-2, 0.3]}),
        ("nngp", {"diag_reg": 0.5, "diag_reg_absolute_scale": True, "batch_size": 64}),
    ],
)
def test_equal_to_a_decomposition(make_map, make_data, monkeypatch, n, get, options):
    """On either side, for several outputs, relative regularisers and absolute ones."""
    monkeypatch.setattr(_stochastic_evidence, "TOLERANCE", 0.02)  # small matrices vary more
    feature_map, (x, y) = make_map(6, 150), make_data(n)
    exact = log_evidence(feature_map, x, y, get=get, **options)
    found = log_evidence(feature_map, x, y, get=get, **options, **STOCHASTIC)
    assert np.shape(found) == np.shape(exact)
    z = np.asarray(getattr(feature_map(x), get), np.float64)
    small = z.T @ z if z.shape[1] < n else z @ z.T
    scale = 1.0 if "diag_reg_absolute_scale" in options else np.sum(z**2) / n
    for one, other, diag_reg in zip(
        *map(np.atleast_1d, (found, exact, options["diag_reg"])), strict=True
    ):
        log_det = np.linalg.slogdet(small + diag_reg * scale * np.eye(len(small)))[1]
        error = 0.5 * y.shape[1] * 0.02 * abs(log_det)  # of one standard error, at most
        assert 0 < abs(one - other) < 3 * error


@pytest.mark.parametrize("n", [60, 300], ids=["fewer examples", "more examples"])
def test_all_but_the_probes(make_map, make_data, monkeypatch, n):
    """With an exact log-determinant in place of the estimate, the number of the decomposition."""

    class Exact:
        def __init__(self, gram, *, shift, **options):
            matrix = gram @ np.eye(gram.shape[0])
            self.value = np.linalg.slogdet(matrix + shift * np.eye(len(matrix)))[1]

    monkeypatch.setattr(_stochastic_evidence, "log_determinant", Exact)
    feature_map, (x, y) = make_map(6, 150), make_data(n)
    options = {"diag_reg": [1e-2, 0.3], "get": "ntk"}
    exact = log_evidence(feature_map, x, y, **options)
    found = log_evidence(feature_map, x, y, **options, **STOCHASTIC)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_refused(make_map, make_data):
    feature_map, (x, y) = make_map(), make_data(30)
    with pytest.raises(TypeError, match=r"draws probes: give key=jax.random.key\(0\)"):
        log_evidence(feature_map, x, y, diag_reg=0.1, get="ntk", log_determinant="stochastic")
    with pytest.raises(ValueError, match="log_determinant must be one of exact, stochastic"):
        log_evidence(feature_map, x, y, diag_reg=0.1, get="ntk", log_determinant="slq")
    with pytest.raises(ValueError, match="every diag_reg must be > 0"):
        log_evidence(feature_map, x, y, diag_reg=[0.1, 0.0], get="ntk", **STOCHASTIC)
    with pytest.raises(NotImplementedError, match="not differentiated or traced by JAX"):
        jax.grad(lambda d: log_evidence(feature_map, x, y, diag_reg=d, **STOCHASTIC))(0.1)
