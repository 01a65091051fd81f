"""`nt.batch` against the unbatched function, `nt.monte_carlo_kernel_fn` against its definition and
the infinite-width limit."""

import os
import subprocess
import sys

import jax
import neural_tangents as nt
import numpy as np
import pytest
from neural_tangents import stax

# The same products in float64, summed in another order.
RTOL = 1e-12

# Erf: at cosine 1, of x with itself, Relu's kernel turns rounding into the square root of eps.
MODEL = stax.serial(stax.Dense(6, W_std=1.3, b_std=0.3), stax.Erf(), stax.Dense(2))
X1 = np.random.default_rng(0).normal(size=(6, 3))
X2 = np.random.default_rng(1).normal(size=(4, 3))
KEY = jax.random.key(0)


@pytest.mark.parametrize("options", [{}, {"store_on_device": False}, {"device_count": 0}], ids=str)
def test_batch(options):
    kernel_fn = MODEL[2]
    batched = nt.batch(kernel_fn, batch_size=2, **options)
    for x2 in (X2, None):
        got, expected = batched(X1, x2), kernel_fn(X1, x2)
        for name in ("nngp", "ntk", "cov1"):
            np.testing.assert_allclose(getattr(got, name), getattr(expected, name), RTOL)
        assert (got.shape1, got.shape2) == (expected.shape1, expected.shape2)
    np.testing.assert_allclose(batched(X1, X2, "ntk"), kernel_fn(X1, X2, "ntk"), RTOL)


def test_batch_of_an_empirical_kernel():
    init_fn, apply_fn, _ = MODEL
    _, params = init_fn(KEY, X1.shape)
    kernel_fn = nt.empirical_ntk_fn(apply_fn)
    got = nt.batch(kernel_fn, batch_size=2, device_count=0)(X1, X2, params)
    np.testing.assert_allclose(got, kernel_fn(X1, X2, params), RTOL)


@pytest.mark.slow
def test_batch_over_devices():
    """Two CPU devices need a process of their own."""
    code = """if True:
        import ntk_sketch, jax, numpy as np, neural_tangents as nt
        from neural_tangents import stax
        assert jax.device_count() == 2
        kernel_fn = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))[2]
        x1, x2 = np.random.default_rng(0).normal(size=(2, 8, 3))
        got = nt.batch(kernel_fn, batch_size=2, device_count=2)(x1, x2[:4], "ntk")
        np.testing.assert_allclose(got, kernel_fn(x1, x2[:4], "ntk"), rtol=1e-12)
        """
    flags = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | flags, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_monte_carlo_is_the_mean_over_initialisations():
    """NT splits one key after the other; each sample is an empirical kernel."""
    init_fn, apply_fn, _ = MODEL
    empirical = nt.empirical_kernel_fn(apply_fn)
    samples, key = [], KEY
    for _ in range(3):
        key, draw = jax.random.split(key)
        _, params = init_fn(jax.random.split(draw)[0], X1.shape)
        samples.append(empirical(X1, X2, ("nngp", "ntk"), params))
    got = nt.monte_carlo_kernel_fn(init_fn, apply_fn, KEY, 3)(X1, X2, ("nngp", "ntk"))
    np.testing.assert_allclose(got.nngp, np.mean([s.nngp for s in samples], 0), RTOL)
    np.testing.assert_allclose(got.ntk, np.mean([s.ntk for s in samples], 0), RTOL)
    # Several counts at once: running means of the same samples.
    several = nt.monte_carlo_kernel_fn(init_fn, apply_fn, KEY, (1, 3), batch_size=2)
    first, last = several(X1, X2, ("nngp", "ntk"))
    np.testing.assert_allclose(first.ntk, samples[0].ntk, RTOL)
    np.testing.assert_allclose(last.ntk, got.ntk, RTOL)


@pytest.mark.parametrize("implementation", [1, 2, 3])
def test_monte_carlo_converges_to_the_kernel(implementation):
    """With one hidden layer both finite kernels are unbiased at every width.

    400 independent networks of width 64; the standard error comes from the samples themselves,
    5 of it is exceeded by chance with probability 1e-6 per entry.
    """
    init_fn, apply_fn, kernel_fn = stax.serial(
        stax.Dense(64, W_std=1.3, b_std=0.3), stax.Relu(), stax.Dense(1)
    )
    one = nt.empirical_kernel_fn(apply_fn, implementation=implementation)
    x1, x2 = X1[:2], X2[:3]

    @jax.jit
    @jax.vmap
    def draw(key):
        return one(x1, x2, ("nngp", "ntk"), init_fn(key, x1.shape)[1])

    samples = draw(jax.random.split(KEY, 400))
    exact = kernel_fn(x1, x2, ("nngp", "ntk"))
    for name in ("nngp", "ntk"):
        values = np.asarray(getattr(samples, name))
        error = values.mean(0) - getattr(exact, name)
        assert np.all(np.abs(error) < 5 * values.std(0) / len(values) ** 0.5)
