"""The evidence and its derivatives against the dense formula, and their use."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.predict import log_evidence

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


def net(w=1.3, b=0.2):
    return stax.serial(stax.Dense(4, w, b), stax.Erf(), stax.Dense(1, 1.1, 0.1))


def data(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    noise = np.random.default_rng(seed + 1).normal(size=(n, 2))
    return x, np.sin(2 * x[:, :2]) + 0.1 * noise


def dense(z, y, diag_reg, absolute=False):
    """log N(y; 0, K + λI), output by output, with K written out."""
    kernel, n = z @ z.T, len(z)
    penalty = diag_reg * (1 if absolute else np.trace(kernel) / n)
    noisy = kernel + penalty * np.eye(n)
    _, logdet = np.linalg.slogdet(noisy)
    quadratics = [column @ np.linalg.solve(noisy, column) for column in y.T]
    return sum(-0.5 * (logdet + q + n * np.log(2 * np.pi)) for q in quadratics)


@pytest.fixture(scope="module")
def feature_map():
    with jax.enable_x64(True):
        return ns.feature_map(net(), data(40)[0], ns.Nystroem(16), key=KEY)


@pytest.mark.parametrize("n", [14, 90])
@pytest.mark.parametrize("get", ["nngp", "ntk"])
@pytest.mark.parametrize("absolute", [False, True])
def test_dense_formula(feature_map, n, get, absolute):
    x, y = data(n, 5)
    z = np.asarray(getattr(feature_map(x), get))
    assert (n > z.shape[1]) == (n == 90)
    path = [1e-4, 1e-2, 1.0]
    found = log_evidence(
        feature_map, x, y, diag_reg=path, diag_reg_absolute_scale=absolute, get=get, batch_size=8
    )
    expected = [dense(z, y, d, absolute) for d in path]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    one = log_evidence(
        feature_map, x, y[:, 0], diag_reg=1e-2, diag_reg_absolute_scale=absolute, get=get
    )
    assert isinstance(one, float)
    np.testing.assert_allclose(one, dense(z, y[:, :1], 1e-2, absolute), rtol=1e-8)


def test_without_noise(feature_map):
    """Of a kernel of full rank; a singular one has no density."""
    x, y = data(6, 5)
    z = np.asarray(feature_map(x).ntk)
    found = log_evidence(feature_map, x, y, diag_reg=0.0, get="ntk")
    np.testing.assert_allclose(found, dense(z, y, 0.0), rtol=1e-8)
    with pytest.raises(ValueError, match=r"90 examples with 17 features .* must be > 0"):
        log_evidence(feature_map, *data(90), diag_reg=[0.0, 0.1])
    with pytest.raises(ValueError, match="no density under such a kernel: give diag_reg > 0"):
        log_evidence(feature_map, np.repeat(x, 2, axis=0), y[[0] * 12], diag_reg=0.0)


@pytest.mark.parametrize("n", [14, 90])
def test_traced(feature_map, n):
    """The pure JAX path gives the same numbers, one for each regulariser."""
    x, y = data(n, 5)
    path = np.array([1e-4, 1e-2])
    for get in ("nngp", "ntk"):
        expected = log_evidence(feature_map, x, y, diag_reg=path, get=get)

        def traced(d, get=get):
            return log_evidence(feature_map, x, y, diag_reg=d, get=get)

        np.testing.assert_allclose(jax.jit(traced)(path), expected, rtol=1e-8)
        np.testing.assert_allclose(jax.jit(traced)(path[1]), expected[1], rtol=1e-8)


def objective(w, b, log_reg, n):
    x, y = data(n, 5)
    made = ns.feature_map(net(w, b), data(40)[0], ns.Nystroem(16), key=KEY)
    return log_evidence(made, x, y, diag_reg=jnp.exp(log_reg))


@pytest.mark.parametrize("n", [14, pytest.param(90, marks=pytest.mark.slow)])
def test_finite_differences(n):
    """By `W_std`, `b_std` and `diag_reg`, on both sides."""
    at = np.array([1.2, 0.3, np.log(1e-2)])
    found = jax.grad(objective, argnums=(0, 1, 2))(*at, n)
    h = 1e-5
    for i, slope in enumerate(found):
        up, down = (objective(*(at + sign * h * np.eye(3)[i]), n) for sign in (1, -1))
        # h² of a third derivative, and rounding over h
        assert abs(slope - (up - down) / (2 * h)) < 1e-5 * abs(slope)


@pytest.mark.slow
def test_gradient_steps_raise_the_evidence():
    """Ascent in the logarithms of all three, by a step that its own size limits."""
    value_and_slope = jax.value_and_grad(
        lambda p: objective(jnp.exp(p[0]), jnp.exp(p[1]), p[2], 90)
    )
    at, values = np.log([0.4, 0.05, 1.0]), []
    for _ in range(8):
        value, slope = value_and_slope(at)
        values.append(float(value))
        at = at + 0.3 * np.asarray(slope) / np.linalg.norm(slope)
    assert np.all(np.diff(values) > 0)
    assert values[-1] > values[0] + 50


def test_warns_where_rounding_decides(make_map, make_data):
    """Targets that the features explain to float32."""
    x, _ = make_data(80)
    feature_map = make_map()
    y = np.asarray(feature_map(x).ntk)[:, :2]
    with pytest.warns(RuntimeWarning, match="less than float32 resolves") as told:
        log_evidence(feature_map, x, y, diag_reg=1e-12, get="ntk")
    assert told[0].filename == __file__


def test_refusals(feature_map):
    x, y = data(20)
    with pytest.raises(ValueError, match="get must be one of nngp, ntk"):
        log_evidence(feature_map, x, y, diag_reg=0.1, get="ntkgp")
    with pytest.raises(ValueError, match="finite and >= 0"):
        log_evidence(feature_map, x, y, diag_reg=-0.1)
    with pytest.raises(ValueError, match="20 examples but 19 rows of y"):
        log_evidence(feature_map, x, y[1:], diag_reg=0.1)
    shape = jax.ShapeDtypeStruct((1, 3), "float64")
    only = ns.feature_map(net(), shape, ns.RandomFeatures(4), key=KEY, get="nngp")
    with pytest.raises(ValueError, match="needs ntk features, but this feature map gives"):
        log_evidence(only, x, y, diag_reg=0.1, get="ntk")
    with pytest.raises(ValueError, match=r"y has shape \(19, 2\).*needed: floating point"):
        jax.grad(lambda d: log_evidence(feature_map, x, y[1:], diag_reg=d))(0.1)
