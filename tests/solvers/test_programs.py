"""What is traced and compiled, counted: once for each structure of a map and size of a batch."""

import contextlib
import importlib

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.solvers import accumulate, ridge, solve
from ntk_sketch.streaming import stream


@contextlib.contextmanager
def compilations():
    """A list that grows by one with every program that XLA compiles."""
    seen = []

    def listen(event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def enable_x64(value: bool):
    """`jax.experimental.enable_x64` became `jax.enable_x64` and was then removed."""
    owner = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return owner.enable_x64(value)


def other_numbers(tree):
    return jax.tree.map(lambda leaf: 1.5 * leaf if isinstance(leaf, jax.Array) else leaf, tree)


@pytest.fixture
def network_map():
    model = stax.serial(stax.Dense(1, b_std=0.1), stax.Relu(), stax.Dense(1))
    shape = jax.ShapeDtypeStruct((1, 6), np.float32)
    return ns.feature_map(model, shape, ns.RandomFeatures(8), key=jax.random.key(0))


def test_a_prediction_of_a_known_size_compiles_nothing(network_map, make_data):
    x, y = make_data(100)
    solution = ridge(network_map, x, y, diag_reg=[0.1, 1.0], select="gcv")
    changed = other_numbers(solution)
    for n in (5, 90):
        solution.path[0].predict(x[:n])
    with compilations() as seen:
        for n in (5, 6, 7, 8, 65, 128):
            solution.predict(x[:n])
            solution.path[0].predict(x[:n])
        changed.predict(x[:6])
        ridge(changed.feature_map, 2 * x, y, diag_reg=[0.1, 1.0], select="gcv")
        assert not seen
        solution.predict(x[:9])
        assert seen  # a new size is noticed


def test_every_size_of_a_batch_once(network_map, make_data):
    x, y = make_data(300)
    solution = ridge(network_map, x, y, diag_reg=0.1)
    with compilations() as seen:
        for n in range(1, 257):
            solution.predict(x[:n])
    # 1, 2, 4, ..., 256, each with the features and their product with the weights
    assert len(seen) <= 2 * 9


def test_batch_size_and_shapes_are_traced_once(network_map, make_data, monkeypatch):
    x, y = make_data(40)
    reference = network_map.batch_size()
    ridge(network_map, x, y)

    def traced(*args, **kwargs):
        raise AssertionError("traced again")

    monkeypatch.setattr(jax, "make_jaxpr", traced)
    monkeypatch.setattr(jax, "eval_shape", traced)
    changed = other_numbers(network_map)
    assert changed.batch_size() == reference
    assert changed.batch_size(1) == 1
    state = accumulate(changed, x, y)
    solve(changed, state).predict(x[:33])


def test_batch_size_knows_dtypes(network_map):
    small, large = (network_map.batch_size(2**18, dtype) for dtype in ("float32", "float16"))
    assert small <= large


def test_another_function_is_another_program(features_type, make_data):
    """Maps are told apart by structure; two functions are never the same."""
    x = make_data(5)[0]
    for factor in (1.0, 2.0):
        feature_map = lambda x, factor=factor: features_type(None, factor * x)  # noqa: E731
        [(_, _, z)] = stream(feature_map, x)
        np.testing.assert_array_equal(np.asarray(z)[:5], factor * x)


@pytest.mark.usefixtures("x64")
def test_x64_is_another_program(network_map, make_data):
    x = make_data(5, np.float64)[0]
    [(_, _, z)] = stream(network_map, x)
    assert z.dtype == np.float64
    with enable_x64(False):
        [(_, _, z)] = stream(network_map, x)
    assert z.dtype == np.float32
