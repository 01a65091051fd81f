import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.solvers import GramState, accumulate

EPS = float(np.finfo(np.float32).eps)


def _state(z, y, splits=()):
    state = GramState.init(z.shape[1], y.shape[1], z.dtype)
    for z_part, y_part in zip(np.split(z, splits), np.split(y, splits), strict=True):
        state = state.update(jnp.asarray(z_part), jnp.asarray(y_part))
    return state


def _sums(state):
    return {
        "gram": state.gram.to_host(),
        "cross": state.cross.to_host(),
        "target_norm": state.target_norm.to_host(),
        "feature_norm": state.feature_norm.to_host(),
    }


def _data(n=500, p=12, k=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    z = np.maximum(rng.normal(size=(n, 4)) @ rng.normal(size=(4, p)), 0)
    return z.astype(dtype), rng.normal(size=(n, k)).astype(dtype)


def _scales(z, y):
    z, y = np.abs(z.astype(np.float64)), np.abs(y.astype(np.float64))
    return {
        "gram": z.T @ z,
        "cross": z.T @ y,
        "target_norm": (y**2).sum(0),
        "feature_norm": (z**2).sum(),
    }


def test_sums_are_the_definitions():
    z, y = _data()
    state = _state(z, y, [100, 101, 350])
    zd, yd = z.astype(np.float64), y.astype(np.float64)
    exact = {
        "gram": zd.T @ zd,
        "cross": zd.T @ yd,
        "target_norm": (yd**2).sum(0),
        "feature_norm": (zd**2).sum(),
    }
    assert int(state.n_examples) == 500
    assert int(state.n_blocks) == 4
    for name, got in _sums(state).items():
        # the sums in a block of at most 250 products err by √250 eps/2 at one standard deviation
        # if done one after another; 4 of these
        bound = 4 * np.sqrt(250) * EPS / 2 * _scales(z, y)[name]
        assert np.all(np.abs(got - exact[name]) <= bound), name


def test_merge_is_one_pass():
    """The same blocks added in one state, or in three that are merged in either order."""
    z, y = _data()
    whole = _state(z, y, [100, 101, 350])
    parts = [_state(z[s], y[s]) for s in np.split(np.arange(500), [100, 101, 350])]
    left = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    right = parts[3].merge(parts[2].merge(parts[1].merge(parts[0])))
    for merged in (left, right):
        assert int(merged.n_examples) == 500
        for name, got in _sums(merged).items():
            # four additions of pairs, eps² / 2 each on either side
            bound = 4 * EPS**2 * _scales(z, y)[name]
            assert np.all(np.abs(got - _sums(whole)[name]) <= bound), name


def test_padded_rows_count_for_nothing():
    z, y = _data(n=40)
    padded = GramState.init(12, 3).update(
        jnp.zeros((64, 12)).at[:40].set(z), jnp.zeros((64, 3)).at[:40].set(y), 40
    )
    plain = _state(z, y)
    assert int(padded.n_examples) == 40
    for name, got in _sums(padded).items():
        bound = (
            40 * EPS * _scales(z, y)[name]
        )  # XLA may order the sum of another length differently
        assert np.all(np.abs(got - _sums(plain)[name]) <= bound), name


def test_is_a_pytree_of_arrays_that_can_be_saved():
    z, y = _data()
    state = _state(z, y)
    leaves, structure = jax.tree.flatten(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])
    both = jax.jit(GramState.merge)(state, again)
    assert int(both.n_examples) == 1000


def test_half_precision_features_are_summed_in_float32():
    z, y = _data()
    state = GramState.init(12, 3, jnp.bfloat16).update(
        jnp.asarray(z, jnp.bfloat16), jnp.asarray(y, jnp.bfloat16)
    )
    assert state.gram.high.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_float64_features_are_summed_in_float64():
    z, y = _data(dtype=np.float64)
    state = _state(z, y, [250])
    assert state.gram.high.dtype == jnp.float64
    # 250 roundings of float64 in a block
    np.testing.assert_allclose(state.gram.to_host(), z.T @ z, rtol=250 * 2.3e-16)


def test_merge_refuses_other_shapes():
    with pytest.raises(ValueError, match="12 features and 3 outputs with one of 13 features and 3"):
        GramState.init(12, 3).merge(GramState.init(13, 3))


@pytest.mark.parametrize("kind", ["white", "mean", "relu", "graded"])
def test_rounding_error_is_an_upper_estimate(kind):
    """Above the error measured in float64, and not a thousand times above."""
    rng = np.random.default_rng(0)
    n, p, block = 2048, 256, 512
    z = {
        "white": lambda: rng.normal(size=(n, p)),
        "mean": lambda: 1 + 0.1 * rng.normal(size=(n, p)),
        "relu": lambda: np.maximum(rng.normal(size=(n, 30)) @ rng.normal(size=(30, p)), 0),
        "graded": lambda: rng.normal(size=(n, p)) * np.arange(1.0, p + 1) ** -1.5,
    }[kind]().astype(np.float32)
    state = _state(z, np.ones((n, 1), np.float32), range(block, n, block))
    exact = z.astype(np.float64).T @ z.astype(np.float64)
    error = np.linalg.norm(state.gram.to_host() - exact, 2)
    assert error <= state.rounding_error() <= 1000 * error


def test_accumulate_gathers_small_batches_into_blocks(make_map, make_data):
    x, y = make_data(2500)
    state = accumulate(make_map(), x, y, batch_size=50)
    assert int(state.n_blocks) == 3  # of ceil(1024 / 50) batches each
    assert int(state.n_examples) == 2500


def test_accumulate_in_parts_is_accumulate_of_all(make_map, make_data):
    x, y = make_data(300)
    feature_map = make_map()
    done = []
    whole = accumulate(feature_map, x, y, progress=done.append, batch_size=64)
    assert done == [64, 64, 64, 64, 44]
    parts = [accumulate(feature_map, x[s], y[s]) for s in (slice(0, 10), slice(10, 300))]
    merged = parts[1].merge(parts[0])
    z = np.asarray(feature_map(x).ntk)
    for name, got in _sums(merged).items():
        bound = 300 * EPS * _scales(z, y)[name]  # other blocks: float32 sums in another order
        assert np.all(np.abs(got - _sums(whole)[name]) <= bound), name


def test_accumulate_of_the_other_kernel(make_map, make_data):
    x, y = make_data(100)
    assert accumulate(make_map(6, 20), x, y, get="nngp").gram.high.shape == (14, 14)
