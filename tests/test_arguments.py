"""Users' arguments: the right value, or an error or warning that says what to do."""

import re
import warnings

import equinox as eqx
import jax
import numpy as np
import pytest
import scipy.sparse
from jax import export
from jax import numpy as jnp
from jax.experimental import sparse
from marks import others_slow

import ntk_sketch as ns  # first: makes neural_tangents importable
from ntk_sketch import _arguments, series, sketches, stax
from ntk_sketch.solvers import accumulate
from ntk_sketch.streaming import stream

# isort: split
from neural_tangents import stax as nt_stax

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
Y = np.tanh(X[:, :2])
METHOD = ns.RandomFeatures(8)


def model():
    return stax.serial(stax.Dense(1, b_std=0.1), stax.Relu(), stax.Dense(1))


@pytest.fixture(scope="module")
def feature_map():
    return ns.feature_map(model(), X, METHOD, key=KEY)


class Framed:
    """Like a data frame, a tensor on the CPU or an HDF5 data set: it has `__array__`."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class NeedsGradient(Framed):
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach()")


SAME = {
    "has __array__": Framed,
    "nested lists": lambda a: a.tolist(),
    "tuple of lists": lambda a: tuple(a.tolist()),
    "list of vectors": list,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "long double": lambda a: a.astype(np.longdouble),
    "JAX": jnp.asarray,
    "Fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("convert", SAME.values(), ids=SAME.keys())
def test_the_same_numbers_in_another_form(feature_map, convert):
    x, y = convert(X), convert(Y)
    z = feature_map(X).ntk
    np.testing.assert_allclose(feature_map(x).ntk, z, rtol=1e-6)
    again = ns.feature_map(model(), x, METHOD, key=KEY)
    np.testing.assert_allclose(again(X).ntk, z, rtol=1e-6)
    landmarks = ns.feature_map(model(), x, ns.Nystroem(4), key=KEY)
    assert landmarks.is_landmark(x).sum() == 4
    np.testing.assert_allclose(feature_map.kernel_fn(x, x, "ntk"), z @ z.T, rtol=1e-4, atol=1e-5)
    expected = ns.ridge(feature_map, X, Y, diag_reg=[0.1, 1.0], select="loo")
    solution = ns.ridge(feature_map, x, y, diag_reg=[0.1, 1.0], select="loo")
    np.testing.assert_allclose(solution.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(solution.predict(x), expected.predict(X), rtol=1e-4, atol=1e-5)
    validated = ns.ridge(feature_map, x, y, diag_reg=[0.1, 1.0], select=(x, y))
    assert np.all(np.isfinite(validated.scores))
    assert int(accumulate(feature_map, x, y).n_examples) == 40
    [(_, _, batch)] = stream(feature_map, x)
    # of another size, whose sums come in another order
    np.testing.assert_allclose(batch, z, atol=1e-6 * np.abs(z).max())
    assert ns.approximation_error(feature_map, x, pairs=6, key=KEY)["ntk"].n_examples == 3


def test_integers_in_lists_are_numbers(feature_map):
    x = [[1, 2, 3, 4, 5], [0, 1, 0, 1, 0]]
    np.testing.assert_array_equal(feature_map(x).ntk, feature_map(np.array(x, np.float32)).ntk)


REFUSED = {
    "None": (None, TypeError, "x must be one array .*NoneType"),
    "text": ("images.npy", TypeError, "x must be one array .*str"),
    "SciPy sparse": (scipy.sparse.csr_matrix(X), TypeError, r"sparse array.*x\.toarray\(\)"),
    "BCOO": (sparse.BCOO.fromdense(X), TypeError, r"sparse array.*x\.todense\(\)"),
    "several inputs": ([X, X], TypeError, r"list of 2 arrays; needed: one array.*np\.concatenate"),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, "NumPy cannot read it"),
    "gradients": (NeedsGradient(X), TypeError, r"cannot read it.*detach\(\)"),
    "strings": (np.array([["a"] * 5]), TypeError, r"dtype <U1.*Encode text.*x\.astype"),
    "objects": (np.array([[None] * 5]), TypeError, "dtype object.*missing values"),
    "dates": (np.zeros((3, 5), "datetime64[s]"), TypeError, "dates"),
    "complex": (X + 1j, TypeError, r"x\.real, x\.imag"),
    "counts": (np.ones((3, 5), int), TypeError, "standardise counts"),
    "one example": (X[0], ValueError, r"One example is x\[None\]"),
    "overflow": (1e20 * X, ValueError, "squares overflow float32: scale"),
    "overflow below 0": (-1e20 * np.abs(X), ValueError, "squares overflow float32: scale"),
    "NaN": (np.full((3, 5), np.nan, "f"), ValueError, "15 entries .* row 0.*mask_constant"),
}


@pytest.mark.parametrize(("x", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_everywhere(feature_map, x, error, message):
    solution = ns.ridge(feature_map, X, Y)
    calls = [
        lambda: ns.feature_map(model(), x, METHOD, key=KEY),
        lambda: ns.ridge(feature_map, x, Y),
        lambda: accumulate(feature_map, x, Y),
        lambda: stream(feature_map, x),
        lambda: solution.predict(x),
    ]
    if error is TypeError or "One example" in message:
        calls += [lambda: feature_map(x), lambda: feature_map.kernel_fn(x)]
    for call in calls:
        with pytest.raises(error, match=message):
            call()


def test_rows_are_counted_over_all_chunks(monkeypatch):
    monkeypatch.setattr(_arguments, "_CHUNK", 2 * X.shape[1])
    x = X.copy()
    x[7, 1], x[31, :2] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"3 entries .* row 7"):
        _arguments.check_finite(x, "x")
    assert _arguments.check_finite(X, "x") == np.abs(X).max()


@pytest.mark.parametrize("seed", [0, 7, None, np.int64(3), np.random.default_rng(0)])
def test_key_is_not_a_seed(feature_map, seed):
    calls = [
        lambda: ns.feature_map(model(), X, METHOD, key=seed),
        lambda: ns.approximation_error(feature_map, X, pairs=6, key=seed),
    ]
    wanted = seed if type(seed) is int else 0
    for call in calls:
        with pytest.raises(TypeError, match=rf"write jax\.random\.key\({wanted}\)"):
            call()
    with pytest.raises(TypeError, match=r"one key, got keys of shape \(2,\)"):
        ns.feature_map(model(), X, METHOD, key=jax.random.split(KEY))
    with pytest.raises(TypeError, match=r"key must be a key of jax\.random"):
        ns.feature_map(model(), X, METHOD, key=jax.random.split(jax.random.PRNGKey(0)))
    raw = ns.feature_map(model(), X, METHOD, key=jax.random.PRNGKey(0))
    np.testing.assert_array_equal(raw(X).ntk, feature_map(X).ntk)


def test_columns_that_float32_cannot_tell_apart(feature_map):
    x = X.astype(np.float64)
    x[:, 3] = 1.7e9 + 100 * np.arange(40)
    message = r"column 3 of x varies from 1700000000 to 1700003900.*float32.*Standardise.*1 of 5"
    for call in (
        lambda: ns.feature_map(model(), x, METHOD, key=KEY),
        lambda: ns.ridge(feature_map, x, Y),
        lambda: accumulate(feature_map, x, Y),
    ):
        with pytest.warns(RuntimeWarning, match=message):
            call()
    x[:, 3] = 1.7e9 + 1e8 * np.arange(40)  # decades: enough is left
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ns.feature_map(model(), x, METHOD, key=KEY)
        ns.feature_map(model(), np.ones((4, 5)), METHOD, key=KEY)  # constant columns lose nothing


@pytest.mark.parametrize(("step", "lost"), [(3e3, True), (8e3, False)])
def test_steps_of_a_thousandth_of_the_range(step, lost):
    """Float32 resolves 203 at 1.7e9: 1 / 580 of one range, and 1 / 1500 of the other."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _arguments.warn_of_lost_variation(1.7e9 + step * np.arange(40.0)[:, None])
    assert len(caught) == lost


# ---- models and functions ------------------------------------------------------------------------


def test_the_axis_of_channels(feature_map):
    net = stax.serial(stax.Conv(1, (3, 3)), stax.Relu(), stax.Flatten(), stax.Dense(1))
    images = np.ones((2, 6, 6), np.float32)
    with pytest.raises((TypeError, ValueError), match=r"In layer Conv.*x\[\.\.\., None\]"):
        ns.feature_map(net, images, METHOD, key=KEY)
    made = ns.feature_map(net, images[..., None], METHOD, key=KEY)
    with pytest.raises(ValueError, match=r"need \(n, 6, 6, 1\)\. Add the axis .*x\[\.\.\., None\]"):
        made(images)
    with pytest.raises(ValueError, match=r"need \(n, 6, 6, 1\)\. One example is x\[None\]"):
        made(images[0][..., None])


def test_layers_that_do_not_know_their_features():
    theirs = stax.serial(nt_stax.Dense(1), stax.Relu(), stax.Dense(1))
    with pytest.raises(NotImplementedError, match=r"Dense has no.*in ntk_sketch\.stax: import it"):
        ns.feature_map(theirs, X, METHOD, key=KEY)
    with pytest.raises(TypeError, match=r"in place of `from neural_tangents import stax`"):
        ns.feature_map(nt_stax.serial(nt_stax.Dense(1)), X, METHOD, key=KEY)
    net = stax.serial(stax.Dense(1), stax.Elementwise(jnp.tanh), stax.Dense(1))
    with pytest.raises(NotImplementedError, match=r"use stax\.ElementwiseNumerical\(fn"):
        ns.feature_map(net, X, METHOD, key=KEY)
    net = stax.serial(stax.Dense(1), stax.Aggregate(aggregate_axis=1, batch_axis=0))
    with pytest.raises(TypeError, match=r"Aggregate.*pass pattern=\.\.\. to feature_map"):
        ns.feature_map(net, np.ones((2, 4, 3), np.float32), METHOD, key=KEY)


def test_what_is_not_a_feature_map(feature_map):
    net = model()
    for wrong, message in [
        (net, r"feature_map is a Layer, a network; needed.*ntk_sketch\.feature_map\(model"),
        (net[2], r"feature_map is a kernel function.*ntk_sketch\.feature_map\(model"),
        (feature_map.kernel_fn, "feature_map is a kernel function"),
        (X, "feature_map is a ndarray; needed"),
        (ns.FeatureMap, "feature_map is a .*; needed: what"),
    ]:
        with pytest.raises(TypeError, match=message):
            ns.ridge(wrong, X, Y)


def test_a_map_may_return_any_object(feature_map):
    class Holder:
        def __init__(self, ntk):
            self.ntk = ntk

    solution = ns.ridge(lambda x: Holder(feature_map(x).ntk), X, Y, diag_reg=0.1)
    expected = ns.ridge(feature_map, X, Y, diag_reg=0.1)
    np.testing.assert_allclose(solution.predict(X), expected.predict(X), rtol=1e-5, atol=1e-6)


# ---- under jit -----------------------------------------------------------------------------------


def test_compiled_by_the_user(feature_map):
    solution = ns.ridge(feature_map, X, Y, diag_reg=0.1, fit_intercept=True)
    expected = np.asarray(solution.predict(X))
    with pytest.raises(TypeError, match=re.escape("equinox.filter_jit(feature_map)")):
        jax.jit(feature_map)(X)
    np.testing.assert_allclose(eqx.filter_jit(feature_map)(X).ntk, feature_map(X).ntk, rtol=1e-5)
    predict = eqx.filter_jit(solution.predict)
    for call in (predict, jax.jit(lambda x: solution.predict(x))):
        np.testing.assert_allclose(call(X), expected, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(solution.predict(x)))(jnp.asarray(X))
    assert gradient.shape == X.shape
    assert np.all(np.isfinite(gradient))
    one_by_one = jax.vmap(lambda x: solution.predict(x[None])[0])(jnp.asarray(X))
    np.testing.assert_allclose(one_by_one, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [METHOD, ns.Nystroem(8)])
@pytest.mark.parametrize("convolutional", others_slow([False, True], True))
def test_exported_with_a_symbolic_batch(method, convolutional):
    net, x = model(), X
    if convolutional:
        layers = [stax.Conv(1, (3,), padding="SAME"), stax.Relu(), stax.AvgPool((2,), (2,))]
        net, x = stax.serial(*layers, stax.Flatten(), stax.Dense(1)), X[:, :4, None]
    feature_map = ns.feature_map(net, x, method, key=KEY)
    (n,) = export.symbolic_shape("n")
    shape = jax.ShapeDtypeStruct((n, *x.shape[1:]), np.float32)
    program = export.export(jax.jit(lambda x: feature_map(x).ntk))(shape)
    for rows in (1, 7):
        np.testing.assert_allclose(
            program.call(x[:rows]), feature_map(x[:rows]).ntk, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda key, _: ns.feature_map(model(), X, METHOD, key=key),
        lambda key, feature_map: ns.approximation_error(feature_map, X, pairs=3, key=key),
        lambda key, _: sketches.elementwise(np.exp, X, X, width=8, degree=2, key=key),
        lambda key, _: series.recover_zonal(np.exp, 3, 2, key=key),
    ],
    ids=["feature_map", "approximation_error", "elementwise", "recover_zonal"],
)
def test_a_seed_is_no_key(call, feature_map):
    with pytest.raises(TypeError, match=r"for a seed write jax\.random\.key\(5\)"):
        call(5, feature_map)
