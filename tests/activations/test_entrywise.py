"""A formula traced once, at single numbers, is the formula at arrays of any shape."""

import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from counting import compiled
from jax import numpy as jnp

from ntk_sketch import stax
from ntk_sketch.activations import DualActivation
from ntk_sketch.activations._entrywise import entrywise, of_one_entry

pytestmark = pytest.mark.usefixtures("float64")

ONE = jax.ShapeDtypeStruct((), np.float64)

#: Sums over nodes of a quadrature, and factorials in loops.
NOT_ELEMENTWISE = ("ElementwiseNumerical", "Polynomial")


def entries(shape):
    rng = np.random.default_rng(0)
    q, r = rng.uniform(0.1, 3, (2, *shape))
    return rng.uniform(-1, 1, shape) * np.sqrt(q * r), q, r


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_kernels(name):
    dual = NONLINEARITIES[name]().rule.dual
    dual = jax.tree.map(jnp.asarray, dual)
    numbers = jax.tree.leaves(dual)
    of_one = of_one_entry(dual._nt_kernels, ONE, ONE, ONE, *numbers)
    assert (of_one is None) == (name in NOT_ELEMENTWISE)
    for shape in ((7,), (2, 1, 5)):
        c, q, r = entries(shape)
        found = jax.jit(entrywise(dual._nt_kernels, of_one))(c, q, r, *numbers)
        expected = jax.jit(lambda *args: dual._nt_kernels(*args))(c, q, r, *numbers)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == shape
            assert a.dtype == np.float64
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_what_mixes_entries_is_not_taken():
    """Nor what is hidden in a function inside; a constant array is none either."""
    weights = jnp.arange(3.0)
    for fn in (
        lambda x: jax.jit(lambda x: jnp.stack([x, 2 * x]).sum())(x),
        lambda x: x * weights[1:].sum(),
        lambda x: jax.lax.fori_loop(0, 3, lambda _, x: 2 * x, x),
    ):
        assert of_one_entry(lambda x, fn=fn: [fn(x)], ONE) is None


def test_constants_and_numbers_reach_every_entry():
    scale = jnp.asarray(3.0)

    def fn(x, number):
        return [scale * x**2 + number, jnp.ones_like(x), number * scale, jnp.where(x > 0, x, 7)]

    x, number = entries((4, 3))[0], jnp.asarray(0.5)
    found = entrywise(fn, of_one_entry(fn, ONE, ONE))(jnp.asarray(x), number)
    expected = 3 * x**2 + 0.5, np.ones((4, 3)), np.full((4, 3), 1.5), np.where(x > 0, x, 7)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


def test_formulas_are_traced_once(monkeypatch):
    """Also for a layer made alike with another number, which is an argument of the formula."""
    shapes, original = [], DualActivation._nt_kernels

    def counted(self, c, *others):
        shapes.append(c.shape)
        return original(self, c, *others)

    monkeypatch.setattr(DualActivation, "_nt_kernels", counted)
    for slope in (0.123, 0.456):
        for shape in ((5,), (2, 4), (3, 1, 2)):
            # No other test has this combination, and so none has traced it.
            dual = DualActivation(stax.LeakyRelu(slope), degree=1, interior=True)
            jax.eval_shape(dual, *entries(shape))
    assert shapes == [()]


def test_constants_of_functions_inside():
    """Single numbers in an axis or two, as Neural Tangents makes them."""
    scale = np.full((1, 1), 3.0)
    inner = jax.jit(lambda x: x * scale)

    def fn(x):
        return [jnp.where(x > 1, inner(x[None, None])[0, 0], 1 + 0 * x)]

    with jax.ensure_compile_time_eval():
        of_one = of_one_entry(fn, ONE)
    x = np.arange(4.0)
    np.testing.assert_array_equal(entrywise(lambda *a: fn(*a), of_one)(x)[0], [1, 1, 6, 9])


def test_steps_of_a_formula():
    """Those on numbers alone are carried out, and those that no result needs are left out."""

    def formula(x, y):
        unused = jnp.sin(x) + y
        del unused
        two = jnp.sqrt(jnp.float32(4.0))
        return x * two, two / 2 + 0 * two

    one = jax.ShapeDtypeStruct((), jnp.float32)
    with compiled() as programs:
        of_one = of_one_entry(formula, one, one)
    assert programs.count == 0
    assert [step.equation.primitive.name for step in of_one.steps] == ["mul"]
    x = jnp.arange(6, dtype=jnp.float32).reshape(2, 3)
    double, ones = entrywise(formula, of_one)(x, x + 1)
    np.testing.assert_array_equal(double, 2 * x)
    np.testing.assert_array_equal(ones, np.ones((2, 3)))
    assert ones.dtype == jnp.float32
