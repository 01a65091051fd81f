"""Derivatives of feature maps by hyperparameters of the model; and maps that cannot be compiled."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax

KEY = jax.random.key(0)

METHODS = {
    "Exact": ns.Exact(),
    "landmarks": ns.Nystroem(8, calibrate=False),
    "calibrated": ns.Nystroem(8),
    "uniform": ns.Nystroem(8, sampling="uniform"),
    "network": ns.Nystroem(8, scope="network"),
}

#: Of one nonlinearity: in a deeper one random functions see the features, not their kernel alone,
#: and these are differentiated up to a rotation, which the distribution of the functions forgets:
#: right on average (below).
RESIDUAL = {
    "residual": ns.Nystroem(8, residual=0.5, calibrate=False),
}

#: Without landmarks, of smooth functions: jumps are differentiated by an estimate of their own.
OBLIVIOUS = {
    "random": ns.RandomFeatures(8),
    "leverage score": ns.LeverageScore(8),
    "poly sketch": ns.PolySketch(3, 8),
    "gegenbauer": ns.Gegenbauer(3, 8),
}


def sample(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 3))


def deep(w, b):
    return stax.serial(
        stax.Dense(5, w, b), stax.Relu(), stax.Dense(4, 0.9, 0.1), stax.Gelu(), stax.Dense(1)
    )


def smooth(w, b):
    return stax.serial(
        stax.Dense(5, w, b), stax.Erf(), stax.Dense(4, 0.9, 0.1), stax.Gelu(), stax.Dense(1)
    )


def shallow(w, b):
    return stax.serial(stax.Dense(5, w, b), stax.Gelu(), stax.Dense(1))


def value(model, method, w, b):
    """A linear function of both kernels of five other examples."""
    kernel = ns.feature_map(model(w, b), sample(120, 0), method, key=KEY).kernel_fn(sample(5, 1))
    weights = np.cos(np.arange(25.0)).reshape(5, 5)
    return jnp.sum(weights * kernel.nngp) + jnp.sum(weights[::-1] * kernel.ntk)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", others_slow([*METHODS, *RESIDUAL, *OBLIVIOUS], "residual"))
def test_finite_differences(name):
    table, model = next(
        (table, model)
        for table, model in ((METHODS, deep), (RESIDUAL, shallow), (OBLIVIOUS, smooth))
        if name in table
    )
    method = table[name]
    found = jax.grad(value, argnums=(2, 3))(model, method, 1.2, 0.3)
    h = 1e-5
    for slope, up, down in zip(
        found, [(1.2 + h, 0.3), (1.2, 0.3 + h)], [(1.2 - h, 0.3), (1.2, 0.3 - h)], strict=True
    ):
        difference = value(model, method, *up) - value(model, method, *down)
        # A central difference: h² of a third derivative, and rounding over h.
        assert abs(slope - difference / (2 * h)) < 1e-6 * abs(slope)


def three_layers(w, b):
    return stax.serial(
        *(stax.Dense(5, w, b), stax.Relu(), stax.Dense(4, 0.9, 0.1), stax.Gelu()),
        *(stax.Dense(4, 0.9, 0.1), stax.Relu(), stax.Dense(1)),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_residual_features_in_several_layers(record_property):
    """On average the derivative of the kernel, by maps of which few are far off."""

    def of(kernel):
        weights = np.cos(np.arange(25.0)).reshape(5, 5)
        return jnp.sum(weights * kernel.nngp) + jnp.sum(weights[::-1] * kernel.ntk)

    def approximate(w, key):
        method = ns.Nystroem(24, residual=0.5)
        return of(ns.feature_map(three_layers(w, 0.3), x, method, key=key).kernel_fn(other))

    def exact(w):
        return of(three_layers(w, 0.3)[2](other, None, ("nngp", "ntk")))

    x, other, keys = sample(240, 0), sample(5, 1), jax.random.split(KEY, 16)
    right = float(jax.grad(exact)(1.2))
    found = np.array([float(jax.grad(approximate)(1.2, key)) for key in keys])
    record_property("found", [right, *found.tolist()])
    assert np.median(abs(found - right)) < 0.5 * abs(right)
    assert found.std() < 1.5 * abs(right)
    assert abs(found.mean() - right) < 4 * found.std() / len(keys) ** 0.5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [ns.PolySketch, ns.Gegenbauer])
def test_series_of_whole_networks_have_no_derivative(kind):
    with pytest.raises(TypeError, match=r"computed from numbers.* Use scope=\"layer\""):
        jax.grad(value, argnums=2)(smooth, kind(3, 8, scope="network"), 1.2, 0.3)


@pytest.mark.parametrize("name", others_slow(["landmarks", "calibrated"], "landmarks"))
@pytest.mark.slow
def test_float32(name):
    """Within the rounding of kernel values over the smallest eigenvalues."""
    with jax.enable_x64(True):
        wanted = float(jax.grad(value, argnums=2)(deep, METHODS[name], 1.2, 0.3))

    def in_float32(w):
        x, other = (sample(*args).astype(np.float32) for args in ((120, 0), (5, 1)))
        kernel = ns.feature_map(deep(w, 0.3), x, METHODS[name], key=KEY).kernel_fn(other)
        weights = np.cos(np.arange(25.0)).reshape(5, 5).astype(np.float32)
        return jnp.sum(weights * kernel.nngp) + jnp.sum(weights[::-1] * kernel.ntk)

    assert abs(float(jax.grad(in_float32)(1.2)) - wanted) < 1e-3 * abs(wanted)


@pytest.mark.parametrize("method", [ns.Exact(), ns.Nystroem(4)], ids=["Exact", "Nystroem"])
class TestCompiled:
    message = r"at Relu\(\) takes landmarks .*cannot be made under jax.jit or jax.vmap"

    def make(self, method, x, key):
        model = stax.serial(stax.Dense(5), stax.Relu())
        return ns.feature_map(model, x, method, key=key)(x).ntk

    def test_jit(self, method):
        x = sample(12, 0).astype(np.float32)
        with pytest.raises(TypeError, match=self.message):
            jax.jit(lambda x: self.make(method, x, KEY))(x)

    @pytest.mark.default_flags
    def test_a_sample_and_a_key_that_are_there(self, method):
        """Computed while another function is traced; a key made inside is not there yet."""
        x = sample(12, 0).astype(np.float32)
        eps = float(np.finfo(np.float32).eps)
        inside = jax.jit(lambda other: self.make(method, x, KEY) + 0 * other)(1.0)
        np.testing.assert_allclose(inside, self.make(method, x, KEY), rtol=100 * eps, atol=10 * eps)
        with pytest.raises(TypeError, match=self.message):
            jax.jit(lambda seed: self.make(method, x, jax.random.key(seed)))(0)

    def test_vmap_of_keys(self, method):
        x = sample(12, 0).astype(np.float32)
        with pytest.raises(TypeError, match=self.message):
            jax.vmap(lambda key: self.make(method, x, key))(jax.random.split(KEY, 3))


@pytest.mark.default_flags
def test_with_the_options_of_quick_programs():
    """Programs that make a map have options of XLA's, which JAX refuses inside of others."""
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

    def energy(w):
        model = stax.serial(stax.Dense(1, w), stax.Relu(), stax.Dense(1))
        return jax.numpy.sum(ns.feature_map(model, x, ns.Nystroem(4), key=KEY)(x).ntk ** 2)

    slope = float(jax.grad(energy)(1.4))
    assert slope == pytest.approx(float(energy(1.45) - energy(1.35)) / 0.1, rel=0.05)
