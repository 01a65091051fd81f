"""Networks of every kind of library, and the limit of infinite width."""

import equinox as eqx
import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.empirical import empirical_feature_map


def assert_exact(apply_fn, params, x, **kwargs):
    """With all rows, features have the kernel of Neural Tangents."""
    features = empirical_feature_map(
        apply_fn, params, 1 << 20, key=jax.random.key(0), x=x, get="ntk", **kwargs
    )
    z = np.asarray(features(x).ntk, "f8")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        fn = nt.empirical_ntk_fn(lambda params, x: apply_fn(params, x, **kwargs), vmap_axes=0)
        expected = np.asarray(jax.jit(fn)(x, None, params), "f8")
    np.testing.assert_allclose(z @ z.T, expected, atol=2e-5 * np.abs(expected).max())


@pytest.fixture
def loose():
    """Other libraries add axes as they please."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def points(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape).astype("f4"))


def test_convolutional_network_with_dropout():
    """The key of random layers is an argument, and the mask the same for every example."""
    init_fn, apply_fn, _ = stax.serial(
        stax.Conv(2, (3, 3)), stax.Relu(), stax.Dropout(0.5), stax.Flatten(), stax.Dense(1)
    )
    x = points(3, 5, 5, 1)
    _, params = init_fn(jax.random.key(0), x.shape)
    assert_exact(apply_fn, params, x, rng=jax.random.key(1))


def test_equinox(loose):
    model = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    assert_exact(lambda params, x: jax.vmap(eqx.combine(params, static))(x), params, points(4, 3))


def test_flax_linen(loose):
    linen = pytest.importorskip("flax.linen")
    model = linen.Sequential([linen.Dense(8), linen.tanh, linen.Dense(2)])
    x = points(4, 3)
    assert_exact(model.apply, model.init(jax.random.key(0), x), x)


def test_flax_nnx(loose):
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 8, rngs=rngs), jnp.tanh, nnx.Linear(8, 2, rngs=rngs))
    graph, params = nnx.split(model, nnx.Param)
    assert_exact(lambda params, x: nnx.merge(graph, params)(x), params, points(4, 3))


def test_functions_with_one_derivative():
    """Without forward mode (custom_vjp), or without reverse mode (a loop of unknown length)."""

    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))
    x, w = points(3, 2), points(2, 40)
    options = {"key": jax.random.key(0), "x": x}

    def no_forward(params, x):
        return cube(x @ params)

    def no_reverse(params, x):
        return jax.lax.while_loop(lambda y: jnp.max(y) < 1, lambda y: 2 * y, x @ params)

    assert empirical_feature_map(no_forward, w, 2, **options).mode == "reverse"
    assert empirical_feature_map(no_reverse, w[:, :1], 80, **options).mode == "forward"
    with pytest.raises(TypeError, match="no forward mode"):
        empirical_feature_map(no_forward, w, 2, mode="forward", **options)
    with pytest.raises(ValueError, match="no reverse mode"):
        empirical_feature_map(no_reverse, w, 2, mode="reverse", **options)


def test_infinite_width_is_the_mean_over_networks():
    """With one hidden layer the NTK at initialisation is an unbiased estimate of the limit, and so
    are sketched features of any number of rows, whatever the widths."""
    init_fn, apply_fn, _ = model = stax.serial(
        stax.Dense(16, W_std=1.5, b_std=0.3), stax.Erf(), stax.Dense(1)
    )
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("f4")
    infinite = ns.feature_map(model, x, ns.Exact(), key=jax.random.key(0)).kernel_fn(x, None, "ntk")

    @jax.jit
    @jax.vmap
    def kernels(key):
        key_params, key_sketch = jax.random.split(key)
        _, params = init_fn(key_params, x.shape)
        z = empirical_feature_map(apply_fn, params, 16, key=key_sketch, x=x, get="ntk")(x).ntk
        return z @ z.T

    found = np.asarray(kernels(jax.random.split(jax.random.key(1), 1000)), "f8")
    standard_error = found.std(0) / 1000**0.5
    assert np.all(np.abs(found.mean(0) - infinite) < 4 * standard_error)
    assert np.all(standard_error < 0.1 * np.diag(infinite).mean())
