"""Kernels of fully connected nets as power series, against Neural Tangents; radial factors."""

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES, standard
from jax import numpy as jnp

from ntk_sketch import stax
from ntk_sketch.series import (
    gegenbauer_from_powers,
    gegenbauer_polynomials,
    hermite_coefficients,
    input_series,
)
from ntk_sketch.series._radial import GegenbauerFactors, RadialFactors

pytestmark = pytest.mark.usefixtures("float64")
RADII = np.geomspace(0.4, 1.6, 5)
COSINES = np.linspace(-0.6, 0.6, 7)
D = 3


def residual():
    branch = stax.serial(stax.Dense(4, 1.1, 0.2), stax.Gelu(), stax.Dense(2, 0.9))
    return stax.serial(
        stax.Dense(2, 1.2, 0.1), stax.FanOut(2), stax.parallel(branch, stax.Identity())
    )


NETS = {
    "relu": lambda: stax.serial(
        stax.Dense(3, 2**0.5, 0.1), stax.Relu(), stax.Dense(3, 1.2), stax.Relu(), stax.Dense(1)
    ),
    "repeat": lambda: stax.serial(
        stax.repeat(stax.serial(stax.Dense(3, 1.1, 0.3), stax.Erf()), 2), stax.Dense(2)
    ),
    "standard": lambda: stax.serial(
        standard(6, (1, 2), W_std=1.2, b_std=0.3), stax.Gelu(), standard(5, (2, 3), W_std=0.9)
    ),
    "layer norm": lambda: stax.serial(
        stax.Dense(3, 1.1, 0.3), stax.LayerNorm(), NONLINEARITIES["Sin"](), stax.Dense(2)
    ),
    "sum": lambda: stax.serial(residual(), stax.FanInSum(), stax.Erf(), stax.Dense(1)),
    "concatenation": lambda: stax.serial(
        residual(), stax.FanInConcat(-1), stax.Dense(3), stax.Sin()
    ),
    "sign": lambda: stax.serial(stax.Dense(3, 1.0, 0.2), stax.Sign(), stax.Dense(2, 1.0, 0.1)),
}


def exact(model, r, s):
    """K and Θ at cosines, of inputs of root mean square r and s."""
    x = np.array([[1.0, 0, 0]]) * r * D**0.5
    sines = np.sqrt(1 - COSINES**2)
    y = np.stack([COSINES, sines, 0 * sines], axis=1) * s * D**0.5
    return jax.jit(lambda x, y: model[2](x, y, ("nngp", "ntk")))(x, y)


@pytest.mark.parametrize("net", NETS)
def test_series_are_the_kernels(net):
    model = NETS[net]()
    series = model.rule.series(input_series(RADII, 64, ntk=True, channels=D))
    powers = COSINES[:, None] ** np.arange(65)
    for i, j in ((0, 0), (1, 4)):
        truth = exact(model, RADII[i], RADII[j])
        # 0.6^64 is 1e-14; with a bias, cosines behind it are larger than those of the inputs.
        tolerance = {"relu": 1e-7, "sign": 1e-7}.get(net, 1e-9)
        for kind in ("nngp", "ntk"):
            found = powers @ getattr(series, kind)[i, j]
            np.testing.assert_allclose(found, getattr(truth, kind)[0], rtol=tolerance, atol=1e-12)
    one = jnp.asarray([[1.0, 0, 0]]) * RADII[2] * D**0.5
    diagonal = model[2](one, None, ("nngp", "ntk"))
    assert series.variances[2] == pytest.approx(float(diagonal.nngp[0, 0]), rel=1e-9)
    assert series.ntk_variances[2] == pytest.approx(float(diagonal.ntk[0, 0]), rel=1e-9)
    for coefficients, _ in series.kernels():
        smallest = np.linalg.eigvalsh(np.moveaxis(coefficients, -1, 0))[:, 0]
        assert smallest.min() > -1e-12 * coefficients.max()


def test_only_what_is_asked_for():
    series = NETS["layer norm"]().rule.series(input_series(RADII, 8, ntk=False, channels=D))
    assert series.ntk is None
    assert len(list(series.kernels())) == 1


def test_radial_factors():
    """Between the norms of the grid too; one component for a homogeneous kernel."""
    grid = np.geomspace(0.3, 3, 25)
    series = NETS["repeat"]().rule.series(input_series(grid, 64, ntk=True, channels=D))
    factors = RadialFactors(grid[0], grid[-1], series.ntk, series.ntk_variances)
    between = np.array([0.5, 0.77, 2.2])
    h = np.asarray(factors(jnp.asarray(between)))
    truth = NETS["repeat"]().rule.series(input_series(between, 64, ntk=True, channels=D))
    scale = np.sqrt(np.outer(truth.ntk_variances, truth.ntk_variances))
    found = np.einsum("rli,sli->rsl", h, h)
    # Components of less than 1e-8 of the energy are left out.
    np.testing.assert_allclose(found, truth.ntk / scale[..., None], atol=1e-6)
    np.testing.assert_allclose(factors.diagonal(jnp.asarray(between)), truth.ntk_variances, 1e-5)

    model = stax.serial(stax.Dense(1, 2**0.5), stax.Relu(), stax.Dense(1))
    series = model.rule.series(input_series(grid, 16, ntk=True, channels=D))
    factors = RadialFactors(grid[0], grid[-1], series.ntk, series.ntk_variances)
    assert factors.components == 1
    beyond = jnp.asarray([0.01, 40.0, 0.0])  # a power law
    np.testing.assert_allclose(factors.diagonal(beyond)[:2], 2 * beyond[:2] ** 2, rtol=1e-6)
    assert np.isfinite(factors(beyond)).all()


@pytest.mark.parametrize(
    ("name", "derivative", "components"), [("Relu", False, 1), ("Gelu", True, None)]
)
def test_gegenbauer_factors(name, derivative, components):
    dual = NONLINEARITIES[name]().rule.dual
    factors = GegenbauerFactors(dual, 40, 5, derivative=derivative, radii=(0.1, 2.0))
    assert components in (None, factors.components)
    norms = jnp.asarray([0.2, 0.9, 1.7])
    h = np.asarray(factors(norms))
    t = np.linspace(-0.7, 0.7, 9)
    p = gegenbauer_polynomials(t, 5, 40)
    found = np.einsum("rli,sli,tl->rst", h, h, p)
    r, s = norms[:, None, None], norms[None, :, None]
    cosines = jnp.asarray(t)[None, None, :]
    truth = dual(*jnp.broadcast_arrays(cosines * r * s, r**2, s**2))[derivative]
    diagonal = np.asarray(dual(norms**2, norms**2, norms**2)[derivative])
    scale = np.sqrt(np.outer(diagonal, diagonal))[..., None]
    np.testing.assert_allclose(found, truth / scale, atol=1e-6)


@pytest.mark.parametrize("name", ["Relu", "Gelu", "Sign"])
@pytest.mark.parametrize("derivative", [False, True])
def test_gegenbauer_factors_keep_the_diagonal(name, derivative):
    """What a short series leaves out is the last power's, in its Gegenbauer polynomials."""
    dual, norms = NONLINEARITIES[name]().rule.dual, np.array([0.2, 0.9, 1.7])
    factors = GegenbauerFactors(dual, 3, 5, derivative=derivative, radii=(0.1, 2.0))
    h = np.asarray(factors(jnp.asarray(norms)))
    found = np.einsum("rli,sli->rsl", h, h)
    series = hermite_coefficients(dual, norms, 3, derivative=derivative)
    root = np.sqrt(series.second_moment)[:, None]
    c = np.divide(series.values, root, out=np.zeros_like(series.values), where=root > 0)
    c = np.c_[c, np.sqrt(series.tail)]
    matrix = gegenbauer_from_powers(5, 3)[:, [0, 1, 2, 3, 3]]
    np.testing.assert_allclose(found, (c[:, None] * c) @ matrix.T, atol=1e-6)
    diagonal = np.where(series.second_moment > 0, 1, 0)
    np.testing.assert_allclose(np.diagonal(found.sum(-1)), diagonal, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: stax.Conv(1, (1, 1)), "no power series"),
        (lambda: stax.GlobalAvgPool(), "no power series"),
        (lambda: stax.Dropout(0.5), "no power series"),
        (lambda: stax.Aggregate(), "no power series"),
    ],
)
def test_layers_without_a_series_say_so(layer, message):
    model = stax.serial(stax.Dense(1), layer())
    with pytest.raises(NotImplementedError, match=message) as caught:
        model.rule.series(input_series(RADII, 4, ntk=True, channels=D))
    assert any(layer().name in note for note in getattr(caught.value, "__notes__", ())) or (
        layer().name in str(caught.value)
    )


def test_layer_norm_adds_eps_to_the_variances():
    """`K / √((r² + eps) (r'² + eps))` of inputs, whose series is `r r' ρ`."""
    eps = 0.3
    normalised = input_series(RADII, 4, ntk=False, channels=D).layer_norm(eps)
    expected = np.outer(RADII, RADII) / np.sqrt(np.outer(RADII**2 + eps, RADII**2 + eps))
    np.testing.assert_allclose(normalised.nngp[..., 1], expected, rtol=1e-14)
    np.testing.assert_allclose(normalised.variances, RADII**2 / (RADII**2 + eps), rtol=1e-14)
