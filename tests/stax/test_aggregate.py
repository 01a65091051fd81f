"""Aggregate: every form of a graph, what is refused, and graphs that travel with examples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def graph_net(*args, **kwargs):
    """A graph before a nonlinearity, which needs its variances, and one before the pool."""
    first, second = (stax.Aggregate(*args, **kwargs) for _ in range(2))
    return stax.serial(
        stax.Dense(4, 1.2, 0.1),
        first,
        stax.Dense(4, b_std=0.2),
        stax.Erf(),
        second,
        stax.GlobalAvgPool(),
    )


def edges(n, count, *sizes):
    """Of any vertices, with repetitions, and -1 for padding among the heads."""
    found = np.stack([RNG.integers(0, size, (n, count, 2)) for size in sizes], axis=2)
    found[0, -1, 0, 1] = -1
    return found


def to_weights(pattern):
    return pattern.todense()


def sparse_graph(n, size):
    weights = RNG.uniform(size=(n, size, size)) * (RNG.uniform(size=(n, size, size)) < 0.5)
    return sparse.BCOO.fromdense(jnp.asarray(weights), n_batch=1)


GRAPHS = {
    "one of two axes": lambda: (
        (3, 2, 2),
        {"aggregate_axis": 2},
        1.0 * (RNG.uniform(size=(4, 2, 2)) < 0.7),
    ),
    "both axes": lambda: (
        (3, 2, 2),
        {"aggregate_axis": (1, 2)},
        RNG.uniform(size=(4, 3, 2, 3, 2)),
    ),
    "to_dense": lambda: ((4, 3), {"to_dense": to_weights}, sparse_graph(4, 4)),
    "edges": lambda: ((4, 3), {"implementation": "SPARSE"}, edges(4, 5, 4)[:, :, 0]),
    "edges along two axes": lambda: ((3, 2, 2), {"implementation": "SPARSE"}, edges(4, 5, 3, 2)),
}


@pytest.mark.parametrize(
    "name", others_slow(GRAPHS, "both axes", "to_dense", "edges along two axes")
)
def test_gram_is_the_kernel(name):
    shape, options, pattern = GRAPHS[name]()
    model, x = graph_net(**options), RNG.normal(size=(4, *shape))
    exact = jax.jit(lambda x: model[2](x, None, ("nngp", "ntk"), pattern=(pattern, pattern)))(x)
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY, pattern=pattern)
    close = feature_map.kernel_fn(x, None, pattern=pattern)
    for kind in ("nngp", "ntk"):
        a, b = getattr(close, kind), getattr(exact, kind)
        assert np.linalg.norm(a - b) <= 1e-8 * np.linalg.norm(b)


def test_two_batches(tmp_path):
    """Their graphs come as a pair; kernels of graphs with themselves; and a map from a file."""
    model, x, graph = graph_net(), RNG.normal(size=(4, 4, 3)), RNG.uniform(size=(4, 4, 4))
    exact = model[2](x, None, ("nngp", "ntk"), pattern=(graph, graph))
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY, pattern=graph)
    ntk = feature_map.kernel_fn(x[:2], x[2:], "ntk", pattern=(graph[:2], graph[2:]))
    assert np.linalg.norm(ntk - exact.ntk[:2, 2:]) <= 1e-8 * np.linalg.norm(exact.ntk)
    for found, kernel in zip(feature_map.diagonals(x, pattern=graph), exact, strict=True):
        np.testing.assert_allclose(found, np.diag(kernel), rtol=1e-10)
    feature_map.save(tmp_path / "map.safetensors")
    loaded = ns.load(tmp_path / "map.safetensors")
    first, second = (m(x, pattern=graph).ntk for m in (feature_map, loaded))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [ns.RandomFeatures(6), ns.Nystroem(4, residual=0.5)], ids=["random", "landmarks"]
)
def test_contracts(method):
    """Under `jit`, row by row, in both dtypes, with gradients that are finite at the sample and at
    0, and exact diagonals, under methods that approximate.
    """
    model, x, graph = graph_net(), RNG.normal(size=(4, 4, 3)), RNG.uniform(size=(4, 4, 4))
    feature_map = ns.feature_map(model, x, method, key=KEY, pattern=graph)
    z, alone = feature_map(x, pattern=graph), feature_map(x[1:2], pattern=graph[1:2])
    jitted = jax.jit(lambda m, x, graph: m(x, pattern=graph))(feature_map, x, graph)
    for kind in ("nngp", "ntk"):
        whole, again, row = (getattr(features, kind) for features in (z, jitted, alone))
        scale = np.linalg.norm(whole, axis=1, keepdims=True)
        # Roots of the Gram matrix of two landmarks: a condition number below 10.
        bound = 1000 * np.finfo(float).eps * scale
        assert np.all(np.abs(again - whole) <= bound)
        assert np.all(np.abs(row - whole[1:2]) <= bound[1:2])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(feature_map(x, pattern=graph).ntk))))
    assert np.all(np.isfinite(gradient(x)))
    assert np.all(np.isfinite(gradient(np.zeros_like(x))))
    exact = model[2](x, None, ("nngp", "ntk"), pattern=(graph, graph))
    for found, kernel in zip(feature_map.diagonals(x, pattern=graph), exact, strict=True):
        np.testing.assert_allclose(found, np.diag(kernel), rtol=1e-10)
    short, weights = x.astype(np.float32), graph.astype(np.float32)
    single = ns.feature_map(model, short, method, key=KEY, pattern=weights)(short, pattern=weights)
    assert single.ntk.dtype == np.float32
    if method.looks_at_data:  # JAX draws other random numbers in another dtype
        np.testing.assert_allclose(single.ntk @ single.ntk.T, z.ntk @ z.ntk.T, rtol=1e-3)
    assert np.all(np.isfinite(single.ntk))


def test_refusals():
    x, pattern = RNG.normal(size=(4, 5, 3)), np.ones((4, 5, 5))
    net, method = graph_net(), ns.RandomFeatures(4)
    wrong = {
        r"Aggregate.*pass pattern=\.\.\. to feature_map": (None, TypeError),
        r"pattern has shape \(4, 5, 4\); needed: weights \(n, 5, 5\)": (
            np.ones((4, 5, 4)),
            ValueError,
        ),
        r"pattern has shape \(4, 5\); needed": (np.ones((4, 5)), ValueError),
        r"one graph for each of the 4 examples": (np.ones((3, 5, 5)), (ValueError, TypeError)),
        "are for kernel_fn": ((pattern, pattern), TypeError),
        "pattern is a list; needed: an array, weights": (pattern.tolist(), TypeError),
        "pattern is a str; needed": ("dense", TypeError),
        "weights that are NaN or infinite": (np.where(pattern > 0, np.nan, 0), ValueError),
    }
    for message, (given, error) in wrong.items():
        with pytest.raises(error, match=message):
            ns.feature_map(net, x, method, key=KEY, pattern=given)
    feature_map = ns.feature_map(net, x, method, key=KEY, pattern=pattern)
    for call in (lambda **k: feature_map(x, **k), lambda **k: feature_map.diagonals(x, **k)):
        with pytest.raises(TypeError, match="there is no graph; pass pattern"):
            call()
    with pytest.raises(ValueError, match="pattern has 3 graphs for 4 examples; needed: one for"):
        feature_map(x, pattern=pattern[:3])
    with pytest.raises(TypeError, match=r"graphs of both, pattern=\(pattern1, pattern2\)"):
        feature_map.kernel_fn(x, x, pattern=pattern)
    assert feature_map.n_features == {"nngp": 4, "ntk": 4}  # known without a graph
    assert feature_map.batch_size() >= 1
    listed = stax.serial(stax.Dense(1), stax.Aggregate(implementation="SPARSE"))
    with pytest.raises(TypeError, match=r"dtype float64; needed: integers \(n, edges, 1, 2\)"):
        ns.feature_map(listed, x, method, key=KEY, pattern=np.ones((4, 6, 2)))
    with pytest.raises(ValueError, match=r"shape \(4, 6, 2, 2\); needed: integers"):
        ns.feature_map(listed, x, method, key=KEY, pattern=np.ones((4, 6, 2, 2), int))
    edges = np.full((4, 6, 1, 2), 4)
    ns.feature_map(listed, x, method, key=KEY, pattern=edges)
    for index, vertex in (((3, 5, 0, 0), 5), ((0, 0, 0, 1), 9)):
        beyond = edges.copy()
        beyond[index] = vertex
        for given in (beyond, beyond[:, :, 0]):
            with pytest.raises(ValueError, match=rf"edge at vertex \({vertex},\) of \(5,\)"):
                ns.feature_map(listed, x, method, key=KEY, pattern=given)


class WithGraph(eqx.Module):
    """Features of examples (n, V, c + V): channels of every vertex, and its row of weights."""

    feature_map: ns.FeatureMap
    channels: int = eqx.field(static=True)

    def __call__(self, x):
        return self.feature_map(x[..., : self.channels], pattern=x[..., self.channels :])


def test_regression_on_graphs():
    """Solvers know examples alone: these carry their graphs."""
    x, pattern, y = RNG.normal(size=(8, 4, 3)), RNG.uniform(size=(8, 4, 4)), RNG.normal(size=8)
    feature_map = ns.feature_map(graph_net(), x, ns.RandomFeatures(8), key=KEY, pattern=pattern)
    with pytest.raises(TypeError, match="ridge, predict and stream know examples alone"):
        ns.ridge(feature_map, x, y, diag_reg=1e-2)
    carried = np.concatenate([x, pattern], axis=-1)
    solution = ns.ridge(WithGraph(feature_map, 3), carried, y, diag_reg=1e-2)
    z = np.asarray(feature_map(x, pattern=pattern).ntk)
    scale = np.mean(np.sum(z**2, axis=1))
    weights = np.linalg.solve(z.T @ z + 1e-2 * scale * np.eye(z.shape[1]), z.T @ y)
    np.testing.assert_allclose(np.ravel(solution.predict(carried)), z @ weights, rtol=1e-6)
