"""Against the closed form, scikit-learn and Neural Tangents."""

import collections
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

import ntk_sketch  # first: makes neural_tangents importable
from ntk_sketch.solvers import GramState, _sums, accumulate, ridge, solve

assert ntk_sketch
import neural_tangents as nt  # noqa: E402

EPS32, EPS64 = (float(np.finfo(t).eps) for t in (np.float32, np.float64))

# Solving (K + λ) a = y loses a factor `condition` of the precision; sums of some hundred products
# another ten.
SLACK = 10


def _kernel_ridge(feature_map, x, y, x_test, penalty, get="ntk"):
    """K(x_test, x) (K + λ I)⁻¹ y in float64 NumPy."""
    z, z_test = (np.asarray(getattr(feature_map(a), get), np.float64) for a in (x, x_test))
    return z_test @ z.T @ np.linalg.solve(z @ z.T + penalty * np.eye(len(z)), y.astype(np.float64))


def _penalty(feature_map, x, diag_reg, get="ntk"):
    z = np.asarray(getattr(feature_map(x), get), np.float64)
    return diag_reg * np.trace(z @ z.T) / len(z)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [12, 20, 90], ids=["dual", "square", "primal"])
@pytest.mark.parametrize("get", ["nngp", "ntk"])
@pytest.mark.parametrize("absolute", [False, True])
def test_closed_form_in_float64(make_map, make_data, n, get, absolute):
    feature_map = make_map(6, 20, np.float64)
    (x, y), (x_test, _) = make_data(n, np.float64), make_data(11, np.float64, seed=1)
    solution = ridge(
        feature_map, x, y, diag_reg=0.02, diag_reg_absolute_scale=absolute, get=get, batch_size=8
    )
    penalty = 0.02 if absolute else _penalty(feature_map, x, 0.02, get)
    assert solution.penalty == pytest.approx(penalty, rel=100 * EPS64)
    assert solution.n_examples == n
    expected = _kernel_ridge(feature_map, x, y, x_test, penalty, get)
    np.testing.assert_allclose(
        solution.predict(x_test),
        expected,
        rtol=0,
        atol=SLACK * EPS64 * solution.condition * np.abs(expected).max(),
    )


@pytest.mark.default_flags
@pytest.mark.parametrize("n", [12, 300])
def test_closed_form_in_float32(make_map, make_data, n):
    feature_map = make_map()
    (x, y), (x_test, _) = make_data(n), make_data(11, seed=1)
    solution = ridge(feature_map, x, y, diag_reg=0.01)
    expected = _kernel_ridge(feature_map, x, y, x_test, _penalty(feature_map, x, 0.01))
    assert solution.weights.dtype == jnp.float32
    np.testing.assert_allclose(
        solution.predict(x_test),
        expected,
        rtol=0,
        atol=SLACK * EPS32 * solution.condition * np.abs(expected).max(),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [12, 90])
def test_scikit_learn(make_map, make_data, n):
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(n, np.float64)
    solution = ridge(feature_map, x, y, diag_reg=0.3, diag_reg_absolute_scale=True)
    theirs = Ridge(alpha=0.3, fit_intercept=False).fit(np.asarray(feature_map(x).ntk), y)
    atol = SLACK * EPS64 * solution.condition * np.abs(theirs.coef_).max()
    np.testing.assert_allclose(solution.weights, theirs.coef_.T, rtol=0, atol=atol)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("n", [12, 90])
def test_neural_tangents(make_map, make_data, n, absolute):
    """Converged gradient descent on the same kernel, with the same meaning of `diag_reg`."""
    feature_map = make_map(6, 20, np.float64)
    (x, y), (x_test, _) = make_data(n, np.float64), make_data(11, np.float64, seed=1)

    def kernel_fn(x1, x2=None, get="ntk"):
        z1, z2 = (feature_map(x1), feature_map(x1 if x2 is None else x2))
        one = lambda name: getattr(z1, name) @ getattr(z2, name).T  # noqa: E731
        if isinstance(get, str):
            return one(get)
        return collections.namedtuple("Kernel", get)(*map(one, get))

    predictor = nt.predict.gradient_descent_mse_ensemble(
        kernel_fn, x, y, diag_reg=0.02, diag_reg_absolute_scale=absolute
    )
    theirs = np.asarray(predictor(x_test=x_test, get="ntk", t=None))
    solution = ridge(feature_map, x, y, diag_reg=0.02, diag_reg_absolute_scale=absolute)
    np.testing.assert_allclose(
        solution.predict(x_test),
        theirs,
        rtol=0,
        # n > p: theirs solves the n x n system, of condition (largest + λ) / λ
        atol=SLACK * EPS64 * solution.condition * (1 + n) * np.abs(theirs).max(),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [12, 20])
def test_primal_is_dual(make_map, make_data, n):
    """`ridge` takes the dual for n <= p; `solve` of the statistics is primal."""
    feature_map = make_map(6, 20, np.float64)
    x, y = make_data(n, np.float64)
    dual = ridge(feature_map, x, y, diag_reg=[1e-3, 1e-1])
    primal = solve(feature_map, accumulate(feature_map, x, y), diag_reg=[1e-3, 1e-1])
    for one, other in zip(dual.path, primal.path, strict=True):
        atol = SLACK * EPS64 * other.condition * float(jnp.abs(one.weights).max())
        np.testing.assert_allclose(one.weights, other.weights, rtol=0, atol=atol)
        assert one.penalty == pytest.approx(other.penalty, rel=100 * EPS64)


@pytest.mark.parametrize("n", [12, 300])
def test_path_is_separate_solves(make_map, make_data, n):
    feature_map = make_map()
    x, y = make_data(n)
    values = [1.0, 1e-3, 0.1]
    path = ridge(feature_map, x, y, diag_reg=values).path
    assert [one.diag_reg for one in path] == values
    for value, one in zip(values, path, strict=True):
        alone = ridge(feature_map, x, y, diag_reg=value)
        assert alone.path == ()
        # the same arithmetic on the same statistics
        np.testing.assert_array_equal(one.weights, alone.weights)
        assert (one.penalty, one.condition, one.rank) == (
            alone.penalty,
            alone.condition,
            alone.rank,
        )
        np.testing.assert_array_equal(one.predict(x), alone.predict(x))


@pytest.mark.parametrize("n", [12, 300])
def test_independent_of_the_batch_size(make_map, make_data, n):
    feature_map = make_map()
    x, y = make_data(n)
    reference = ridge(feature_map, x, y, diag_reg=0.01, batch_size=n)
    for batch_size in (1, 7, 64, 10_000, None):
        other = ridge(feature_map, x, y, diag_reg=0.01, batch_size=batch_size)
        atol = SLACK * EPS32 * reference.condition * float(jnp.abs(reference.weights).max())
        np.testing.assert_allclose(other.weights, reference.weights, rtol=0, atol=atol)


def test_ridge_is_accumulate_and_solve(make_map, make_data):
    feature_map = make_map()
    x, y = make_data(300)
    state = GramState.init(20, 3)
    for part in np.array_split(np.arange(300), 4):
        state = state.merge(accumulate(feature_map, x[part], y[part]))
    whole = ridge(feature_map, x, y, diag_reg=[1e-2, 1e-1], select="gcv")
    parts = solve(feature_map, state, diag_reg=[1e-2, 1e-1], select="gcv")
    atol = SLACK * EPS32 * whole.condition * float(jnp.abs(whole.weights).max())
    np.testing.assert_allclose(parts.weights, whole.weights, rtol=0, atol=atol)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=SLACK * EPS32 * whole.condition)


@pytest.mark.parametrize("n", [12, 300])
def test_one_output(make_map, make_data, n):
    feature_map = make_map()
    x, y = make_data(n)
    many = ridge(feature_map, x, y, diag_reg=[0.1, 1.0], select="gcv")
    one = ridge(feature_map, x, y[:, 1], diag_reg=many.diag_reg)
    assert one.weights.shape == (20,)
    assert one.predict(x).shape == (n,)
    assert many.predict(x).shape == (n, 3)
    atol = SLACK * EPS32 * one.condition
    np.testing.assert_allclose(one.predict(x), many.predict(x)[:, 1], rtol=0, atol=atol)


def test_inputs_may_be_jax_arrays_or_float64(make_map, make_data):
    feature_map = make_map()
    x, y = make_data(50)
    reference = ridge(feature_map, x, y, diag_reg=0.1).weights
    for same in (
        ridge(feature_map, jnp.asarray(x), jnp.asarray(y), diag_reg=0.1),
        ridge(feature_map, x.astype(np.float64), y.astype(np.float64), diag_reg=np.float32(0.1)),
    ):
        # diag_reg itself is rounded to float32 in the last
        np.testing.assert_allclose(same.weights, reference, rtol=0, atol=1e-6)
    assert not jax.config.jax_enable_x64


# ---- no regulariser ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [12, 300])
@pytest.mark.filterwarnings("error")
def test_full_rank_without_regulariser_is_least_squares(make_map, make_data, n):
    """n < p: the interpolant of least norm; n > p: least squares. No warning at full rank."""
    feature_map = make_map()
    x, y = make_data(n)
    solution = ridge(feature_map, x, y, diag_reg=0)
    z = np.asarray(feature_map(x).ntk, np.float64)
    expected = np.linalg.lstsq(z, y.astype(np.float64), rcond=None)[0]
    assert solution.rank == min(n, 20)
    atol = SLACK * EPS32 * solution.condition * np.abs(expected).max()
    np.testing.assert_allclose(solution.weights, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("n", [18, 300])
def test_rank_deficient_without_regulariser(features_type, make_data, n):
    """Six different features, each three times: rank 6, cut and reported, minimum norm."""
    x, y = make_data(n)
    feature_map = lambda x: features_type(None, jnp.concatenate([x, 2 * x, -x], axis=1))  # noqa: E731
    with pytest.warns(RuntimeWarning, match=r"12 of 18 eigenvalues.*condition"):
        solution = ridge(feature_map, x, y, diag_reg=0)
    assert solution.rank == 6
    z = np.concatenate([x, 2 * x, -x], axis=1).astype(np.float64)
    expected = np.linalg.lstsq(z, y.astype(np.float64), rcond=1e-6)[0]
    atol = SLACK * EPS32 * solution.condition * np.abs(expected).max()
    np.testing.assert_allclose(solution.weights, expected, rtol=0, atol=atol)


@pytest.mark.default_flags
def test_regulariser_below_rounding_error_is_reported(features_type, make_data):
    x, y = make_data(300)
    feature_map = lambda x: features_type(None, jnp.tanh(jnp.concatenate([x @ m for m in mix], 1)))  # noqa: E731
    mix = [jnp.asarray(np.eye(6, dtype=np.float32) * (1 + 1e-5 * i)) for i in range(3)]
    with pytest.warns(RuntimeWarning, match="numerically rank-deficient at diag_reg=1e-20"):
        solution = ridge(feature_map, x, y, diag_reg=1e-20)
    assert np.all(np.isfinite(solution.predict(x)))


def test_zero_features_give_zero_weights(features_type, make_data):
    x, y = make_data(30)
    feature_map = lambda x: features_type(None, jnp.zeros((len(x), 4)))  # noqa: E731
    with pytest.warns(RuntimeWarning, match="4 of 4 eigenvalues"):
        solution = ridge(feature_map, x, y)
    np.testing.assert_array_equal(solution.weights, 0)
    assert solution.rank == 0


# ---- streaming -----------------------------------------------------------------------------------


def test_features_are_never_all_in_memory(make_map, make_data):
    """Feature arrays alive on the device, seen from the progress callback, do not grow with n."""
    feature_map = make_map(6, 20)
    most = {}
    for n in (5_000, 10_000):
        x, y = make_data(n)
        rows_alive = []

        def look(_, rows_alive=rows_alive):
            alive = [a for a in jax.live_arrays() if a.shape[1:] == (20,) and a.shape != (20, 20)]
            rows_alive.append(sum(a.shape[0] for a in alive))

        gc.collect()
        accumulate(feature_map, x, y, batch_size=256, progress=look)
        most[n] = max(rows_alive)
    # a block, the batch in use and, if it is done already, the one ahead
    assert max(most.values()) <= _sums.HOST_ROWS + 2 * 256 < 5_000


def test_one_compilation_serves_all_batches(features_type, make_data):
    traced = []

    def feature_map(x):
        traced.append(x.shape[0])
        return features_type(None, jnp.concatenate([x, jnp.sin(x)], axis=1))

    x, y = make_data(1000)
    solution = ridge(feature_map, x, y, batch_size=64, diag_reg=[0.1, 1], select="loo")
    assert traced == [64, 64]  # for the shape of features, then one compilation for all passes
    solution.predict(x)
    assert traced == [64, 64]


def test_default_batch_comes_from_the_feature_map(features_type, make_map, make_data):
    done = []
    x, y = make_data(20)
    accumulate(make_map(), x, y, progress=done.append)
    assert done == [7, 7, 6]
    done.clear()
    x, y = make_data(300)
    accumulate(lambda x: features_type(None, x), x, y, progress=done.append)
    assert done == [256, 44]


def test_solution_is_a_pytree(make_map, make_data):
    x, y = make_data(50)
    solution = ridge(make_map(), x, y, diag_reg=[0.1, 1.0], select="gcv")
    leaves, structure = jax.tree.flatten(solution)
    again = jax.tree.unflatten(structure, leaves)
    np.testing.assert_array_equal(again.predict(x), solution.predict(x))
    inside = jax.jit(lambda s, x: s.feature_map(x).ntk @ s.weights)(solution, x)
    np.testing.assert_allclose(inside, solution.predict(x), rtol=0, atol=20 * 10 * EPS32)
