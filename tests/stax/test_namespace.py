"""`ntk_sketch.stax` is `neural_tangents.stax`: same names, same signatures, same triples."""

import inspect

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax

pytestmark = pytest.mark.usefixtures("float64")

PUBLIC = [name for name in vars(nt.stax) if not name.startswith("_")]
NOT_LAYERS = {"layer", "requires", "supports_masking", "unmask_fn"}
CONSTRUCTORS = [
    name for name in PUBLIC if inspect.isfunction(getattr(nt.stax, name)) and name not in NOT_LAYERS
]
# Arguments of every constructor that needs some.
ARGUMENTS = {
    "ABRelu": (-0.5, 1.0),
    "AvgPool": ((2, 2),),
    "Conv": (4, (3, 3)),
    "ConvLocal": (4, (3, 3)),
    "ConvTranspose": (4, (3, 3)),
    "Dense": (4,),
    "Dropout": (0.5,),
    "Elementwise": (jax.scipy.special.erf,),
    "ElementwiseNumerical": (jnp.sin, 5),
    "FanOut": (2,),
    "GlobalSelfAttention": (4, 4, 4, 2),
    "Hermite": (2,),
    "ImageResize": ((-1, 6, 6, -1), "linear"),
    "Index": (nt.stax.Slice[:, 1:],),
    "LeakyRelu": (0.1,),
    "Monomial": (2,),
    "Polynomial": ([0.0, 1.0, 0.5],),
    "RectifiedMonomial": (2,),
    "SumPool": ((2, 2),),
}


def new(name, module=stax):
    if name in ("serial", "parallel"):
        return getattr(module, name)(module.Dense(3), module.Dense(3))
    if name == "repeat":
        return module.repeat(module.Dense(3), 2)
    keywords = {"rhs": 2.0} if name == "DotGeneral" else {}
    return getattr(module, name)(*ARGUMENTS.get(name, ()), **keywords)


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def small(module):
    """A net of every kind of combinator."""
    branch = module.serial(module.Dense(7, 1.2, 0.1), module.Relu(), module.Dense(5))
    return module.serial(
        module.Dense(5, W_std=1.5, b_std=0.2),
        module.FanOut(2),
        module.parallel(branch, module.Identity()),
        module.FanInSum(),
        module.Erf(),
        module.Dense(2),
    )


def equal(ours, theirs):
    """Both ran the same code; only the compiler's order of sums may differ."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-13)


# ------------------------------------------------------------------ names


def test_every_name_is_here():
    assert len(CONSTRUCTORS) >= 40
    assert not [name for name in PUBLIC if not hasattr(stax, name)]


@pytest.mark.parametrize("name", [*CONSTRUCTORS, "layer"])
def test_signatures(name):
    if name == "layer":  # NT's, and a rule beside it
        (first, rule) = inspect.signature(stax.layer).parameters.values()
        assert rule.default is None
        assert first.default is inspect.Parameter.empty
        return
    ours, theirs = getattr(stax, name), getattr(nt.stax, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__name__ == theirs.__name__
    own, below, note = ours.__doc__.partition("\n\nFeatures:\n")
    assert inspect.cleandoc(own) == inspect.getdoc(theirs)
    estimates = name in ("Aggregate", "GlobalAvgPool", "GlobalSelfAttention", "GlobalSumPool")
    assert (
        ("256" in note) == ("*estimated*" in note) == ("error" in note) == bool(below) == estimates
    )


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors_return_layers(name):
    layer = new(name)
    assert isinstance(layer, stax.Layer)
    assert isinstance(layer, tuple)
    assert len(layer) == 3
    assert isinstance(layer.rule, stax.Rule)
    assert name in layer.name
    assert name in repr(layer)
    init_fn, apply_fn, kernel_fn = layer
    assert all(map(callable, (init_fn, apply_fn, kernel_fn)))
    assert kernel_fn.__name__ == new(name, nt.stax)[2].__name__


def test_layers_zip():
    layers = [stax.Dense(3), stax.Relu()]
    init_fns, apply_fns, kernel_fns = zip(*layers, strict=True)
    assert [len(fns) for fns in (init_fns, apply_fns, kernel_fns)] == [2, 2, 2]
    assert init_fns[1] is layers[1][0]


# ------------------------------------------------------------------ scripts written for NT


def script(module, x, x_test):
    """What NT's own documentation does, whatever module `stax` is."""
    init_fn, apply_fn, kernel_fn = small(module)
    output_shape, params = init_fn(jax.random.PRNGKey(3), x.shape)
    kernel = kernel_fn(x_test, x, ("nngp", "ntk"))
    return output_shape, apply_fn(params, x_test), kernel.nngp, kernel.ntk


def test_script_for_neural_tangents():
    x, x_test = inputs(4, 3), inputs(2, 3, seed=1)
    ours, theirs = script(stax, x, x_test), script(nt.stax, x, x_test)
    assert ours[0] == theirs[0] == (4, 2)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert a.dtype == jnp.float64
        equal(a, b)


def test_kernel_objects_are_those_of_neural_tangents():
    kernel = small(stax)[2](inputs(3, 4), None)
    plain = small(nt.stax)[2](inputs(3, 4), None)
    assert isinstance(kernel, nt.Kernel)
    assert (kernel.shape1, kernel.is_gaussian) == (plain.shape1, plain.is_gaussian)
    equal(kernel.cov1, plain.cov1)


def test_combinators_of_neural_tangents_take_our_layers():
    x = inputs(3, 4)
    mixed = nt.stax.serial(stax.Dense(5, 1.3), stax.Relu(), nt.stax.Dense(2))
    plain = nt.stax.serial(nt.stax.Dense(5, 1.3), nt.stax.Relu(), nt.stax.Dense(2))
    equal(mixed[2](x, None, "ntk"), plain[2](x, None, "ntk"))
    _, params = mixed[0](jax.random.PRNGKey(0), x.shape)
    equal(mixed[1](params, x), plain[1](params, x))
    both = nt.stax.serial(nt.stax.FanOut(2), nt.stax.parallel(mixed, plain), nt.stax.FanInSum())
    equal(both[2](x, None, "ntk"), 2 * plain[2](x, None, "ntk"))


def test_tools_of_neural_tangents_take_our_functions():
    x, y, x_test = inputs(4, 3), inputs(4, 2, seed=2), inputs(2, 3, seed=1)
    init_fn, apply_fn, kernel_fn = model = small(stax)
    _, _, plain_kernel_fn = small(nt.stax)
    exact = plain_kernel_fn(x_test, x, ("nngp", "ntk"))

    batched = nt.batch(kernel_fn, batch_size=2, device_count=0)(x_test, x, ("nngp", "ntk"))
    equal(batched.nngp, exact.nngp)
    equal(batched.ntk, exact.ntk)

    fit = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y, diag_reg=1e-3)
    plain_fit = nt.predict.gradient_descent_mse_ensemble(plain_kernel_fn, x, y, diag_reg=1e-3)
    # Solves with a matrix of condition number below 1e5.
    np.testing.assert_allclose(
        fit(x_test=x_test, get="ntk"), plain_fit(x_test=x_test, get="ntk"), rtol=1e-9
    )

    key = jax.random.PRNGKey(0)
    sampled = nt.monte_carlo_kernel_fn(init_fn, apply_fn, key, 2)(x_test, x, "nngp")
    plain = nt.monte_carlo_kernel_fn(*small(nt.stax)[:2], key, 2)(x_test, x, "nngp")
    equal(sampled, plain)

    _, params = model[0](key, x.shape)
    empirical = nt.empirical_ntk_fn(apply_fn)(x_test, x, params)
    jacobians = [
        jnp.concatenate(
            [
                j.reshape(*j.shape[:2], -1)
                for j in jax.tree.leaves(jax.jacobian(apply_fn)(params, a))
            ],
            axis=-1,
        )
        for a in (x_test, x)
    ]
    equal(empirical, jnp.einsum("ikp,jkp->ij", *jacobians) / 2)


# ------------------------------------------------------------------ layers without a rule


def test_a_layer_without_a_rule_ends_before_any_work(monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("work was begun")

    for method in (ns.RandomFeatures, ns.Exact):
        monkeypatch.setattr(method, "expand", work)
    model = stax.serial(stax.Dense(3), stax.Relu(), stax.layer(tuple(nt.stax.Dense(2))))
    for method in (ns.RandomFeatures(4), ns.Exact()):
        with pytest.raises(NotImplementedError, match="has no feature rule"):
            ns.feature_map(model, inputs(4, 3), method, key=jax.random.key(0))


# ------------------------------------------------------------------ the decorator


def test_layer_as_decorator():
    """As NT's: a function that returns a raw triple becomes a constructor whose kernel_fn takes
    arrays.
    """

    def Doubled(by=2.0):
        """Scales its input."""

        def init_fn(rng, input_shape):
            return input_shape, ()

        def apply_fn(params, x, **kwargs):
            return by * x

        def kernel_fn(k, **kwargs):
            return k * by

        return init_fn, apply_fn, kernel_fn

    ours, theirs = stax.layer(Doubled), nt.stax.layer(Doubled)
    assert inspect.signature(ours) == inspect.signature(Doubled)
    assert ours.__doc__ == "Scales its input."
    layer = ours(by=3.0)
    assert isinstance(layer, stax.Layer)
    x = inputs(3, 4)
    model = stax.serial(stax.Dense(3), layer, stax.Relu())
    plain = nt.stax.serial(nt.stax.Dense(3), theirs(by=3.0), nt.stax.Relu())
    equal(model[2](x, None, "nngp"), plain[2](x, None, "nngp"))
    with pytest.raises(NotImplementedError, match=r"^Doubled\(by=3.0\) has no feature rule"):
        ns.feature_map(model, x, ns.RandomFeatures(4), key=jax.random.key(0))
