"""`RandomFeatures`: unbiased with one nonlinearity, and the rates at which error and bias fall."""

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods._directions import orthogonal_directions

KEYS = 1024
# Fourth moments of their features are so large that a mean of 1,024 is no estimate of anything.
HEAVY_TAILED = ("Exp", "Monomial(3)", "Polynomial")
WITH_NETWORK = [name for name in NONLINEARITIES if name != "ExpNormalized"]
#: A kink, a jump, a polynomial, a wave, and what is neither even nor odd.
KEPT = ("Relu", "Sign", "Hermite", "Sin", "Gelu")


def kernels_over_keys(model, x, method, keys, get=("nngp", "ntk")):
    """Kernels of `keys` independent maps: two arrays (keys, n, n)."""

    def one(key):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return ns.feature_map(model, shape, method, key=key, get=get).kernel_fn(x, None, get)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), keys))


def exact(model, x):
    return jax.jit(lambda a: model[2](a, None, ("nngp", "ntk")))(x)


def inputs(name):
    x = jax.random.normal(jax.random.key(1), (3, 4))
    if name == "Hermite":  # its kernel is for unit variances alone
        x = x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True))
    return x


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "orthogonal"),
    [
        *((name, True) for name in KEPT),
        *(("Relu", False), ("Gelu", False)),
        *(
            pytest.param(name, True, marks=pytest.mark.slow)
            for name in WITH_NETWORK
            if name not in KEPT
        ),
    ],
)
def test_unbiased_with_one_nonlinearity(name, orthogonal, record_property):
    bias = None if name == "Hermite" else 0.2
    model = stax.serial(stax.Dense(5, 1.0, bias), NONLINEARITIES[name](), stax.Dense(1, 1.1, 0.1))
    x = inputs(name)
    method = ns.RandomFeatures(16, orthogonal=orthogonal, normalize=False)
    kernels, truth = kernels_over_keys(model, x, method, KEYS), exact(model, x)
    for kind in ("nngp", "ntk"):
        draws = np.asarray(getattr(kernels, kind))
        error = draws.mean(0) - np.asarray(getattr(truth, kind))
        standard_error = draws.std(0, ddof=1) / np.sqrt(KEYS)
        deviations = np.abs(error) / np.maximum(standard_error, 1e-12)
        if name.startswith(("Rectified", "Sign")):  # NT's formula fails where one meets itself
            deviations = deviations[~np.eye(len(x), dtype=bool)]
        record_property(f"{kind} deviations", float(deviations.max()))
        assert np.isfinite(deviations).all()
        if name not in HEAVY_TAILED:
            assert deviations.max() < 4


@pytest.mark.usefixtures("float64")
def test_unbiased_behind_convolution_and_pool():
    model = stax.serial(
        stax.Conv(4, (3, 2), W_std=1.3, b_std=0.2, padding="SAME"),
        stax.Relu(),
        stax.AvgPool((2, 2)),
        stax.Conv(4, (2, 1), W_std=1.1),
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )
    x = jax.random.normal(jax.random.key(1), (3, 4, 3, 2))
    kernels = kernels_over_keys(model, x, ns.RandomFeatures(16, normalize=False), KEYS)
    truth = exact(model, x)
    for kind in ("nngp", "ntk"):
        draws = np.asarray(getattr(kernels, kind))
        error = np.abs(draws.mean(0) - np.asarray(getattr(truth, kind)))
        assert (error < 4 * draws.std(0, ddof=1) / np.sqrt(KEYS)).all()


def _deep():
    layers = [stax.Dense(4, 1.4, 0.1), stax.Relu()] * 3
    return stax.serial(*layers, stax.Dense(1))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_rates_in_a_deep_net():
    """The bias falls like 1 / width, the error of one key like width^(-1/2)."""
    model, kinds = _deep(), ("nngp", "ntk")
    x = jax.random.normal(jax.random.key(1), (4, 5))
    truth, widths = exact(model, x), [4, 16, 64]
    bias, error = [], []
    for width in widths:
        # Many keys, so that the bias of the mean stands out from the noise of single keys.
        method = ns.RandomFeatures(width, orthogonal=False, normalize=False)
        draws = kernels_over_keys(model, x, method, 4096, kinds)
        missed = [np.asarray(getattr(draws, k)) - np.asarray(getattr(truth, k)) for k in kinds]
        bias.append([np.linalg.norm(m.mean(0)) for m in missed])
        error.append([np.sqrt(np.mean(np.sum(m**2, axis=(1, 2)))) for m in missed])
    slopes = np.polyfit(np.log(widths), np.log(error), 1)[0]
    assert np.all((slopes > -0.65) & (slopes < -0.4))
    slopes = np.polyfit(np.log(widths), np.log(bias), 1)[0]
    assert np.all((slopes > -1.4) & (slopes < -0.75))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "model",
    [
        _deep(),
        stax.serial(
            stax.Conv(4, (3, 3), strides=(2, 1), b_std=0.1, padding="SAME"),
            stax.Relu(),
            stax.Conv(4, (2, 2), padding="CIRCULAR"),
            stax.Gelu(),
            stax.Flatten(),
            stax.Dense(3, b_std=0.3),
            stax.Erf(),
            stax.Dense(1),
        ),
    ],
    ids=["dense", "conv"],
)
def test_normalize_gives_the_exact_diagonal(model):
    shape = (5,) if "Conv" not in model.name and len(model.rule.layers) == 7 else (4, 5, 2)
    x = jax.random.normal(jax.random.key(1), (6, *shape))
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(64), key=jax.random.key(0))
    close, truth = feature_map.kernel_fn(x), exact(model, x)
    for kind in ("nngp", "ntk"):
        # Rounding of the two recursions; 1e-5 is what users are promised, for float32 too.
        np.testing.assert_allclose(
            np.diag(getattr(close, kind)), np.diag(getattr(truth, kind)), rtol=1e-5
        )


def test_dead_positions_stay_zero():
    """No direction of ReLU fires: the features are 0 and finite, and so is the gradient."""
    model = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1))
    x = jnp.ones((3, 4)) * jnp.array([[1.0], [-1.0], [0.0]])
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(1), key=jax.random.key(0))
    z = feature_map(x)
    assert jnp.isfinite(z.ntk).all()
    dead = [i for i in range(2) if not z.nngp[i].any()]
    assert len(dead) == 1  # one direction fires for x or for -x
    assert not z.nngp[2].any()
    gradient = jax.grad(lambda x: jnp.sum(feature_map(x).ntk ** 2))(x)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize(("d", "m"), [(1, 3), (4, 4), (7, 20), (40, 8)])
def test_directions(d, m):
    """Orthogonal in groups, uniform, with `E[w wᵀ] = I`."""
    draw = jax.jit(
        jax.vmap(lambda key: orthogonal_directions(key, d, m, jnp.float32, chi_norms=True))
    )
    w = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)), np.float64)
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    group = min(d, m)
    gram = np.einsum("kdi,kdj->kij", unit[:, :, :group], unit[:, :, :group]) - np.eye(group)
    # The smallest singular value of a square Gaussian is too small for 30 steps once in 10,000.
    assert np.quantile(np.abs(gram).max((1, 2)), 0.99) < 1e-3
    second = np.einsum("kdi,kei->kde", w, w) / m
    deviation = np.abs(second.mean(0) - np.eye(d)) / (second.std(0) / np.sqrt(len(w)) + 1e-12)
    # 4 standard errors for the up to 1,600 entries of a symmetric matrix would be too few.
    assert deviation.max() < 5
    assert np.abs(unit.mean(0)).max() < 5 / np.sqrt(len(w) * d)
    squared_norms = np.sum(w**2, axis=1)
    assert abs(squared_norms.mean() - d) < 5 * np.sqrt(2 * d / squared_norms.size)
    assert squared_norms.var() == pytest.approx(2 * d, rel=0.15)


@pytest.mark.parametrize(
    ("width", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_width_is_checked(width, error):
    with pytest.raises(error, match="width must be a positive integer"):
        ns.RandomFeatures(width)
