import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from ntk_sketch.features import Features
from ntk_sketch.parallel._devices import Devices
from ntk_sketch.solvers import GramState, _mesh_sums, _running_sums, _sums, accumulate

EPS = float(np.finfo(np.float32).eps)


def _state(z, y, splits=()):
    state = GramState.init(z.shape[1], y.shape[1], z.dtype)
    for z_part, y_part in zip(np.split(z, splits), np.split(y, splits), strict=True):
        state = state.update(jnp.asarray(z_part), jnp.asarray(y_part))
    return state


def _in_units(state):
    """In the units in which targets were given."""
    sums, (shift, exponent) = state.in_float64(), state.units()
    scale, n = 2.0**exponent, int(state.n_examples)
    return sums._asdict() | {
        "cross": scale * sums.cross + np.outer(sums.feature_sum, shift),
        "target_norm": scale * (scale * sums.target_norm + 2 * shift * sums.target_sum)
        + n * shift**2,
        "target_sum": scale * sums.target_sum + n * shift,
    }


def _exact(z, y):
    z, y = z.astype(np.float64), y.astype(np.float64)
    return {
        "gram": z.T @ z,
        "cross": z.T @ y,
        "target_norm": (y**2).sum(0),
        "target_sum": y.sum(0),
        "feature_norm": (z**2).sum(),
        "feature_sum": z.sum(0),
        "weight": len(z),
    }


def _data(n=500, p=12, k=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    z = np.maximum(rng.normal(size=(n, 4)) @ rng.normal(size=(4, p)), 0)
    return z.astype(dtype), rng.normal(size=(n, k)).astype(dtype)


def _scales(z, y):
    return _exact(np.abs(z), np.abs(y))


def test_sums_are_the_definitions():
    z, y = _data()
    state = _state(z, y, [100, 101, 350])
    exact = _exact(z, y)
    assert int(state.n_examples) == 500
    blocks = np.array([100, 1, 249, 150.0])
    np.testing.assert_allclose(state.rounding, (EPS / 2) ** 2 * np.sum(blocks**3), rtol=1e-6)
    for name, got in _in_units(state).items():
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
        for name, got in _in_units(merged).items():
            # four additions of pairs, eps² / 2 each on either side
            bound = 4 * EPS**2 * _scales(z, y)[name]
            assert np.all(np.abs(got - _in_units(whole)[name]) <= bound), name


def test_a_state_of_no_examples_changes_nothing(make_map, make_data):
    """It takes the other's shift, without which targets of a large mean would lose digits."""
    x, y = make_data(60)
    state, empty = accumulate(make_map(), x, y.astype(np.float64) + 1e6), GramState.init(20, 3)
    for merged in (empty.merge(state), state.merge(empty)):
        np.testing.assert_array_equal(merged.units().shift, state.units().shift)
        for ours, theirs in zip(merged.in_float64(), state.in_float64(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_padded_rows_count_for_nothing():
    z, y = _data(n=40)
    padded = GramState.init(12, 3).update(
        jnp.zeros((64, 12)).at[:40].set(z), jnp.zeros((64, 3)).at[:40].set(y), 40
    )
    plain = _state(z, y)
    assert int(padded.n_examples) == 40
    for name, got in _in_units(padded).items():
        bound = (
            40 * EPS * _scales(z, y)[name]
        )  # XLA may order the sum of another length differently
        assert np.all(np.abs(got - _in_units(plain)[name]) <= bound), name


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


@pytest.mark.default_flags
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


@pytest.mark.default_flags
@pytest.mark.parametrize("where", ["host", "device", "mesh"])
def test_sums_round_as_the_spread_of_features(where, features_type, monkeypatch):
    """Products are in float32, as beyond 1,024 features; without a reference the error is 5e-3."""
    for module in (_running_sums, _mesh_sums):
        monkeypatch.setattr(module, "FLOAT64_FEATURES", 0)
    if where == "device":
        monkeypatch.setattr(_sums, "_on_host", lambda: False)
    if where == "mesh":
        one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("rows", "columns"))
        monkeypatch.setattr(Devices, "of", lambda _: Devices(one))
    rng = np.random.default_rng(0)
    z = (1 + 0.01 * rng.normal(size=(3000, 64))).astype(np.float32)
    y = rng.normal(size=(3000, 2)).astype(np.float32)
    state = accumulate(lambda x: features_type(None, x), z, y, batch_size=100)
    z, sums = z.astype(np.float64), state.in_float64()
    error = np.linalg.norm(sums.gram - z.T @ z, 2)
    assert error <= 1e-6  # of a largest eigenvalue of 3,000 · 64
    assert error <= state.rounding_error() <= 1000 * error
    np.testing.assert_allclose(sums.feature_sum, z.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(sums.feature_norm, np.sum(z**2), rtol=1e-11)
    cross = z.T @ state.units().of(y)  # of targets that are rounded to float32 on a device
    np.testing.assert_allclose(sums.cross, cross, atol=3000**0.5 * EPS)


@pytest.fixture
def on_device(monkeypatch):
    """Sums in the features' dtype, as on an accelerator."""
    monkeypatch.setattr(_sums, "_on_host", lambda: False)


@pytest.mark.usefixtures("on_device")
def test_accumulate_gathers_small_batches_into_blocks(make_map, make_data):
    x, y = make_data(2500)
    feature_map = make_map()
    state = accumulate(feature_map, x, y, batch_size=50)
    blocks = np.array([1050, 1050, 400.0])  # of ceil(1024 / 50) batches each
    z = np.asarray(feature_map(x).ntk, np.float64)
    before, after = (np.sum(f**2, axis=0) for f in (z - z[:1050].mean(axis=0), z))
    smaller = before.max() * before.sum() / (after.max() * after.sum())  # than without a reference
    rounding = smaller * (EPS / 2) ** 2 * np.sum(blocks**3)
    np.testing.assert_allclose(state.rounding, rounding, rtol=1e-3)
    assert int(state.n_examples) == 2500


def _accumulated_in_parts(feature_map, x, y):
    done = []
    whole = accumulate(feature_map, x, y, progress=done.append, batch_size=64)
    assert done == [64, 64, 64, 64, 44]
    # of different means, so that every merge changes units
    parts = [accumulate(feature_map, x[s], y[s]) for s in np.split(np.argsort(y[:, 0]), [10, 120])]
    a, b, c = parts
    return (
        _in_units(whole),
        _in_units(a.merge(b).merge(c)),
        _in_units(c.merge(b.merge(a))),
    )


@pytest.mark.usefixtures("on_device")
def test_accumulate_in_parts_is_accumulate_of_all(make_map, make_data):
    x, y = make_data(300)
    feature_map = make_map()
    z = np.asarray(feature_map(x).ntk)
    whole, *merged = _accumulated_in_parts(feature_map, x, y)
    for name, exact in _exact(z, y).items():
        bound = 300 * EPS * _scales(z, y)[name]  # float32 sums, in several orders
        for got in (whole, *merged):
            assert np.all(np.abs(got[name] - exact) <= bound), name


@pytest.mark.parametrize("factor", [1.0, 1e-20, 3.8e26])
@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_sums_of_few_features_on_a_cpu_are_those_of_float64(make_map, make_data, factor, mean):
    """In any units of y, with any mean; merges of parts move its mean in float32."""
    x, y = make_data(300, np.float64)
    # Of few binary digits, so that features do not depend on the size of the batch.
    x = (np.round(16 * x) / 16).astype(np.float32)
    feature_map = make_map()
    feature_map = eqx.tree_at(lambda m: m.w, feature_map, jnp.round(16 * feature_map.w) / 16)
    z, y = np.asarray(feature_map(x).ntk), factor * (y + mean)
    whole, *merged = _accumulated_in_parts(feature_map, x, y)
    spread = np.abs(z).sum(0)[:, None].astype(np.float64) * np.abs(y - y.mean(0)).max(0)
    for name, exact in _exact(z, y).items():
        # a pair has 48 bits; predictions see errors of `cross` relative to the spread of y
        assert np.all(np.abs(whole[name] - exact) <= 1e-12 * _scales(z, y)[name]), name
        for got in merged:
            bound = 1e-12 * _scales(z, y)[name]
            if name == "cross":
                bound = bound + 4 * EPS * spread
            elif name in ("target_sum", "target_norm"):
                bound = bound + 4 * EPS * _scales(z, y)[name]
            assert np.all(np.abs(got[name] - exact) <= bound), name


def test_update_is_in_the_units_of_the_state(make_map, make_data):
    x, y = make_data(300)
    feature_map = make_map()
    z, y = np.asarray(feature_map(x).ntk), 100 * y + 50
    state = accumulate(feature_map, x[:200], y[:200])
    padded = np.concatenate([z[200:], np.zeros((28, 20), np.float32)])
    targets = np.concatenate([y[200:], np.zeros((28, 3), np.float32)])
    state = state.update(padded, targets, 100)
    for name, exact in _exact(z, y).items():
        assert np.all(np.abs(_in_units(state)[name] - exact) <= 300 * EPS * _scales(z, y)[name]), (
            name
        )


def test_a_state_remembers_targets_of_one_axis(make_map, make_data):
    x, y = make_data(60)
    feature_map = make_map()
    vector, matrix = (accumulate(feature_map, x, t) for t in (y[:, 0], y[:, :1]))
    assert vector.one_output
    assert vector.merge(vector).one_output
    assert GramState.init(20, None).merge(vector).one_output
    assert not vector.merge(matrix).one_output
    assert GramState.init(20, None).update(feature_map(x).ntk, y[:, 0]).one_output


def test_accumulate_of_the_other_kernel(make_map, make_data):
    x, y = make_data(100)
    assert accumulate(make_map(6, 20), x, y, get="nngp").gram.high.shape == (14, 14)


class Rows(eqx.Module):
    """The map whose features are the examples."""

    def __call__(self, x):
        return Features(nngp=None, ntk=x)


@pytest.mark.slow
@pytest.mark.default_flags
@pytest.mark.parametrize("where", ["host", "device"])
def test_ten_million_rows(where, monkeypatch, record_property):
    """Of width 256 and with a mean, in blocks of the same rows in another order, times powers of
    two: their Gram matrix is that of one block, in float64, times a number.
    """
    monkeypatch.setattr(_sums, "_on_host", lambda: where == "host")
    rng, size = np.random.default_rng(0), 2**16
    base = np.maximum(rng.normal(size=(size, 256)) @ rng.normal(size=(256, 256)) / 16 + 0.3, 0)
    base, y = base.astype(np.float32), np.ones((size, 1), np.float32)
    scales = 2.0 ** rng.integers(-2, 3, size=153)

    def batches():
        for number, scale in enumerate(scales):
            order = np.random.default_rng(number).permutation(size)
            yield base[order] * np.float32(scale), y

    state = accumulate(Rows(), batches, batch_size=4096)
    assert int(state.n_examples) == 153 * size > 10_000_000
    wide = base.astype(np.float64)
    exact = np.sum(scales**2) * (wide.T @ wide)
    error = np.linalg.norm(state.gram.to_host() - exact) / np.linalg.norm(exact)
    record_property("error", float(error))
    assert error < 1e-6
