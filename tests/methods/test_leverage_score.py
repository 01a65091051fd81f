"""`LeverageScore`: its density, its weights, and that both kernels are unbiased."""

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp
from marks import crossed
from scipy import stats

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.activations import DualActivation
from ntk_sketch.methods._leverage_score import _draw, norm_does_not_matter

pytestmark = pytest.mark.usefixtures("float64")

KEYS = 1024
# The probability of four standard errors, for tests of a whole distribution.
RARE = 2 * stats.norm.sf(4)


def directions(d, m, orthogonal, keys=2000):
    """`W` (keys, d, m) and weights (keys, m) of a σ that is not homogeneous."""

    def draw(key):
        return _draw(key, d, None, m, jnp.float64, orthogonal, True)[:2]

    return map(np.asarray, jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(5), keys)))


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize(("d", "m"), [(1, 2), (3, 3), (6, 9)])
def test_density(d, m, orthogonal):
    """Chi norms of d + 2 degrees of freedom, uniform directions, and weights that undo both."""
    w, weights = directions(d, m, orthogonal)
    norms = np.linalg.norm(w, axis=1)
    np.testing.assert_allclose(weights, np.sqrt(d) / norms, rtol=1e-12)
    assert stats.kstest(norms.ravel(), stats.chi(d + 2).cdf).pvalue > RARE
    # ‖w‖² has mean d + 2 and variance 2 (d + 2).
    error = (norms**2).mean() - (d + 2)
    assert abs(error) < 4 * np.sqrt(2 * (d + 2) / norms.size)

    # Uniform on the sphere: mean 0, and the square of each coordinate is a beta variable.
    units = w / norms[:, None]
    per_key = units.mean(2)
    assert np.all(np.abs(per_key.mean(0)) < 4 * per_key.std(0, ddof=1) / np.sqrt(len(w)))
    if d > 1:
        beta = stats.beta(0.5, (d - 1) / 2)
        for column in range(m):
            assert stats.kstest(units[:, 0, column] ** 2, beta.cdf).pvalue > RARE

    # E[ω² w wᵀ] = I and E[ω²] = 1, as under the Gaussian density.
    second = np.einsum("kdi,kei,ki->kde", w, w, weights**2) / m
    error = np.abs(second.mean(0) - np.eye(d))
    assert np.all(error < 4 * second.std(0, ddof=1) / np.sqrt(len(w)) + 1e-12)
    if d > 2:  # the square of ω² has no mean for fewer
        assert (weights**2).mean() == pytest.approx(1, abs=4 * np.std(weights**2) / len(w) ** 0.5)


HOMOGENEOUS = ["ABRelu", "Abs", "LeakyRelu", "Monomial(0)", "Relu", "Sign"]
HOMOGENEOUS += ["RectifiedMonomial(0)", "RectifiedMonomial(1)", "Relu stabilised"]


@pytest.mark.parametrize("name", [n for n in NONLINEARITIES if n != "ExpNormalized"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_homogeneity_is_seen(name, dtype):
    layer = NONLINEARITIES[name]()
    found = norm_does_not_matter(DualActivation(layer), dtype)
    assert found == (name in HOMOGENEOUS)


@pytest.mark.parametrize("knee", [0.01, 1.0, 6.0, 500.0, -0.01, -500.0])
def test_a_function_that_turns_is_not_homogeneous(knee):
    layer = stax.ElementwiseNumerical(lambda u: jnp.clip(u, min(0, knee), max(0, knee)), 5)
    assert not norm_does_not_matter(DualActivation(layer), np.float64)


def kernels_over_keys(model, x, method, keys):
    def one(key):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return ns.feature_map(model, shape, method, key=key).kernel_fn(x)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), keys))


def one_nonlinearity(name):
    return stax.serial(stax.Dense(5, 1.0, 0.2), NONLINEARITIES[name](), stax.Dense(1, 1.1, 0.1))


@pytest.mark.parametrize(
    ("name", "orthogonal"),
    crossed(["Relu", "Gelu", "Erf", "Sign", "Sin"], [True, False], row="Gelu", column=True),
)
def test_unbiased_with_one_nonlinearity(name, orthogonal, record_property):
    model = one_nonlinearity(name)
    x = jax.random.normal(jax.random.key(1), (3, 4))
    kernels = kernels_over_keys(model, x, ns.LeverageScore(16, orthogonal=orthogonal), KEYS)
    truth = jax.jit(lambda a: model[2](a, None, ("nngp", "ntk")))(x)
    for kind in ("nngp", "ntk"):
        draws = np.asarray(getattr(kernels, kind))
        error = draws.mean(0) - np.asarray(getattr(truth, kind))
        standard_error = draws.std(0, ddof=1) / np.sqrt(KEYS)
        deviations = np.abs(error) / np.maximum(standard_error, 1e-12)
        if name == "Sign":  # NT's formula is off by √eps where an example meets itself
            deviations = deviations[~np.eye(len(x), dtype=bool)]
        record_property(f"{kind} deviations", float(deviations.max()))
        assert deviations.max() < 4


def test_less_variance_than_gaussian_norms_for_relu():
    """A chi norm adds to the variance of a homogeneous σ."""
    model = one_nonlinearity("Relu")
    x = jax.random.normal(jax.random.key(1), (3, 4))
    spread = {}
    for method in (ns.LeverageScore(16), ns.RandomFeatures(16, normalize=False)):
        kernels = kernels_over_keys(model, x, method, KEYS)
        spread[type(method).__name__] = [
            np.asarray(getattr(kernels, kind)).var(0).sum() for kind in ("nngp", "ntk")
        ]
    assert np.all(np.array(spread["LeverageScore"]) < spread["RandomFeatures"])


def test_unbiased_behind_convolution_and_pool():
    model = stax.serial(
        stax.Conv(4, (3, 2), W_std=1.3, b_std=0.2, padding="SAME"),
        stax.Gelu(),
        stax.AvgPool((2, 2)),
        stax.Conv(4, (2, 1), W_std=1.1),
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )
    x = jax.random.normal(jax.random.key(1), (3, 4, 3, 2))
    kernels = kernels_over_keys(model, x, ns.LeverageScore(16), KEYS)
    truth = model[2](x, None, ("nngp", "ntk"))
    for kind in ("nngp", "ntk"):
        draws = np.asarray(getattr(kernels, kind))
        error = np.abs(draws.mean(0) - np.asarray(getattr(truth, kind)))
        assert (error < 4 * draws.std(0, ddof=1) / np.sqrt(KEYS)).all()


def test_error_falls_with_width():
    """Like width^(-1/2), for a σ with weights too."""
    model = one_nonlinearity("Gelu")
    x = jax.random.normal(jax.random.key(1), (3, 4))
    truth = np.asarray(model[2](x, None, "ntk"))
    widths, error = [4, 16, 64], []
    for width in widths:
        method = ns.LeverageScore(width, orthogonal=False)
        draws = np.asarray(kernels_over_keys(model, x, method, KEYS).ntk)
        error.append(np.sqrt(np.mean(np.sum((draws - truth) ** 2, axis=(1, 2)))))
    slope = np.polyfit(np.log(widths), np.log(error), 1)[0]
    assert -0.6 < slope < -0.4


def test_schedule_and_key():
    model = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(4), stax.Gelu(), stax.Dense(1))
    x = np.random.default_rng(0).normal(size=(5, 3))
    maps = [
        ns.feature_map(model, x, ns.LeverageScore((8, 20)), key=jax.random.key(k))
        for k in (0, 0, 1)
    ]
    z, again, other = (feature_map(x) for feature_map in maps)
    assert z.nngp.shape == (5, 20)
    assert {(3, 8), (8, 20)} <= {np.shape(leaf) for leaf in jax.tree.leaves(maps[0])}
    assert np.array_equal(z.ntk, again.ntk)
    assert not np.allclose(z.ntk, other.ntk)
    with pytest.raises(ValueError, match="3 entries for 2 nonlinearities"):
        ns.feature_map(model, x, ns.LeverageScore((8, 8, 8)), key=jax.random.key(0))


def test_variances_are_not_carried():
    model = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(4), stax.Gelu(), stax.Dense(1))
    assert model.rule.needs(None, (2, 3), method=ns.LeverageScore(4)) is None


def test_kernel_without_a_network():
    kernel_alone = stax.Elementwise(None, lambda c, q, r: c, lambda c, q, r: 1.0)
    model = stax.serial(stax.Dense(3), kernel_alone, stax.Dense(1))
    with pytest.raises(NotImplementedError, match=r"Elementwise\(.*has no finite network"):
        ns.feature_map(model, np.ones((2, 3)), ns.LeverageScore(4), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("width", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_width_is_checked(width, error):
    with pytest.raises(error, match="width must be a positive integer"):
        ns.LeverageScore(width)


def test_precision_is_checked():
    with pytest.raises(ValueError, match="precision must be one of"):
        ns.LeverageScore(4, precision="float16")  # pyright: ignore[reportArgumentType]
