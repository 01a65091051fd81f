"""`nt.predict` against linear algebra written out in NumPy and SciPy, and SciPy's ODE solver."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from neural_tangents import predict, stax

KERNEL_FN = stax.serial(stax.Dense(1, W_std=1.4, b_std=0.5), stax.Erf(), stax.Dense(1))[2]
RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(5, 6)), RNG.normal(size=(3, 6))
Y = RNG.normal(size=(5, 2))
F0, F0_TEST = RNG.normal(size=(5, 2)), RNG.normal(size=(3, 2))
TIMES = np.array([0.5, 3.0, 40.0])
# Linear solves with matrices of condition number below 1e3: that times a few dozen eps.
RTOL = 1e-10


@pytest.fixture
def kernels():
    """Train-train, test-train and test-test, as dictionaries of arrays (float64)."""
    pairs = ((X, None), (X_TEST, X), (X_TEST, None))
    dd, td, tt = (KERNEL_FN(a, b, ("nngp", "ntk")) for a, b in pairs)
    for name in ("nngp", "ntk"):
        assert np.linalg.cond(getattr(dd, name)) < 1e3
    return dd, td, tt


def regularised(k, diag_reg, absolute):
    return k + diag_reg * (1 if absolute else np.trace(k) / len(k)) * np.eye(len(k))


@pytest.mark.parametrize("absolute", [False, True])
def test_gp_inference(kernels, absolute):
    """Posterior of a GP, and the ensemble of networks trained to convergence (Lee et al., 2019,
    eqs. 13, 14): mean and covariance."""
    dd, td, tt = kernels
    fn = predict.gp_inference(dd, Y, diag_reg=1e-2, diag_reg_absolute_scale=absolute)
    got = fn(("nngp", "ntk"), td, tt)
    k, theta = (regularised(np.asarray(m), 1e-2, absolute) for m in (dd.nngp, dd.ntk))
    np.testing.assert_allclose(got.nngp.mean, td.nngp @ np.linalg.solve(k, Y), RTOL)
    posterior = tt.nngp - td.nngp @ np.linalg.solve(k, td.nngp.T)
    np.testing.assert_allclose(got.nngp.covariance, posterior, RTOL)
    a = np.linalg.solve(theta, td.ntk.T).T
    np.testing.assert_allclose(got.ntk.mean, a @ Y, RTOL)
    cross = a @ td.nngp.T
    ensemble = tt.nngp + a @ dd.nngp @ a.T - cross - cross.T
    np.testing.assert_allclose(got.ntk.covariance, ensemble, RTOL)
    assert isinstance(got.ntk, predict.Gaussian)
    # The GP whose covariance is the NTK.
    ntkgp = fn("ntkgp", td, tt)
    np.testing.assert_allclose(ntkgp.covariance, tt.ntk - a @ td.ntk.T, RTOL)


def trajectory(dd, td, t, y, f0, f0_test):
    """Gradient flow on |f - y|^2 / (2 |y|): f' = -K (f - y) / |y|, by a matrix exponential."""
    decay = scipy.linalg.expm(-np.asarray(dd) * t / y.size)
    f = y + decay @ (f0 - y)
    step = np.linalg.solve(dd, (np.eye(len(dd)) - decay) @ (y - f0))
    return f, f0_test + td @ step


def test_gradient_descent_mse(kernels):
    dd, td, _ = kernels
    rate = 0.7
    fn = predict.gradient_descent_mse(dd.ntk, Y, learning_rate=rate)
    train, test = fn(TIMES, F0, F0_TEST, td.ntk)
    for i, t in enumerate(TIMES):
        expected = trajectory(dd.ntk, td.ntk, rate * t, Y, F0, F0_TEST)
        np.testing.assert_allclose(train[i], expected[0], RTOL)
        np.testing.assert_allclose(test[i], expected[1], RTOL)
    train, test = fn(None, F0, F0_TEST, td.ntk)
    np.testing.assert_allclose(train, Y, RTOL)
    np.testing.assert_allclose(test, F0_TEST + td.ntk @ np.linalg.solve(dd.ntk, Y - F0), RTOL)


def test_gradient_descent_mse_regularised(kernels):
    dd, td, _ = kernels
    fn = predict.gradient_descent_mse(dd.ntk, Y, diag_reg=0.1)
    _, test = fn(None, F0, F0_TEST, td.ntk)
    k = regularised(np.asarray(dd.ntk), 0.1, False)
    np.testing.assert_allclose(test, F0_TEST + td.ntk @ np.linalg.solve(k, Y - F0), RTOL)


def test_gradient_descent_mse_of_a_finite_network():
    """A full (outputs x outputs) empirical NTK, `trace_axes=()`: the same flow on vectors."""
    init_fn, apply_fn, _ = stax.serial(stax.Dense(40), stax.Erf(), stax.Dense(2))
    _, params = init_fn(jax.random.key(0), X.shape)
    kernel_fn = nt.empirical_ntk_fn(apply_fn, trace_axes=())
    dd, td = kernel_fn(X, None, params), kernel_fn(X_TEST, X, params)
    f0, f0_test = apply_fn(params, X), apply_fn(params, X_TEST)
    fn = predict.gradient_descent_mse(dd, Y, trace_axes=())
    train, test = fn(2.0, f0, f0_test, td)
    matrix = np.transpose(dd, (0, 2, 1, 3)).reshape(10, 10)
    cross = np.transpose(td, (0, 2, 1, 3)).reshape(6, 10)
    vectors = (np.asarray(v).reshape(-1) for v in (Y, f0, f0_test))
    expected = trajectory(matrix, cross, 2.0, *vectors)
    np.testing.assert_allclose(train.reshape(-1), expected[0], RTOL)
    np.testing.assert_allclose(test.reshape(-1), expected[1], RTOL)


def cross_entropy(f, y):
    return -jnp.mean(jax.nn.log_softmax(f) * y)


def mse(f, y):
    return jnp.mean((f - y) ** 2) / 2


# Both solvers control the error of a step to 1.4e-8 (NT's) and 1e-10; some ten steps add up.
ODE_RTOL = 1e-6


def flow(loss, dd, td, t, rate, momentum):
    """f' = -K dL/df; with momentum f'' = -K dL/df + (momentum - 1)/sqrt(rate) f', and time in units
    of sqrt(rate)."""
    kernel = np.concatenate([dd, td])
    slope = jax.jit(jax.grad(lambda f: loss(f, Y)))
    start = np.concatenate([F0, F0_TEST])

    def force(f):
        return -(kernel @ np.asarray(slope(f[:5])))

    def rhs(_, state):
        if momentum is None:
            return force(state.reshape(8, 2)).reshape(-1)
        f, q = state.reshape(2, 8, 2)
        return np.stack([q, force(f) + (momentum - 1) / rate**0.5 * q]).reshape(-1)

    if momentum is None:
        state, end = start, rate * t
    else:
        state, end = np.stack([start, np.zeros_like(start)]), rate**0.5 * t
    out = scipy.integrate.solve_ivp(rhs, (0, end), state.reshape(-1), rtol=1e-10, atol=1e-12)
    f = out.y[:16, -1].reshape(8, 2)
    return f[:5], f[5:]


@pytest.mark.parametrize("momentum", [None, 0.8])
@pytest.mark.parametrize("loss", [mse, cross_entropy])
def test_gradient_descent(kernels, loss, momentum):
    dd, td, _ = kernels
    rate, t = 0.5, 6.0
    fn = predict.gradient_descent(loss, dd.ntk, Y, learning_rate=rate, momentum=momentum)
    expected = flow(loss, np.asarray(dd.ntk), np.asarray(td.ntk), t, rate, momentum)
    train, test = fn(t, F0, F0_TEST, td.ntk)
    np.testing.assert_allclose(train, expected[0], ODE_RTOL)
    np.testing.assert_allclose(test, expected[1], ODE_RTOL)
    # From one `ODEState` to the next: as far in two parts.
    half = fn(t / 2, predict.ODEState(F0, F0_TEST), None, td.ntk)
    assert isinstance(half, predict.ODEState)
    rest = fn(t / 2, half, None, td.ntk)
    np.testing.assert_allclose(rest.fx_test, expected[1], ODE_RTOL)


def test_gradient_descent_of_mse_is_the_closed_form(kernels):
    dd, td, _ = kernels
    closed = predict.gradient_descent_mse(dd.ntk, Y)(TIMES, F0, F0_TEST, td.ntk)
    solved = predict.gradient_descent(mse, dd.ntk, Y)(TIMES, F0, F0_TEST, td.ntk)
    np.testing.assert_allclose(solved[0], closed[0], ODE_RTOL)
    np.testing.assert_allclose(solved[1], closed[1], ODE_RTOL)


@pytest.mark.parametrize("t", [None, 30.0])
def test_gradient_descent_mse_ensemble(kernels, t):
    """f_t = A y + (f_0(test) - A f_0(train)) with f_0 ~ GP(0, NNGP) and
    A = K_td K^-1 (1 - exp(-K t / |y|))."""
    dd, td, tt = kernels
    fn = predict.gradient_descent_mse_ensemble(KERNEL_FN, X, Y, learning_rate=0.9)
    got = fn(t=t, x_test=X_TEST, get=("nngp", "ntk"), compute_cov=True)
    theta = np.asarray(dd.ntk)
    decay = 0 if t is None else scipy.linalg.expm(-theta * 0.9 * t / Y.size)
    a = td.ntk @ np.linalg.solve(theta, np.eye(5) - decay)
    np.testing.assert_allclose(got.ntk.mean, a @ Y, RTOL)
    cross = a @ td.nngp.T
    ensemble = tt.nngp + a @ dd.nngp @ a.T - cross - cross.T
    np.testing.assert_allclose(got.ntk.covariance, ensemble, RTOL)
    k = np.asarray(dd.nngp)
    decay = 0 if t is None else scipy.linalg.expm(-k * 0.9 * t / Y.size)
    np.testing.assert_allclose(
        got.nngp.mean, td.nngp @ np.linalg.solve(k, (np.eye(5) - decay) @ Y), RTOL
    )


def test_ensemble_inside_jit(kernels):
    dd, td, _ = kernels

    @jax.jit
    def mean(x_test, y):
        return predict.gradient_descent_mse_ensemble(KERNEL_FN, X, y)(x_test=x_test, get="ntk")

    np.testing.assert_allclose(mean(X_TEST, Y), td.ntk @ np.linalg.solve(dd.ntk, Y), RTOL)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_max_learning_rate(kernels, momentum):
    """2 (1 + momentum) |y| / largest eigenvalue: the step just below it contracts."""
    theta = np.asarray(kernels[0].ntk)
    rate = predict.max_learning_rate(theta, y_train_size=Y.size, momentum=momentum)
    largest = np.linalg.eigvalsh(theta)[-1]
    np.testing.assert_allclose(rate, 2 * (1 + momentum) * Y.size / largest, RTOL)
    full = predict.max_learning_rate(kernels[0].ntk)
    np.testing.assert_allclose(full, 2 * len(theta) / largest, RTOL)
