"""The evidence from products, against the one from a decomposition."""

from functools import partial

import jax
import numpy as np
import pytest

from ntk_sketch.predict import _stochastic_evidence, log_evidence
from ntk_sketch.solvers import ConjugateGradient

KEY = jax.random.key(0)
STOCHASTIC = {"log_determinant": "stochastic", "key": KEY}


@pytest.mark.parametrize("n", [60, 300], ids=["fewer examples", "more examples"])
@pytest.mark.parametrize(
    ("get", "options"),
    [
        ("ntk", {"diag_reg": [1e-2, 0.3]}),
        ("nngp", {"diag_reg": 0.5, "diag_reg_absolute_scale": True, "batch_size": 64}),
    ],
)
def test_equal_to_a_decomposition(make_map, make_data, n, get, options):
    """Where the preconditioner has all directions: on either side, for several outputs, relative
    regularisers and absolute ones."""
    feature_map, (x, y) = make_map(6, 150), make_data(n)
    exact = log_evidence(feature_map, x, y, get=get, **options)
    found = log_evidence(feature_map, x, y, get=get, **options, **STOCHASTIC)
    assert np.shape(found) == np.shape(exact)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_as_close_as_promised(make_map, make_data, monkeypatch):
    """Where probes have to estimate most directions; several keys, each its own estimate."""
    monkeypatch.setattr(
        _stochastic_evidence, "ConjugateGradient", partial(ConjugateGradient, rank=60)
    )
    feature_map, (x, y) = make_map(6, 150), make_data(300)
    options = {"diag_reg": [0.05, 0.5], "get": "ntk"}
    exact = log_evidence(feature_map, x, y, **options)
    seen = []
    for seed in range(3):
        how = {"log_determinant": "stochastic", "key": jax.random.key(seed)}
        seen.append(log_evidence(feature_map, x, y, **options, **how))
    off = np.array(seen) - exact
    most = 0.5 * y.shape[1] * _stochastic_evidence.TOLERANCE * len(x)
    assert (np.abs(off) < 3 * most).all()
    assert (np.abs(off) > 1e-4 * most).all()
    assert len(np.unique(off)) == off.size


def test_warnings_name_the_caller(make_map, make_data, monkeypatch):
    """Of too few probes, and of conjugate gradients that have not converged."""
    solver = partial(ConjugateGradient, rank=5, max_iterations=2)
    monkeypatch.setattr(_stochastic_evidence, "ConjugateGradient", solver)
    monkeypatch.setattr(_stochastic_evidence, "TOLERANCE", 1e-7)
    feature_map, (x, y) = make_map(6, 150), make_data(300)
    with pytest.warns(RuntimeWarning) as caught:
        log_evidence(feature_map, x, y, diag_reg=0.3, get="ntk", **STOCHASTIC)
    texts = [str(one.message) for one in caught]
    assert [one.filename for one in caught] == [__file__] * 2
    assert "have not converged" in texts[0]
    assert "Differences of values of one key are more accurate" in texts[1]


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
