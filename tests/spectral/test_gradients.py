"""Gradients of log-determinants: equal to the exact ones but for truncation, and on average."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ntk_sketch.spectral import _chebyshev, log_determinant, trace_of_function
from ntk_sketch.spectral._matfree import lanczos_forms
from ntk_sketch.spectral._series import log_series

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
N, INTERVAL = 20, (0.3, 16.0)
X = np.linspace(0, 2, N)
AT = np.array([0.7, 1.3, 0.4])


def kernel(theta):
    """θ₁ exp(-|x - x'| / θ₀) + θ₂ I."""
    distances = jnp.abs(X[:, None] - X[None])
    return theta[1] * jnp.exp(-distances / theta[0]) + theta[2] * jnp.eye(N)


def exact(theta):
    return jnp.linalg.slogdet(kernel(theta))[1]


def estimate(theta, key=KEY, **options):
    a = kernel(theta)
    options = {"size": N, "interval": INTERVAL, "probes": 8, "tolerance": 1e-6} | options
    return log_determinant(lambda v: a @ v, key=key, **options)


def test_every_unit_vector():
    """Then the gradient is exact, and so are higher ones, with enough terms."""
    series = log_series(*INTERVAL)
    degree = len(series.values) - 1
    values, slopes = (jnp.tile(c[None], (N, 1)) for c in (series.values, series.slopes))

    def total(theta):
        a = kernel(theta)
        rows = jnp.eye(N)
        forms = _chebyshev.differentiable_forms(
            lambda v: a @ v, rows, series, values, slopes, degree
        )
        return jnp.sum(forms)

    np.testing.assert_allclose(total(AT), exact(AT), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(total)(AT), jax.grad(exact)(AT), rtol=1e-11)
    direction = np.array([0.3, -0.2, 0.5])
    moved = [jax.jvp(f, (AT,), (direction,))[1] for f in (total, exact)]
    np.testing.assert_allclose(*moved, rtol=1e-11)
    np.testing.assert_allclose(jax.hessian(total)(AT), jax.hessian(exact)(AT), rtol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "randomized_chebyshev", "degree": 6},
        {"method": "lanczos", "degree": 12},
    ],
    ids=["chebyshev", "randomized_chebyshev", "lanczos"],
)
def test_right_on_average(options):
    """Over many keys within 4 standard errors, value and gradient; random degrees too, of which
    few terms are summed."""
    both = jax.jit(
        jax.vmap(jax.value_and_grad(lambda t, k: estimate(t, k, **options).value), (None, 0))
    )
    values, slopes = both(AT, jax.random.split(KEY, 300))
    for found, truth in ((values[:, None], exact(AT)), (slopes, jax.grad(exact)(AT))):
        error = np.std(found, axis=0, ddof=1) / 300**0.5
        assert np.all(np.abs(np.mean(found, axis=0) - truth) < 4 * error)
        assert np.all(error > 0)


def test_few_degrees_need_random_ones():
    """With a fixed degree of 6 the gradient is far off: what random degrees repair."""
    fixed = jax.jit(jax.vmap(jax.grad(lambda t, k: estimate(t, k, degree=6).value), (None, 0)))
    slopes = fixed(AT, jax.random.split(KEY, 100))
    error = np.std(slopes, axis=0) / 10
    assert np.any(np.abs(np.mean(slopes, axis=0) - jax.grad(exact)(AT)) > 10 * error)


def test_error_falls_with_probes():
    """As 1 / √probes, within 3 standard errors of the exponent."""
    sizes, keys, truth = np.array([4, 16, 64]), 50, jax.grad(exact)(AT)[0]
    errors = []
    for m in sizes:
        slope = jax.jit(jax.grad(lambda t, k, m=m: estimate(t, k, probes=int(m)).value))
        off = [slope(AT, key)[0] - truth for key in jax.random.split(KEY, keys)]
        errors.append(np.mean(np.square(off)) ** 0.5)
    logs = np.log(sizes) - np.log(sizes).mean()
    slope = logs @ np.log(errors) / (logs @ logs)
    assert abs(slope + 0.5) < 3 * (1 / (2 * keys)) ** 0.5 / (logs @ logs) ** 0.5


def test_standard_errors():
    """Of a matrix of two rows, whose forms are 2 log 3 or 0: their mean says how many are which."""
    a, k = np.array([[2.0, 1.0], [1.0, 2.0]]), 6

    def of(scale):
        options = {"size": 2, "interval": (0.5, 4.0), "tolerance": 1e-9, "probes": k}
        found = log_determinant(lambda v: scale * (a @ v), key=KEY, **options)
        return found.value, found.standard_error

    value, error = jax.jit(of)(1.0)
    share = float(value) / (2 * np.log(3))
    assert 0 < share < 1
    assert error == pytest.approx(2 * np.log(3) * (share * (1 - share) / (k - 1)) ** 0.5, rel=1e-6)


def test_shift_and_other_functions():
    """The shift is differentiated too; of a trace, by its series; of an array."""

    def of_shift(shift):
        a = kernel(AT)
        options = {"shift": shift, "interval": (0.3, 18.0), "probes": 4096, "tolerance": 1e-6}
        return log_determinant(a, key=KEY, **options).value

    a = np.asarray(kernel(AT))
    truth = np.trace(np.linalg.inv(a + 0.3 * np.eye(N)))
    assert float(jax.grad(of_shift)(0.3)) == pytest.approx(truth, rel=1e-2)

    def of_scale(scale, trace):
        return trace(scale * kernel(AT), lambda s: s / (s + 1.0))

    def stochastic(a, f):
        options = {"interval": (0.3, 18.0), "probes": 4096, "tolerance": 1e-6, "key": KEY}
        return trace_of_function(a, f, **options).value

    def dense(a, f):
        return jnp.sum(f(jnp.linalg.eigvalsh(a)))

    found, truth = (jax.grad(of_scale)(1.0, trace) for trace in (stochastic, dense))
    assert float(found) == pytest.approx(float(truth), rel=1e-2)


def test_outside_of_the_interval():
    """Neither value nor gradient is a plausible number."""
    value, slope = jax.value_and_grad(lambda t: estimate(t, interval=(0.3, 8.0)).value)(AT)
    assert np.isnan(value)
    assert np.all(np.isnan(slope))


@pytest.mark.parametrize("values", [[2.0] * 6, [1.0] * 3 + [4.0] * 3])
def test_fewer_eigenvalues_than_steps(values):
    """Traced, NaN in place of what rounding makes of it; otherwise the right number."""
    a = jnp.diag(jnp.array(values))
    options = {"key": KEY, "method": "lanczos", "degree": 5, "probes": 2}
    found = log_determinant(a, **options).value
    assert found == pytest.approx(np.log(values).sum(), rel=1e-12)
    value, slope = jax.value_and_grad(lambda s: log_determinant(s * a, **options).value)(1.0)
    assert np.isnan(value)
    assert np.isnan(slope)


def test_rounding_is_no_krylov_space():
    """In float32 a second step of twice the identity gives a finite number, of rounding alone."""
    a, rows = 2 * jnp.eye(6, dtype="float32"), jax.random.rademacher(KEY, (4, 6), "float32")
    forms = [lanczos_forms(lambda v: a @ v, rows, jnp.log, steps) for steps in (1, 2)]
    np.testing.assert_allclose(forms[0], 6 * np.log(2), rtol=1e-6)
    assert np.all(np.isnan(forms[1]))


def test_refused():
    with pytest.raises(ValueError, match=r"the operator is traced .* give interval="):
        jax.grad(lambda t: estimate(t, interval=None).value)(AT)
    with pytest.raises(TypeError, match="the shift is traced by JAX but the operator is not"):
        jax.grad(lambda s: log_determinant(np.eye(3), shift=s, key=KEY).value)(1.0)
