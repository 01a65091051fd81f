"""Conjugate gradients give the regression of a decomposition, to their tolerance, and say how."""

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.solvers import (
    GCV,
    ConjugateGradient,
    HoldOut,
    LeaveOneOut,
    Validation,
    _sums,
    ridge,
)
from ntk_sketch.solvers._conjugate_gradient import _condition
from ntk_sketch.solvers._nystroem_inverse import NystroemInverse
from ntk_sketch.solvers._streamed import Streamed
from ntk_sketch.streaming._feature_stream import FeatureStream

KEY = jax.random.key(0)
SOLVER = ConjugateGradient(tolerance=1e-9, rank=5)


def _weights(n):
    weights = np.random.default_rng(4).uniform(0.2, 3, size=n)
    weights[[2, n - 3]] = 0
    return weights


@pytest.mark.parametrize("n", [15, 300], ids=["fewer examples", "more examples"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_equal_to_a_decomposition(make_map, make_data, n, fit_intercept, weighted):
    """Of float32 features, with sums in float64: several outputs of different sizes, one of them 0,
    and a path that is solved in turn."""
    feature_map, (x, y) = make_map(), make_data(n)
    y = np.concatenate([y * np.float32([1, 1e-3, 1e3]), np.zeros((n, 1), np.float32)], axis=1)
    y += fit_intercept * np.float32(50) - (1 - fit_intercept) * y.mean(axis=0)
    options = {"fit_intercept": fit_intercept, "diag_reg": [1e-3, 1e-1, 1e-2], "batch_size": 32}
    if weighted:
        options["sample_weight"] = _weights(n)
    direct = ridge(feature_map, x, y, **options)
    found = ridge(feature_map, x, y, solver=SOLVER, **options)
    assert direct.path[0].report is None
    for one, other in zip(direct.path, found.path, strict=True):
        assert other.report.converged
        assert other.residual == other.report.residual <= 1e-9
        assert 0 < other.report.iterations < 60
        assert one.penalty == pytest.approx(other.penalty, rel=1e-12)
        # the residual's tolerance times the condition, and the rounding of weights to float32
        scale = np.abs(one.weights).max(axis=0)
        error = np.abs(one.weights - other.weights).max(axis=0)
        assert np.all(error <= (1e-9 * other.condition + 3e-7) * scale + 1e-12)
        assert one.n_examples == other.n_examples
        if fit_intercept:
            np.testing.assert_allclose(one.intercept, other.intercept, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.default_flags
def test_thirty_thousand_features(record_property):
    """Of a network, against the decomposition of the kernel of fewer examples; several outputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 16)).astype(np.float32)
    y = np.tanh(x[:, :3]) + 0.1 * rng.normal(size=(4000, 3))
    model = stax.serial(stax.Dense(1, 2**0.5, 0.1), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(15_000), key=KEY)
    assert feature_map.n_features["ntk"] >= 30_000
    options = {"diag_reg": [1e-3, 1e-1], "fit_intercept": True}
    direct = ridge(feature_map, x[:3500], y[:3500], **options)
    solver = ConjugateGradient(1e-7, rank=300)
    found = ridge(feature_map, x[:3500], y[:3500], solver=solver, keep_features=True, **options)
    for one, other in zip(direct.path, found.path, strict=True):
        assert other.report.converged
        expected, predictions = (np.asarray(s.predict(x[3500:])) for s in (one, other))
        error = np.linalg.norm(predictions - expected) / np.linalg.norm(expected)
        record_property(f"diag_reg {one.diag_reg:g}", (float(error), other.report.iterations))
        # the tolerance, and the rounding of float32 features and weights
        assert error < 1e-5


def test_of_batches_and_on_a_device(make_map, make_data, monkeypatch):
    """float32 products, and residuals in float64."""
    feature_map, (x, y), weights = make_map(), make_data(300), _weights(300)

    def batches():
        for i in range(0, 300, 70):
            yield x[i : i + 70], y[i : i + 70], weights[i : i + 70]

    options = {"diag_reg": 1e-2, "fit_intercept": True, "batch_size": 32}
    direct = ridge(feature_map, x, y, sample_weight=weights, **options)
    solver = ConjugateGradient(1e-11, rank=5)  # less than float32 products alone give
    for on_host in (True, False):
        monkeypatch.setattr(_sums, "_on_host", lambda on_host=on_host: on_host)
        found = ridge(feature_map, batches, solver=solver, **options)
        assert found.report.converged
        assert found.report.residual <= 1e-11
        np.testing.assert_allclose(found.weights, direct.weights, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="conjugate gradients, with a pass for every iteration"):
        ridge(feature_map, batches(), solver="cg", **options)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("select", ["tuple", "hold out"])
def test_selection_by_examples_held_out(make_map, make_data, refit, select):
    feature_map, (x, y) = make_map(), make_data(300)
    options = {"diag_reg": [1e-3, 1e-1], "refit": refit, "extend_path": True, "batch_size": 32}
    options["select"] = make_data(40, seed=3) if select == "tuple" else HoldOut(0.3, key=KEY)
    direct = ridge(feature_map, x, y, **options)
    found = ridge(feature_map, x, y, solver=SOLVER, **options)
    assert found.diag_reg == direct.diag_reg
    assert len(found.path) == len(direct.path) > 2
    np.testing.assert_allclose(found.scores, direct.scores, rtol=1e-5)
    np.testing.assert_allclose(found.weights, direct.weights, rtol=0, atol=1e-5)


def test_features_are_kept(make_map, make_data, tmp_path):
    """In memory or in a file one pass computes them; without, every iteration does."""
    (x, y), counted, inner = make_data(300), [], make_map()

    def feature_map(x):
        jax.debug.callback(counted.append, x.shape[0])
        return inner(x)

    solutions = []
    for kept in (False, True, tmp_path / "z"):
        counted.clear()
        options = {"keep_features": kept, "batch_size": 64, "diag_reg": 1e-2}
        solutions.append(ridge(feature_map, x, y, solver=SOLVER, **options))
        jax.effects_barrier()
        passes = 1 if kept else solutions[0].report.iterations + 3
        assert len(counted) == 5 * passes
    for one in solutions[1:]:
        np.testing.assert_array_equal(one.weights, solutions[0].weights)


def test_rank_saves_iterations(features_type):
    """Eigenvalues from 1 to 1e-6: without a preconditioner the condition number decides."""
    rng = np.random.default_rng(0)
    decay = np.float32(10.0) ** -np.linspace(0, 3, 40, dtype=np.float32)
    x = rng.normal(size=(600, 40)).astype(np.float32)
    y = (x @ rng.normal(size=(40, 2)) + rng.normal(size=(600, 2))).astype(np.float32)
    feature_map = lambda x: features_type(None, x * decay[None])  # noqa: E731
    reports = []
    for rank in (1, 30):
        solver = ConjugateGradient(tolerance=1e-6, rank=rank, max_iterations=2000)
        solution = ridge(feature_map, x, y, diag_reg=1e-5, solver=solver, keep_features=True)
        reports.append(solution.report)
    without, with_rank = reports
    assert with_rank.converged
    assert 4 * with_rank.iterations < without.iterations
    assert 4 * with_rank.condition < without.condition


def test_what_has_not_converged_says_so(make_map, make_data):
    (x, y), solver = make_data(300), ConjugateGradient(1e-9, max_iterations=2, rank=1)
    with pytest.warns(RuntimeWarning, match=r"not converged .* after 2 iterations.*larger rank="):
        solution = ridge(make_map(), x, y, diag_reg=1e-4, solver=solver)
    report = solution.report
    assert not report.converged
    assert report.iterations == 2
    z = np.asarray(make_map()(x).ntk, np.float64)
    right = z.T @ y
    left = z.T @ (z @ np.asarray(solution.weights, np.float64)) + solution.penalty * np.asarray(
        solution.weights, np.float64
    )
    worst = np.max(np.linalg.norm(left - right, axis=0) / np.linalg.norm(right, axis=0))
    assert report.residual == pytest.approx(worst, rel=1e-3)


def test_rounding_ends_iterations(make_map, make_data, monkeypatch):
    """A tolerance of 1e-17 is not reached: said, instead of tried a thousand times."""
    monkeypatch.setattr(_sums, "_on_host", lambda: False)
    (x, y), solver = make_data(100), ConjugateGradient(1e-17, max_iterations=1000, rank=5)
    with pytest.warns(RuntimeWarning, match="does not fall any more after"):
        report = ridge(make_map(), x, y, diag_reg=1e-3, solver=solver, keep_features=True).report
    assert report.residual < 1e-13
    assert report.iterations < 1000


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_features_with_a_mean(make_data, features_type, monkeypatch, fit_intercept):
    """1,000 times their spread: in float32 a product of what is left after it, with the rounding
    of the features minus their mean alone; of these products in float64, of none."""
    monkeypatch.setattr(_sums, "_on_host", lambda: False)
    x, y = make_data(300)
    x, v = x + np.float32(1e3), np.random.default_rng(0).normal(size=(6, 2))
    features = FeatureStream(lambda x: features_type(None, x), "ntk", 64)
    found = Streamed(features, False, SOLVER).plus(x, y).decomposition(fit_intercept, False, 1)
    z = x.astype(np.float64)
    z -= fit_intercept * z.mean(axis=0)
    for which, error in ((0, 1e-6), (1, 1e-12)):
        product = found._whole(found._led._maps[which])
        expected = z.T @ (z @ v)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(product(v), expected, rtol=0, atol=error * largest)


def test_saved_with_its_report(make_data, tmp_path):
    x, y = make_data(40)
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(8), key=KEY)
    solution = ridge(feature_map, x, y, solver="cg")
    solution.save(tmp_path / "solution")
    loaded = ns.load(tmp_path / "solution")
    assert loaded.report == solution.report
    np.testing.assert_array_equal(loaded.predict(x), solution.predict(x))


def test_refused(make_map, make_data):
    x, y = make_data(30)
    for select in ("gcv", "loo", GCV(), LeaveOneOut(x, y)):
        with pytest.raises(ValueError, match="trace or the diagonal of the hat matrix"):
            ridge(make_map(), x, y, solver="cg", select=select)
    for options, message in [
        ({"diag_reg": 0}, "diag_reg=0 with conjugate gradients"),
        ({"solver": "lsqr"}, "solver='lsqr' is unknown; known: None .*'cg'"),
        ({"checkpoint": "/tmp/never"}, "checkpoint is of statistics, and conjugate gradients"),
        ({"sample_weight": np.zeros(30)}, "0 for all examples"),
    ]:
        with pytest.raises(ValueError, match=message):
            ridge(make_map(), x, y, **({"solver": "cg"} | options))
    for arguments, message in [
        ((0,), "tolerance=0; needed: a number, 0 < tolerance < 1"),
        ((True,), "tolerance=True"),
        ((1e-6, 0), "max_iterations must be a positive integer, got 0"),
        ((1e-6, 10, 0), "rank must be a positive integer"),
    ]:
        with pytest.raises(ValueError, match=message):
            ConjugateGradient(*arguments)
    assert ridge(make_map(), x, y, solver="cg", select=Validation(x, y)).scores.shape == (1,)


# ---- parts ---------------------------------------------------------------------------------------


def _preconditioned(matrix, penalty, rank):
    """Eigenvalues, by those of a symmetric matrix that is similar."""
    found = NystroemInverse(matrix.__matmul__, len(matrix), rank, 2.0**-52)
    shifted = matrix + penalty * np.eye(len(matrix))
    inverse = found.at(penalty)(np.eye(len(matrix)))
    np.testing.assert_allclose(inverse, inverse.T, rtol=0, atol=1e-12)
    root = np.linalg.cholesky(shifted)
    return np.linalg.eigvalsh(root.T @ inverse @ root), found


@pytest.mark.parametrize("n", [50, 10])  # of full rank, and not
def test_the_preconditioner(n):
    """At full rank an inverse; else the condition number is about (next eigenvalue + λ) / λ."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 30)) * 10.0 ** -np.linspace(0, 3, 30)
    matrix, penalty = z.T @ z, 1e-5
    values, found = _preconditioned(matrix, penalty, 100)
    largest = np.linalg.eigvalsh(matrix)[-1]
    assert found.largest == pytest.approx(largest, rel=1e-9)
    assert values[-1] / values[0] == pytest.approx(1.0, abs=1e-6)
    values, _ = _preconditioned(matrix, penalty, 12)
    following = np.sort(np.linalg.eigvalsh(matrix))[::-1][12]
    bound = (following + penalty) / penalty
    assert values[-1] / values[0] < 10 * bound < 0.1 * (largest + penalty) / penalty


def test_features_that_are_zero(features_type):
    feature_map = lambda x: features_type(None, 0 * x)  # noqa: E731
    x = np.ones((30, 4), np.float32)
    solution = ridge(
        feature_map, x, x[:, 0] - 1, diag_reg=1, diag_reg_absolute_scale=True, solver="cg"
    )
    np.testing.assert_array_equal(solution.weights, 0)


def test_steps_know_the_condition():
    """As many steps as there are eigenvalues: all of them."""
    values, rng = np.array([1.0, 2.0, 5.0, 30.0]), np.random.default_rng(0)
    residual = rng.normal(size=4)
    direction, sizes, shares = residual, [], []
    for _ in range(4):
        size = residual @ residual / (direction @ (values * direction))
        following = residual - size * values * direction
        share = following @ following / (residual @ residual)
        residual, direction = following, following + share * direction
        sizes.append(size)
        shares.append(share)
    assert _condition((sizes, shares)) == pytest.approx(30.0, rel=1e-9)
    assert _condition(([0.5], [])) == 1.0
