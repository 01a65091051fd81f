"""Finite networks: every implementation of the empirical NTK against an explicit Jacobian product,
and linearisation and Taylor expansion against derivatives taken by other means."""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from jax.interpreters import ad
from neural_tangents import stax

from ntk_sketch._nt import _rewritten

IMPLEMENTATIONS = list(nt.NtkImplementation)
# Sums of at most a few thousand products in float64, relative to the largest entry: entries far
# below it are differences of large terms.
RTOL = 1e-12


def assert_close(got, expected, rtol=RTOL):
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max())


def dense():
    return stax.serial(stax.Dense(5, W_std=1.3, b_std=0.2), stax.Erf(), stax.Dense(2)), (4,)


def convolutional():
    return (
        stax.serial(
            stax.Conv(3, (3, 3), padding="SAME", b_std=0.1),
            stax.Relu(),
            stax.AvgPool((2, 2), strides=(2, 2)),
            stax.Flatten(),
            stax.Dense(2),
        ),
        (4, 4, 2),
    )


def shortcut():
    block = stax.serial(stax.Relu(), stax.Conv(3, (3,), padding="SAME"))
    branches = stax.parallel(stax.Identity(), block)
    return (
        stax.serial(
            stax.Conv(3, (2,)), stax.FanOut(2), branches, stax.FanInSum(), stax.GlobalAvgPool()
        ),
        (5, 2),
    )


NETWORKS = {f.__name__: f for f in (dense, convolutional, shortcut)}


@functools.cache
def network(name):
    (init_fn, apply_fn, _), shape = NETWORKS[name]()
    x1 = np.random.default_rng(0).normal(size=(3, *shape))
    x2 = np.random.default_rng(1).normal(size=(2, *shape))
    _, params = init_fn(jax.random.key(0), x1.shape)
    params = jax.tree_util.tree_map(lambda p: jnp.asarray(p, jnp.float64), params)
    return jax.jit(apply_fn), params, x1, x2


def jacobian(f, params, x):
    """(*outputs, number of parameters)."""
    leaves = jax.tree_util.tree_leaves(jax.jit(jax.jacobian(f))(params, x))
    n_outputs = f(params, x).ndim
    return np.concatenate([np.reshape(j, (*j.shape[:n_outputs], -1)) for j in leaves], -1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=operator.attrgetter("name"))
def test_ntk(name, implementation):
    """All pairs of outputs of all pairs of examples."""
    f, params, x1, x2 = network(name)
    expected = np.einsum("iap,jbp->ijab", jacobian(f, params, x1), jacobian(f, params, x2))
    fn = nt.empirical_ntk_fn(f, (), implementation=implementation)
    assert_close(jax.jit(fn)(x1, x2, params), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=operator.attrgetter("name"))
def test_ntk_axes(implementation):
    """The mean over outputs, or pairs of the same output; x2=None is x1; example by example."""
    f, params, x1, _ = network("dense")
    j = jacobian(f, params, x1)
    same = np.einsum("iap,jap->ija", j, j)
    options = {"implementation": implementation}
    assert_close(jax.jit(nt.empirical_ntk_fn(f, **options))(x1, None, params), same.mean(-1))
    diagonal = nt.empirical_ntk_fn(f, (), (-1,), vmap_axes=0, **options)
    assert_close(jax.jit(diagonal)(x1, None, params), same)


def operations(params, x):
    """What networks outside `stax` are made of, each applied to weights."""
    w, b, scale = params["w"], params["b"], params["scale"]
    y = jnp.tanh(x @ w + b)
    y = jnp.concatenate([y[:, 1:], y[:, :1] * w[0, 0]], axis=1)  # slice
    y = y * jax.nn.softplus(scale) / jnp.sqrt(1e-3 + jnp.sum(b**2))
    table = jnp.take(w, jnp.array([1, 0, 1]), axis=0)  # gather
    y = y + jnp.einsum("rk,k->k", table, scale)
    picked = jax.lax.dynamic_slice(w, (1, 1), (2, 2))
    y = y + jnp.pad(picked, ((0, 0), (0, 2))).sum(0)
    y = jax.checkpoint(lambda y, w: jnp.sin(y @ w.T))(y, w)
    return jnp.where(x > 0, y.reshape(x.shape), y[:, ::-1] * jnp.max(b)) ** 2


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=operator.attrgetter("name"))
def test_ntk_of_other_functions(implementation):
    rng = np.random.default_rng(2)
    params = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "scale": rng.normal(size=4)}
    params = jax.tree_util.tree_map(jnp.asarray, params)
    x1, x2 = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    j1, j2 = jacobian(operations, params, x1), jacobian(operations, params, x2)
    fn = nt.empirical_ntk_fn(operations, (), implementation=implementation)
    assert_close(jax.jit(fn)(x1, x2, params), np.einsum("iap,jbp->ijab", j1, j2))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=operator.attrgetter("name"))
def test_ntk_of_several_outputs(implementation):
    """A pytree of outputs has a pytree of kernels."""

    def f(params, x):
        hidden = jnp.tanh(x @ params[0])
        return {"a": hidden @ params[1], "b": hidden}

    rng = np.random.default_rng(3)
    params = [jnp.asarray(rng.normal(size=shape)) for shape in ((3, 4), (4, 2))]
    x = rng.normal(size=(3, 3))
    fn = nt.empirical_ntk_fn(f, (), implementation=implementation)
    got = jax.jit(fn)(x, None, params)
    for name, kernel in got.items():
        j = jacobian(lambda params, x, name=name: f(params, x)[name], params, x)
        assert_close(kernel, np.einsum("iap,jbp->ijab", j, j))


def test_nngp_and_both():
    """Products of outputs, averaged over the traced axis."""
    f, params, x1, x2 = network("convolutional")
    y1, y2 = np.asarray(f(params, x1)), np.asarray(f(params, x2))
    assert_close(nt.empirical_nngp_fn(f)(x1, x2, params), y1 @ y2.T / y1.shape[-1])
    full = nt.empirical_nngp_fn(f, ())(x1, None, params)
    assert_close(full, np.einsum("ia,jb->ijab", y1, y1))
    both = nt.empirical_kernel_fn(f)(x1, x2, ("nngp", "ntk"), params)
    assert_close(both.nngp, y1 @ y2.T / y1.shape[-1])
    assert_close(both.ntk, nt.empirical_ntk_fn(f)(x1, x2, params))


def test_ntk_vector_product():
    f, params, x1, x2 = network("dense")
    j1, j2 = jacobian(f, params, x1), jacobian(f, params, x2)
    v = np.random.default_rng(4).normal(size=j2.shape[:2])
    product = nt.empirical_ntk_vp_fn(f, x1, x2, params)(v)
    assert_close(product, np.einsum("iap,jbp,jb->ia", j1, j2, v))


def moved(params, seed=5):
    """Other parameters, and the way there."""
    leaves, tree = jax.tree_util.tree_flatten(params)
    rng = np.random.default_rng(seed)
    way = tree.unflatten([jnp.asarray(rng.normal(size=leaf.shape)) for leaf in leaves])
    return way, lambda t: jax.tree_util.tree_map(lambda p, d: p + t * d, params, way)


@pytest.mark.parametrize("name", ["dense", "convolutional"])
def test_linearize(name):
    """f(p) + J (p' - p), exactly linear, with the slope of central differences."""
    f, params, x, _ = network(name)
    way, at = moved(params)
    linear = nt.linearize(f, params)
    value, slope = jax.jvp(lambda p: f(p, x), (params,), (way,))
    assert_close(linear(at(0.7), x), value + 0.7 * slope)
    # Error of the differences: step^2 f'''/6 + eps f/step, some 1e-10 each for f of order 1.
    step = 1e-5
    assert_close(linear(at(1.0), x) - value, (f(at(step), x) - f(at(-step), x)) / (2 * step), 1e-8)


def test_taylor_expand_is_exact_for_polynomials():
    """Weights W1, W2, W3, a square after W1: of degree 4 in all weights together."""
    init_fn, apply_fn, _ = stax.serial(
        stax.Dense(5), stax.Monomial(2), stax.Dense(4), stax.Dense(2)
    )
    x = np.random.default_rng(6).normal(size=(3, 3))
    _, params = init_fn(jax.random.key(1), x.shape)
    params = jax.tree_util.tree_map(lambda p: jnp.asarray(p, jnp.float64), params)
    _, at = moved(params)
    exact = apply_fn(at(1.0), x)
    assert_close(nt.taylor_expand(apply_fn, params, 4)(at(1.0), x), exact)
    error = nt.taylor_expand(apply_fn, params, 3)(at(1.0), x) - exact
    assert np.abs(error).max() > 1e-3


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_taylor_expand_terms(degree):
    """Along p + t d: the coefficients of t, from the derivatives of t -> f(p + t d) at 0."""
    f, params, x, _ = network("convolutional")
    _, at = moved(params)

    def along(t):
        return f(at(t), x)

    expected, derivative, t = 0.0, along, 0.3
    for k in range(degree + 1):
        expected = expected + derivative(0.0) * t**k / math.factorial(k)
        derivative = jax.jacfwd(derivative)
    assert_close(nt.taylor_expand(f, params, degree)(at(t), x), expected, 1e-11)


def test_taylor_remainder():
    """The error of degree k falls like t^(k+1): by 2^(k+1) when t is halved, up to O(t)."""
    init_fn, apply_fn, _ = stax.serial(stax.Dense(5), stax.Erf(), stax.Dense(2))
    x = np.random.default_rng(7).normal(size=(3, 3))
    _, params = init_fn(jax.random.key(2), x.shape)
    params = jax.tree_util.tree_map(lambda p: jnp.asarray(p, jnp.float64), params)
    _, at = moved(params)
    for degree in (1, 2):
        expansion = nt.taylor_expand(apply_fn, params, degree)
        errors = [np.abs(expansion(at(t), x) - apply_fn(at(t), x)).max() for t in (2e-3, 1e-3)]
        assert abs(math.log2(errors[0] / errors[1]) - (degree + 1)) < 0.05


# ------------------------------------------------------------------ the rewritten parts themselves


def test_steps_that_do_not_depend_on_the_inputs_are_evaluated():
    """JAX may leave them in the jaxpr of a linear function."""
    scale = jnp.array([1.0, 2.0, 3.0])
    closed = jax.make_jaxpr(lambda v: v * jnp.sin(scale))(scale)
    assert [eqn.primitive.name for eqn in closed.eqns] == ["sin", "mul"]
    split, consts = _rewritten._split_known(closed.jaxpr, closed.consts)
    assert [eqn.primitive.name for eqn in split.eqns] == ["mul"]
    known = dict(zip(split.constvars, consts, strict=True))
    factor = next(v for v in split.eqns[0].invars if v not in split.invars)
    np.testing.assert_allclose(known[factor], np.sin(scale), rtol=1e-6)


@pytest.mark.parametrize(
    ("fn", "back"),
    [(lambda v: v * 2.0, [2, 2, 2]), (lambda v: v[:2], [1, 1, 0]), (jnp.sum, [1, 1, 1])],
    ids=["mul", "slice", "sum"],
)
def test_cotangents(fn, back):
    """A zero stays one, whatever kind of rule the step has in this JAX."""
    v = jnp.ones(3)
    jaxpr = jax.make_jaxpr(fn)(v).jaxpr
    [step] = [eqn for eqn in jaxpr.eqns if eqn.invars[0] is jaxpr.invars[0]]
    undefined = ad.UndefinedPrimal(jax.core.ShapedArray((3,), v.dtype))
    others = [jnp.array(other.val) for other in step.invars[1:]]
    [zero, *_] = _rewritten._eqn_vjp_fn(step, ad.Zero(step.outvars[0].aval), undefined, *others)
    assert isinstance(zero, ad.Zero)
    ones = jnp.ones(step.outvars[0].aval.shape)
    [cotangent, *_] = _rewritten._eqn_vjp_fn(step, ones, undefined, *others)
    np.testing.assert_array_equal(cotangent, back)
