"""Under `Exact()` the features reproduce NT's kernel on the sample: every rule, option and
nonlinearity.
"""

import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES, GRAPHS
from marks import also_by_default, others_slow

import ntk_sketch as ns
from ntk_sketch.features import HiddenFeatures
from ntk_sketch.methods._exact import _all_and_some
from ntk_sketch.methods._landmarks import HELD_OUT

pytestmark = pytest.mark.usefixtures("float64")


def relative(close, exact):
    return np.linalg.norm(close - exact) / np.linalg.norm(exact)


def exact_kernel(model, x1, x2, **options):
    return jax.jit(lambda a, b: model[2](a, b, ("nngp", "ntk"), **options))(x1, x2)


def test_rounding_is_measured_all_over_the_sample():
    """At some of the unmasked positions, which are all landmarks, in their order."""
    mask = np.zeros((30, 20), bool)
    mask[:, 15:] = True
    features = HiddenFeatures(nngp=(np.zeros((30, 20, 2)),), ntk=(), mask=mask)
    index, some = _all_and_some(features, jax.random.key(0))
    np.testing.assert_array_equal(index, np.nonzero(~mask))
    places = np.ravel_multi_index(some, mask.shape)
    assert len(set(places)) == HELD_OUT < 450
    assert not mask[some].any()
    assert set(some[0]) == set(range(30))


def test_table_is_large_enough():
    assert len(ARCHITECTURES) >= 40


#: Rules, options and kinds of formulas; those of each nonlinearity are also tested by themselves.
KEPT = (
    *("linear", "residual", "product", "graph", "kernels alone", "normalised exponentials"),
    *("dense Relu", "dense Sign", "dense ExpNormalized", "average pool"),
)
BY_DEFAULT = ("dense Gelu", "layer norm")


@pytest.mark.parametrize(
    "name",
    also_by_default(
        ARCHITECTURES,
        *BY_DEFAULT,
        slow=[name for name in ARCHITECTURES if name not in KEPT + BY_DEFAULT],
    ),
)
def test_gram_is_the_kernel(name):
    make, shape, across, nt_options = ARCHITECTURES[name]
    model = make()
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, *shape))
    graph = {"pattern": rng.uniform(size=(5, *GRAPHS[name]))} if name in GRAPHS else {}
    feature_map = ns.feature_map(model, x, ns.Exact(), key=jax.random.key(0), **graph)
    rows, columns = (x[:3], x[3:]) if across else (x, None)
    options = dict(nt_options) | {key: (value, value) for key, value in graph.items()}
    kernel = exact_kernel(model, rows, columns, **options)
    close = feature_map.kernel_fn(x, **graph)
    for kind in ("nngp", "ntk"):
        gram = getattr(close, kind)
        gram = gram[:3, 3:] if across else gram
        exact = np.asarray(getattr(kernel, kind))
        if not exact.any():  # Θ of a net whose nonlinearities have no derivative
            assert not np.asarray(gram).any()
        else:
            # Rounding; at a kink of the kernel (an example with itself) its square root, NT's own.
            assert relative(gram, exact) < 1e-8


@pytest.mark.parametrize(
    "name",
    others_slow(
        [
            "dense Relu",
            "dense Gelu",
            "average pool",
            "layer norm",
            "layer norm on channels",
            "residual",
        ],
        "dense Relu",
        "average pool",
        "layer norm",
    ),
)
def test_repeated_and_zero_positions(name):
    make, shape, *_ = ARCHITECTURES[name]
    model = make()
    x = np.array(jax.random.normal(jax.random.key(1), (6, *shape)))
    x[1] = x[0]
    x[2] = 2.0 * x[0]
    x[3] = 0.0
    x[4] = 1.0
    feature_map = ns.feature_map(model, x, ns.Exact(), key=jax.random.key(0))
    kernel = exact_kernel(model, x, None)
    close = feature_map.kernel_fn(x)
    for kind in ("nngp", "ntk"):
        assert relative(getattr(close, kind), getattr(kernel, kind)) < 1e-6


@pytest.mark.parametrize("get", others_slow(["nngp", "ntk", ("nngp",), ("ntk", "nngp")], "ntk"))
def test_get(get):
    make, shape, *_ = ARCHITECTURES["average pool"]
    model = make()
    x = jax.random.normal(jax.random.key(1), (4, *shape))
    feature_map = ns.feature_map(model, x, ns.Exact(), key=jax.random.key(0), get=get)
    z = feature_map(x)
    asked = (get,) if isinstance(get, str) else get
    assert (z.nngp is None, z.ntk is None) == ("nngp" not in asked, "ntk" not in asked)
    kernel = exact_kernel(model, x, None)
    for kind in asked:
        assert relative(feature_map.kernel_fn(x, None, kind), getattr(kernel, kind)) < 1e-8
