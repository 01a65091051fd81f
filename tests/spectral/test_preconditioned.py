"""Log-determinants with the largest eigenvalues taken out of the estimate."""

import warnings

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.solvers._nystroem_inverse import NystroemInverse
from ntk_sketch.spectral import FeatureGram, log_determinant
from ntk_sketch.spectral._options import checked_options
from ntk_sketch.spectral._preconditioned import preconditioned

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
    """P, its root and its determinant; what conjugate gradients have but for a factor."""
    nearly = NystroemInverse(lambda v: kernel @ v, 200, 30, 1e-16)
    root, shifted = nearly.root_at(SHIFT)(np.eye(200)), kernel + SHIFT * np.eye(200)
    p = np.linalg.inv(root @ root)
    assert np.linalg.slogdet(p)[1] == pytest.approx(nearly.log_determinant(SHIFT), rel=1e-10)
    rest = np.linalg.eigvalsh(p)[0]
    np.testing.assert_allclose(nearly.at(SHIFT)(np.eye(200)), rest * root @ root, atol=1e-8)
    values = np.linalg.eigvalsh(root @ shifted @ root)
    assert nearly.least(SHIFT) == pytest.approx(SHIFT / rest, rel=1e-6)
    assert nearly.least(SHIFT) <= values[0] < 1.5 * nearly.least(SHIFT)


@pytest.mark.parametrize("shift", [1e-3, 1e-5, 1e-6])
def test_of_rounded_products(shift):
    """A preconditioner made in float32, as on an accelerator; more rows than the 400 products in
    which a least eigenvalue is looked for."""
    x = np.random.default_rng(1).normal(size=(500, 2))
    a = np.exp(-((x[:, None] - x) ** 2).sum(-1))
    single = a.astype(np.float32)
    nearly = NystroemInverse(
        lambda v: (single @ v.astype(np.float32)).astype(np.float64), 500, 60, 1.2e-7
    )
    root = nearly.root_at(shift)(np.eye(500))
    assert nearly.least(shift) <= np.linalg.eigvalsh(root @ (a + shift * np.eye(500)) @ root)[0]
    options = checked_options("lanczos", 1e-2, 0.0, 32, None, None, True)
    given = lambda v: a @ v, nearly, 500, shift, KEY, options
    found = preconditioned(*given, streamed=False)
    truth = np.linalg.slogdet(a + shift * np.eye(500))[1]
    assert abs(found.value - truth) < 4 * found.standard_error + found.truncation_bound


def test_products_rounded_by_more_than_the_shift(kernel):
    options = {"method": "lanczos", "key": KEY, "rank": 30, "size": 200}
    message = r"rank=30: products of float32 are rounded by up to .* shift=1e-07: give float64"
    with pytest.raises(ValueError, match=message):
        log_determinant(jnp.asarray(kernel, jnp.float32), shift=1e-7, **options)


def test_warnings_name_the_caller(kernel):
    for rank in (0, 30):
        options = {"shift": SHIFT, "method": "lanczos", "key": KEY, "rank": rank}
        with pytest.warns(RuntimeWarning, match="after 512 probes") as caught:
            log_determinant(kernel, tolerance=1e-9, **options)
        assert [one.filename for one in caught] == [__file__]


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
    found = log_determinant(operator, tolerance=0, **options)
    exact = np.linalg.slogdet(a + 0.5 * np.eye(len(a)))[1]
    assert abs(found.value - exact) < 4 * found.standard_error + found.truncation_bound + 1e-5
    assert (found.probes % 32 == 0) == (kind != "JAX")


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
        ({"tolerance": 0.0}, "tolerance=0.0; needed: .* or 0 with an absolute_tolerance above 0"),
        ({"absolute_tolerance": -1.0}, "absolute_tolerance=-1.0; needed"),
        ({"absolute_tolerance": np.inf}, "absolute_tolerance=inf; needed"),
    ]:
        with pytest.raises(ValueError, match=message):
            log_determinant(kernel, **good | change)
    with pytest.raises(ValueError, match="rank=5: the preconditioner is made on the host"):
        jax.grad(lambda s: log_determinant(jnp.asarray(kernel), **good | {"shift": s}).value)(1.0)
