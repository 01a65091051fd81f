"""Features of a tiny network against every kernel of Neural Tangents and an explicit Jacobian."""

import equinox as eqx
import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest

from ntk_sketch.empirical import empirical_feature_map

MODES = ("forward", "reverse")
N_PARAMS, PADDED = 60, 64
EPS = float(np.finfo("f4").eps)


def made(tiny, width, mode=None, key=0, **options):
    key = jax.random.key(key) if isinstance(key, int) else key
    options = {"x": tiny.x, "key": key, "mode": mode} | options
    return empirical_feature_map(tiny.apply_fn, tiny.params, width, **options)


def assert_close(got, expected, digits=16):
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=digits * EPS * np.abs(expected).max())


def test_exact_with_all_rows(tiny):
    """Both ways, against every implementation of Neural Tangents."""

    def ntk(implementation):
        fn = nt.empirical_ntk_fn(tiny.apply_fn, implementation=implementation)
        return jax.jit(fn)(tiny.x, None, tiny.params)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = [ntk(implementation) for implementation in nt.NtkImplementation]
    outputs = tiny.apply_fn(tiny.params, tiny.x)
    for mode, rows in zip(MODES, (N_PARAMS, PADDED), strict=True):
        features = made(tiny, 1000, mode)
        z = features(tiny.x)
        assert features.n_features == {"nngp": 2, "ntk": 2 * rows}
        assert z.ntk.shape == (4, 2 * rows)
        assert_close(z.nngp @ z.nngp.T, outputs @ outputs.T / 2)
        for kernel in expected:
            assert_close(z.ntk @ z.ntk.T, kernel)


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("mode", MODES)
def test_unbiased_with_the_variance_of_the_docstring(tiny, mode, width):
    """Mean and mean squared error over keys; the latter from the Jacobian, by loops."""
    keys = jax.random.split(jax.random.key(1), 2000)

    @jax.jit
    @jax.vmap
    def kernels(key):
        z = made(tiny, width, mode, key=key)(tiny.x).ntk
        return z @ z.T

    found = np.asarray(kernels(keys), "f8")
    standard_error = found.std(0) / len(keys) ** 0.5
    assert np.all(np.abs(found.mean(0) - tiny.ntk) < 4 * standard_error)
    share = 1.0 if mode == "forward" else (PADDED - width) / (PADDED - 1)
    for i in range(4):
        for j in range(4):
            m = sum(np.outer(tiny.jacobian[i, t], tiny.jacobian[j, t]) for t in range(2)) / 2
            both = (np.sum(m * m) + np.sum(m * m.T) - 2 * np.sum(np.diag(m) ** 2)) / width
            squares = (found[:, i, j] - tiny.ntk[i, j]) ** 2
            error = 4 * squares.std() / len(keys) ** 0.5
            assert abs(squares.mean() - both * share) < error


@pytest.mark.parametrize("mode", MODES)
def test_error_falls_with_the_root_of_the_width(mode):
    """Slope of log error against log width within 4 standard errors; of 1,088 parameters."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)).astype("f4"))

    def apply_fn(params, x):
        return jnp.tanh(x @ params[0]) @ params[1]

    shapes = (16, 64), (64, 1)
    keys = jax.random.split(jax.random.key(2), 2)
    params = [0.2 * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    exact = nt.empirical_ntk_fn(apply_fn)(x, None, params)

    def mean_square(width):
        @jax.jit
        @jax.vmap
        def squares(key):
            z = empirical_feature_map(apply_fn, params, width, key=key, x=x, mode=mode)(x).ntk
            return jnp.sum((z @ z.T - exact) ** 2)

        found = np.asarray(squares(jax.random.split(jax.random.key(3), 200)), "f8")
        return found.mean(), found.std() / 200**0.5 / found.mean()

    few, many = 2, 64
    (first, first_error), (last, last_error) = mean_square(few), mean_square(many)
    if mode == "reverse":  # whose rows are drawn without replacement, of 2,048
        first, last = first * 2047 / (2048 - few), last * 2047 / (2048 - many)
    slope = np.log(last / first) / np.log(many / few) / 2
    error = np.hypot(first_error, last_error) / np.log(many / few) / 2
    assert abs(slope + 0.5) < 4 * error < 0.1


AXES = [((-1,), ()), ((), ()), ((1, 2), ()), (-1, (1,)), ((1,), (-1,)), ((), (1, 2))]


@pytest.mark.parametrize(("trace_axes", "diagonal_axes"), AXES)
def test_axes_are_those_of_neural_tangents(trace_axes, diagonal_axes):
    """Outputs (n, 2, 3): kernels of the features, exact here, have the axes of NT's."""
    x1, x2 = (np.random.default_rng(seed).normal(size=(n, 2)) for seed, n in ((0, 3), (1, 2)))
    x1, x2 = jnp.asarray(x1.astype("f4")), jnp.asarray(x2.astype("f4"))
    w = jax.random.normal(jax.random.key(0), (2, 2, 3))

    def apply_fn(params, x):
        return jnp.sin(jnp.tensordot(x, params, 1))

    axes = {"trace_axes": trace_axes, "diagonal_axes": diagonal_axes}
    features = empirical_feature_map(apply_fn, w, 100, key=jax.random.key(1), x=x1, **axes)
    fn = nt.empirical_kernel_fn(apply_fn, tuple(np.atleast_1d(trace_axes)), diagonal_axes)
    expected = jax.jit(lambda a, b, w: tuple(fn(a, b, ("nngp", "ntk"), w)))(x1, x2, w)
    found = features.kernel_fn(x1, x2)
    exact = jax.jit(lambda a, b: tuple(features.exact_kernel_fn(a, b)))(x1, x2)
    z = features(x1)
    for name, kernel, same in zip(("nngp", "ntk"), expected, exact, strict=True):
        assert_close(getattr(found, name), kernel)
        assert_close(same, kernel)
        kept = [(2, 3)[axis - 1] for axis in (1, 2) if axis not in features.axes.trace]
        assert getattr(z, name).shape == (3, *kept, features.n_features[name])


def test_what_is_not_asked_for_is_not_there(tiny):
    assert made(tiny, 8, get="ntk")(tiny.x).nngp is None
    only = made(tiny, 8, get="nngp")
    z = only(tiny.x)
    assert z.ntk is None
    assert only.n_features == {"nngp": 2}
    with pytest.raises(ValueError, match="this feature map has"):
        only.kernel_fn(tiny.x, None, "ntk")


def test_the_cheaper_way(tiny):
    """Two gradients cost less than 1,000 products, which cost less than those of 500 outputs."""
    assert made(tiny, 1000).mode == "reverse"

    def many(params, x):
        return jnp.tanh(x @ params[0]) @ params[1]

    params = [jnp.ones((3, 8)), jnp.ones((8, 500))]
    options = {"key": jax.random.key(0), "x": tiny.x}
    assert empirical_feature_map(many, params, 16, **options).mode == "forward"


@pytest.mark.parametrize("mode", MODES)
def test_a_pytree(tiny, mode):
    """Under jit, vmap over parameters and grad; one by one and all at once are the same."""
    features = made(tiny, 8, mode)
    z = features(tiny.x).ntk
    one_at_a_time = made(tiny, 8, mode, memory_bytes=1)
    under_jit = jax.jit(lambda features, x: features(x).ntk)(one_at_a_time, tiny.x)
    assert_close(under_jit, z)
    assert_close(features(tiny.x[1:2]).ntk[0], z[1])

    def of(params):
        return eqx.tree_at(lambda f: f.params, features, params)(tiny.x).ntk

    stacked = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), tiny.params)
    found = jax.jit(jax.vmap(of))(stacked)
    assert_close(found[0], z)
    assert not np.allclose(found[1], z, atol=0.01)
    slope = jax.jit(jax.grad(lambda params: jnp.sum(of(params) ** 2)))(tiny.params)
    ahead = jax.tree.map(lambda p, g: p + 1e-3 * g, tiny.params, slope)
    behind = jax.tree.map(lambda p, g: p - 1e-3 * g, tiny.params, slope)
    change = np.sum(np.asarray(of(ahead), "f8") ** 2) - np.sum(np.asarray(of(behind), "f8") ** 2)
    size = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(slope))
    assert change == pytest.approx(2e-3 * size, rel=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_dtypes(tiny, mode, float64):
    """Features have the dtype of the outputs, float32 at least."""

    def of(dtype):
        params = jax.tree.map(lambda p: p.astype(dtype), tiny.params)
        x = jnp.asarray(tiny.x).astype(dtype)
        options = {"key": jax.random.key(0), "mode": mode}
        return empirical_feature_map(tiny.apply_fn, params, 1000, x=x, **options)(x)

    assert of("bfloat16").ntk.dtype == of("bfloat16").nngp.dtype == np.float32
    z = of("float64").ntk
    assert z.dtype == np.float64
    # The Jacobian was computed in float32.
    assert_close((z @ z.T).astype("f4"), tiny.ntk.astype("f4"))
    low = np.asarray(of("bfloat16").ntk, "f8")
    assert np.linalg.norm(low @ low.T - tiny.ntk) < 0.05 * np.linalg.norm(tiny.ntk)


def test_batches_are_from_the_budget(tiny):
    """Powers of two; more memory, more examples; forward mode needs some for each example."""
    forward, reverse = (made(tiny, 8, mode) for mode in MODES)
    for features in (forward, reverse):
        sizes = [features.batch_size(2**power) for power in range(0, 40, 4)]
        assert sizes == sorted(sizes)
        assert sizes[0] == 1
        assert sizes[-1] == 4096
        assert all(size & (size - 1) == 0 for size in sizes)
    assert forward.batch_size(2**14) < reverse.batch_size(2**14)
    assert made(tiny, 8, "reverse", memory_bytes=2**14).batch_size() == reverse.batch_size(2**14)
    costs = [features.cost((n, 3)).flops for features in (forward, reverse) for n in (20, 40)]
    assert np.divide(costs[1::2], costs[::2]) == pytest.approx(2, rel=0.05)
