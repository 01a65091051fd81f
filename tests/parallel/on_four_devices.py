"""Tests of meshes, for a process with four devices: `test_mesh.py` starts one."""

import itertools

import equinox as eqx
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import ntk_sketch as ns
from ntk_sketch.parallel._devices import Devices
from ntk_sketch.solvers import (
    Checkpoint,
    ConjugateGradient,
    HoldOut,
    _mesh_sums,
    _sums,
    accumulate,
    ridge,
    solve,
)
from ntk_sketch.streaming import stream
from ntk_sketch.streaming._feature_stream import FeatureStream

SHAPES = [(4,), (2, 2), (1, 4)]
N, P, PATH = 1500, 20, [1e-3, 1e-2, 0.1, 1.0]
ROWS = 125  # on every device: a whole batch is 500


def mesh_of(*shape):
    devices = np.array(jax.devices()).reshape(shape)
    return Mesh(devices, ("data", "model")[: len(shape)])


@pytest.fixture(params=SHAPES, ids=str)
def mesh(request):
    return mesh_of(*request.param)


#: For what does not depend on the shape.
SQUARE = pytest.mark.parametrize("mesh", [(2, 2)], indirect=True, ids=str)


#: Every shape, and what is given to one of them.
EACH = pytest.mark.parametrize(
    ("mesh", "given"),
    [((4,), "batches"), ((2, 2), "arrays"), ((1, 4), "batches"), ((2, 2), "batches")],
    indirect=True,
    ids=str,
)


@pytest.fixture(params=["arrays", "batches"])
def given(request, make_data):
    x, y = make_data(N)
    y = y + np.array([100.0, 0, -3], np.float32)
    if request.param == "arrays":
        return x, y
    sizes = [0, 7, 350, 1, 641, N]
    ends = np.minimum(np.cumsum(sizes), N)
    return (lambda: ((x[a:b], y[a:b]) for a, b in itertools.pairwise(ends)),)


def sums_of(state):
    """In float64, of targets in units of 1."""
    sums, units = state.in_float64(), state.units()
    moments = sums.weight * units.shift + units.scale * sums.target_sum
    cross = units.scale * sums.cross + np.outer(sums.feature_sum, units.shift)
    return sums.gram, cross, sums.feature_sum, sums.feature_norm, moments, sums.weight


def largest_difference(one, other):
    pairs = zip(sums_of(one), sums_of(other), strict=True)
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


def near(found, expected, tolerance=1e-6):
    """Relative to the largest number."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def same(one, other):
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return all(np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))


# ---- the numbers of one device -------------------------------------------------------------------


@EACH
def test_statistics(make_map, given, mesh):
    alone = accumulate(make_map(), *given, batch_size=ROWS)
    state = accumulate(make_map(), *given, batch_size=4 * ROWS, mesh=mesh)
    assert largest_difference(state, alone) < 1e-12  # the same features, and sums in float64
    assert int(state.n_examples) == N
    columns = mesh.devices.shape[1] if mesh.devices.ndim == 2 else 1
    assert {s.data.shape for s in state.gram.high.addressable_shards} == {(P, P // columns)}
    assert len(state.gram.high.sharding.device_set) == columns


@pytest.mark.parametrize(
    ("mesh", "given", "select"),
    [
        ((4,), "arrays", "gcv"),
        ((1, 4), "batches", "loo"),
        ((2, 2), "arrays", "validation"),
        ((4,), "batches", HoldOut(0.2, key=jax.random.key(0))),
    ],
    indirect=["mesh", "given"],
    ids=str,
)
def test_regression(make_map, make_data, given, mesh, select):
    refit = select not in ("gcv", "loo")
    if select == "validation":
        select = make_data(200, seed=5)
    how = {"diag_reg": PATH, "select": select, "fit_intercept": True, "refit": refit}
    alone = ridge(make_map(), *given, batch_size=ROWS, **how)
    found = ridge(make_map(), *given, batch_size=4 * ROWS, mesh=mesh, **how)
    assert found.diag_reg == alone.diag_reg
    np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-6)
    x = make_data(333, seed=6)[0]
    expected = alone.predict(x)
    near(found.predict(x), expected)
    near(found.predict(x, mesh=mesh), expected)
    paths = found.predict_path(lambda: iter([x[:100], x[100:]]), mesh=mesh)
    near(paths, alone.predict_path(x))


@SQUARE
def test_fewer_examples_than_features(make_map, make_data, mesh):
    x, y = make_data(P - 3)
    how = {"diag_reg": PATH, "select": "loo", "keep_features": True}
    alone, found = (ridge(make_map(), x, y, mesh=m, **how) for m in (None, mesh))
    np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-5)
    np.testing.assert_allclose(found.predict(x), alone.predict(x), atol=1e-5)


@SQUARE
@pytest.mark.parametrize("given", ["arrays"], indirect=True)
def test_narrow_sums(make_map, given, mesh, monkeypatch):
    """Pairs of float32, as on an accelerator."""
    monkeypatch.setattr(_mesh_sums, "FLOAT64_FEATURES", 0)
    monkeypatch.setattr(_sums, "_on_host", lambda: False)
    alone = accumulate(make_map(), *given, batch_size=ROWS)
    state = accumulate(make_map(), *given, batch_size=4 * ROWS, mesh=mesh)
    (gram, *sums), (expected, *others) = sums_of(state), sums_of(alone)
    bound = state.rounding_error() + alone.rounding_error()  # both are of products in float32
    assert 0 < np.linalg.norm(gram - expected, 2) < bound < 1e-6 * np.trace(expected)
    for a, b in zip(sums, others, strict=True):
        near(a, b)
    assert state.rounding_error() == pytest.approx(alone.rounding_error(), rel=1)


@SQUARE
@pytest.mark.usefixtures("x64")
def test_float64_features(make_map, make_data, mesh):
    x, y = make_data(N, np.float64)
    feature_map = make_map(dtype=np.float64)
    alone, state = (accumulate(feature_map, x, y, batch_size=500, mesh=m) for m in (None, mesh))
    assert largest_difference(state, alone) < 1e-14


@SQUARE
def test_weights(make_map, make_data, mesh):
    """Half of them are 0, so that whole shares of devices are."""
    x, y = make_data(N)
    weights = np.where(np.arange(N) % 200 < 100, 0.0, np.linspace(0.1, 2, N))
    how = {"sample_weight": weights, "diag_reg": PATH, "select": "loo"}
    alone = ridge(make_map(), x, y, batch_size=ROWS, **how)
    found = ridge(make_map(), x, y, batch_size=4 * ROWS, mesh=mesh, **how)
    assert found.n_examples == alone.n_examples == N - 800
    assert found.diag_reg == alone.diag_reg
    near(found.scores, alone.scores)
    near(found.predict(x), alone.predict(x))


@SQUARE
def test_units_that_grow(make_map, make_data, mesh):
    """Later targets are larger by far; the first ones are all alike."""
    x, y = make_data(N)
    y[:500], y[1000:] = 3.0, 1e8 * y[1000:]
    pairs = lambda: ((x[i : i + 50], y[i : i + 50]) for i in range(0, N, 50))  # noqa: E731
    alone, state = (accumulate(make_map(), pairs, batch_size=500, mesh=m) for m in (None, mesh))
    assert largest_difference(state, alone) < 1e-6
    assert state.units().exponent > 25


@pytest.mark.parametrize("given", ["batches"], indirect=True)
def test_one_device_that_is_not_the_default(make_map, given):
    third = jax.devices()[2]
    state = accumulate(make_map(), *given, mesh=Mesh([third], ("data",)), batch_size=500)
    assert state.gram.high.sharding.device_set == {third}
    alone = accumulate(make_map(), *given)
    assert largest_difference(state, alone) < 1e-6
    for one, other in [(state, alone), (alone, state)]:  # wherever they are
        assert int(one.merge(other).n_examples) == 2 * N


def test_the_default_device_needs_no_mesh():
    first, _, third, _ = jax.devices()
    for default, other in ((first, third), (third, first)):
        with jax.default_device(default):
            assert Devices.of(Mesh([default], ("data",))).mesh is None
            assert Devices.of(Mesh([other], ("data",))).mesh.devices == [[other]]


@pytest.mark.skipif(not hasattr(jax.sharding, "AxisType"), reason="all axes are of one type")
def test_axes_of_an_explicit_type(make_map, make_data):
    x, y = make_data(N)
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    how = {"select": "gcv", "diag_reg": PATH, "batch_size": 500}
    found = ridge(make_map(), x, y, mesh=mesh, **how)
    assert found.diag_reg == ridge(make_map(), x, y, **how).diag_reg


@pytest.mark.parametrize("given", ["arrays"], indirect=True)
def test_states_of_different_meshes(make_map, given, tmp_path):
    states = [accumulate(make_map(), *given, mesh=mesh_of(*s), batch_size=500) for s in SHAPES]
    states.append(accumulate(make_map(), *given, batch_size=500))
    states[1].save(tmp_path / "state")
    states.append(ns.load(tmp_path / "state"))
    total = states[0]
    for state in states[1:]:
        total = total.merge(state)
    assert int(total.n_examples) == 5 * N
    whole = states[1].merge(total)
    assert solve(make_map(), whole, fit_intercept=True).n_examples == 6 * N
    np.testing.assert_allclose(total.gram.to_host(), 5 * states[0].gram.to_host(), rtol=1e-6)


@SQUARE
def test_a_network(make_data, mesh):
    """Landmarks, whose examples leave-one-out sets aside."""
    x, y = make_data(600)
    model = ns.stax.serial(ns.stax.Dense(1), ns.stax.Relu(), ns.stax.Dense(1))
    feature_map = ns.feature_map(model, x[:100], ns.Nystroem(16), key=jax.random.key(0))
    how = {"diag_reg": PATH, "select": "loo", "batch_size": 300}
    alone, found = (ridge(feature_map, x, y, mesh=m, **how) for m in (None, mesh))
    np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-5)
    assert found.diag_reg == alone.diag_reg


@pytest.mark.parametrize(
    ("mesh", "given", "on_host", "kept"),
    [
        ((4,), "batches", True, False),
        ((2, 2), "arrays", False, True),
        ((1, 4), "batches", False, False),
    ],
    indirect=["mesh", "given"],
    ids=str,
)
def test_conjugate_gradients(make_map, given, mesh, on_host, kept, monkeypatch):
    """With products on the host or, as on an accelerator, on the mesh."""
    monkeypatch.setattr(_sums, "_on_host", lambda: on_host)
    solver = ConjugateGradient(1e-9 if on_host else 1e-5, rank=8)
    how = {"diag_reg": [1e-3, 0.1], "fit_intercept": True, "batch_size": 4 * ROWS}
    direct = ridge(make_map(), *given, **how)
    found = ridge(make_map(), *given, mesh=mesh, solver=solver, keep_features=kept, **how)
    for one, other in zip(found.path, direct.path, strict=True):
        assert one.report.converged
        near(one.weights, other.weights, 1e-6 if on_host else 1e-3)
        near(one.intercept, other.intercept, 1e-6 if on_host else 1e-3)


# ---- predictions with variances ------------------------------------------------------------------


class BothKernels(eqx.Module):
    """16 features of the NNGP, and 32 of the NTK."""

    small: eqx.Module

    def __call__(self, x):
        ntk = self.small(x).ntk
        return type(self.small(x))(ntk[:, :16] * 0.5, ntk)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("mesh", "n"), [((2, 2), 600), ((4,), 14)], indirect=["mesh"], ids=str)
def test_predictions(make_map, make_data, mesh, n, monkeypatch):
    """More examples than features, and fewer; of both kernels, whose sums are of one pass."""
    both_kernels = BothKernels(make_map(p=32, dtype=np.float64))
    (x, y), x_test = make_data(n, np.float64), make_data(90, np.float64, seed=5)[0]
    times, key = np.array([0.5, 100.0]), jax.random.key(1)
    found, meshes, on_mesh = [], [], _sums.OnMesh
    monkeypatch.setattr(_sums, "OnMesh", lambda *of: meshes.append(of[-1]) or on_mesh(*of))
    for m in (None, mesh):
        how = {"diag_reg": 0.1, "batch_size": 300, "mesh": m}
        given = (both_kernels, x, y)
        ensemble = ns.predict.gradient_descent_mse_ensemble(*given, exact_diagonal=False, **how)
        posterior = ns.predict.gp_inference(*given, exact_diagonal=False, **how)
        one = ns.predict.gradient_descent_mse(*given, **how)
        results = [
            ensemble(times, x_test, "ntk", True),
            ensemble(times, None, "ntk", "diagonal"),
            ensemble.sample(x_test, key=key, n_samples=2, get="ntk"),
            posterior("nngp", x_test, "diagonal"),
            one(times, 0.3, 0.1, x_test),
            ns.predict.log_evidence(*given, **how),
        ]
        found.append([np.asarray(leaf) for leaf in jax.tree.leaves(results)])
    for expected, result in zip(*found, strict=True):
        near(result, expected, 1e-10)
    assert ensemble._training.stream(("ntk",)).features.devices.count == 4
    assert {len(used.devices) for used in meshes} == ({2} if n == 600 else set())


@SQUARE
def test_derivatives_of_the_evidence(make_map, make_data, mesh):
    """In 7 batches, the last of which is not whole."""
    x, y = make_data(600)

    def evidence(feature_map, diag_reg, mesh):
        how = {"diag_reg": diag_reg, "batch_size": 96, "mesh": mesh, "get": "ntk"}
        return ns.predict.log_evidence(feature_map, x, y, **how)

    given = make_map(), jax.numpy.asarray(0.01)
    slopes = [jax.grad(evidence, (0, 1))(*given, m) for m in (None, mesh)]
    for one, other in zip(*map(jax.tree.leaves, slopes), strict=True):
        assert other.sharding.device_set == one.sharding.device_set
        near(other, one, 1e-5)  # sums of 600 numbers in float32


def test_predictions_that_no_mesh_can_make(make_map, make_data):
    feature_map, (x, y), key = make_map(p=21), make_data(600), jax.random.key(0)
    how = {"diag_reg": 1e-2, "mesh": mesh_of(4), "get": "ntk"}
    with pytest.raises(ValueError, match="works on one device: leave mesh out"):
        ns.predict.log_evidence(feature_map, x, y, **how, log_determinant="stochastic", key=key)
    with pytest.raises(ValueError, match="all features are in memory: leave mesh out"):
        jax.jit(lambda m: ns.predict.log_evidence(m, x, y, **how))(feature_map)
    with pytest.raises(ValueError, match="does not divide"):
        ns.predict.gp_inference(feature_map, x, y, mesh=mesh_of(1, 4))


# ---- streams -------------------------------------------------------------------------------------


@SQUARE
def test_stream(make_map, make_data, mesh):
    x = make_data(103)[0]
    found = list(stream(make_map(), x, batch_size=30, mesh=mesh))
    assert [(a, b) for a, b, _ in found] == [(0, 32), (32, 64), (64, 96), (96, 103)]  # 30 → 32
    first = found[0][2]
    assert {shard.data.shape for shard in first.addressable_shards} == {(8, P)}
    expected = np.concatenate([z for _, _, z in stream(make_map(), x)])
    np.testing.assert_allclose(np.concatenate([z for _, _, z in found]), expected, rtol=1e-5)
    few = list(stream(make_map(), lambda: iter([x[:1]]), mesh=mesh))
    assert [(a, b, z.shape) for a, b, z in few] == [(0, 1, (1, P))]


@SQUARE
def test_features_in_a_file(make_map, make_data, mesh, tmp_path):
    """Written by four devices, and read by them or one, in other batches or orders."""
    (x, y), path = make_data(N), tmp_path / "z"
    parts = [z for *_, z in stream(make_map(), x, batch_size=120, mesh=mesh, cache=path)]
    assert {shard.data.shape for shard in parts[0].addressable_shards} == {(30, P)}
    other = jax.tree.map(lambda a: 2 * a, make_map())  # whose own features nobody asks for
    for m in (None, mesh):
        again = [z for *_, z in stream(other, x[::-1].copy(), mesh=m, cache=path)]
        np.testing.assert_array_equal(np.concatenate(again)[::-1], np.concatenate(parts))
    how = {"diag_reg": PATH, "select": "loo", "batch_size": 4 * ROWS}
    alone = ridge(make_map(), x, y, **how)
    found = ridge(other, x, y, mesh=mesh, keep_features=path, **how)
    assert found.diag_reg == alone.diag_reg
    near(found.weights, alone.weights)
    near(found.scores, alone.scores)


@SQUARE
def test_rows_behind_the_last_example(make_map, make_data, mesh):
    """Are 0, on whichever device."""
    features = FeatureStream(make_map(), "ntk", 40, devices=Devices.of(mesh))
    (z,) = [np.asarray(z) for _, _, z in features(make_data(23)[0])]
    assert z.shape == (32, P)
    assert np.all(z[:23].any(axis=1))
    assert not z[23:].any()


@SQUARE
def test_batches_that_the_map_proposes(make_map, make_data, mesh):
    """So many for every device."""
    x, _ = make_data(100)
    assert next(iter(stream(make_map(), x, mesh=mesh)))[:2] == (0, 4 * make_map().proposed)


@SQUARE
def test_examples_without_finite_features(features_type, make_data, mesh):
    x, y = (np.concatenate([part, part], axis=1) for part in make_data(60))
    x[49] = 30.0  # the last of the last device

    def feature_map(x):
        return features_type(None, jax.numpy.exp(x**2))

    with pytest.raises(ValueError, match=r"features of examples 20 to 39 .* are not finite"):
        accumulate(feature_map, x[10:], y[10:], batch_size=20, mesh=mesh)


# ---- checkpoints ---------------------------------------------------------------------------------


class StopError(Exception):
    pass


def stop_after(n):
    counts = []

    def progress(count):
        counts.append(count)
        if sum(counts) >= n:
            raise StopError

    return progress


@EACH
def test_goes_on(make_map, given, mesh, tmp_path, monkeypatch):
    monkeypatch.setattr(_sums, "BLOCK_ROWS", 125)
    path = tmp_path / "run"
    how = {"batch_size": 4 * ROWS, "mesh": mesh}
    undisturbed = accumulate(make_map(), *given, **how)
    checkpoint = Checkpoint(path, seconds=0)
    for stop in (1000, 1500):
        options = {"checkpoint": checkpoint, "progress": stop_after(stop)}
        with pytest.raises(StopError) as caught:
            accumulate(make_map(), *given, **how, **options)
        assert any("examples are in" in note for note in caught.value.__notes__)
    assert same(accumulate(make_map(), *given, **how, checkpoint=checkpoint), undisturbed)
    shape = " x ".join(map(str, (*mesh.devices.shape, 1)[:2]))
    for other in (None, *(mesh_of(*s) for s in SHAPES if s != mesh.devices.shape)):
        with pytest.raises(ValueError, match=rf"sums: on a mesh of {shape} devices there, on "):
            accumulate(make_map(), *given, batch_size=500, mesh=other, checkpoint=checkpoint)


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("data", TypeError, "mesh is a str; needed: a jax.sharding.Mesh of one axis"),
        (jax.devices(), TypeError, "mesh is a list"),
        ((2, 2, 1), ValueError, r"mesh has 3 axes \(2 x 2 x 1, a, b, c\); needed"),
        ((1, 3), ValueError, "of 3 devices, does not divide the 20 features.*1 or 2 devices"),
    ],
)
@pytest.mark.parametrize("call", [ridge, accumulate])
def test_before_any_feature(features_type, call, wrong, error, message):
    def feature_map(x):
        if not isinstance(x, jax.core.Tracer):  # traced for the shape
            raise AssertionError("features were computed")
        return features_type(None, jax.numpy.concatenate([x, x], axis=1))

    if isinstance(wrong, tuple):
        devices = np.array(jax.devices()[: np.prod(wrong)]).reshape(wrong)
        wrong = Mesh(devices, ("a", "b", "c")[: len(wrong)])
    x = np.ones((8, 10), np.float32)
    with pytest.raises(error, match=message):
        call(feature_map, x, x, mesh=wrong)
