"""Bad input of empirical maps: errors and their messages."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch import stax
from ntk_sketch.empirical import empirical_feature_map


def linear(params, x):
    return x @ params["w"]


PARAMS = {"w": np.ones((3, 2), "f4")}
X = np.ones((4, 3), "f4")


def made(apply_fn=linear, params=PARAMS, width=4, **options):
    options = {"key": jax.random.key(0), "x": X} | options
    return empirical_feature_map(apply_fn, params, width, **options)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (PARAMS | {"step": np.int32(3)}, TypeError, r"params\['step'\] has dtype int32.*Keep"),
        (PARAMS | {"rate": 0.1}, TypeError, r"params\['rate'\] is 0.1 of type float; needed"),
        (PARAMS | {"name": "relu"}, TypeError, r"params\['name'\] is 'relu'.*equinox.partition"),
        ({"w": PARAMS["w"] + 1j}, TypeError, "complex.*real floating point parameters"),
        ({"w": PARAMS["w"] * np.nan}, ValueError, r"params\['w'\] has entries that are NaN"),
        ({}, ValueError, "params has no arrays"),
        (PARAMS | {"key": jax.random.key(0)}, TypeError, r"params\['key'\] has dtype key"),
    ],
)
def test_parameters(params, error, message):
    with pytest.raises(error, match=message):
        made(params=params)


def test_functions():
    model = stax.serial(stax.Dense(3), stax.Dropout(0.5), stax.Dense(2))
    with pytest.raises(TypeError, match=r"is a network \(init_fn, apply_fn, kernel_fn\)"):
        made(model)
    with pytest.raises(TypeError, match="apply_fn is a int; needed: a function"):
        made(3)
    with pytest.raises(TypeError, match=r"holds arrays.*equinox\.combine"):
        made(eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    with pytest.raises(Exception, match=r"rng=key.*the same for every example"):
        made(model[1], model[0](jax.random.key(0), X.shape)[1])
    with pytest.raises(TypeError, match="keyword arguments of apply_fn are arrays, or have a hash"):
        made(linear, option={1, 2})


@pytest.mark.parametrize(
    ("apply_fn", "error", "message"),
    [
        (lambda p, x: (linear(p, x), x), TypeError, "returns a tuple.*pick one"),
        (lambda p, x: linear(p, x)[:, 0], ValueError, r"shape \(1,\).*a number for each"),
        (lambda p, x: linear(p, x)[0], ValueError, r"shape \(2,\).*the first axis"),
        (lambda p, x: linear(p, x) > 0, TypeError, "returns bool"),
    ],
)
def test_outputs(apply_fn, error, message):
    with pytest.raises(error, match=message):
        made(apply_fn)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be a positive integer"),
        ({"key": 0}, TypeError, "key must be a key of jax.random"),
        ({"x": X.astype(int)}, TypeError, "floating point inputs"),
        ({"mode": "backward"}, ValueError, "mode must be one of forward, reverse"),
        ({"get": "cov"}, ValueError, "known kernels are nngp, ntk"),
        ({"memory_bytes": 0}, ValueError, "memory_bytes must be a positive integer"),
        ({"trace_axes": 0}, NotImplementedError, "the axis of examples, 0"),
        ({"diagonal_axes": (0,)}, NotImplementedError, "the axis of examples, 0"),
        ({"trace_axes": (2,)}, ValueError, r"outputs \(n, 2\) have axes -2 to 1"),
        ({"trace_axes": (1, -1)}, ValueError, "has an axis twice"),
        ({"diagonal_axes": (-1,)}, ValueError, "axis 1 of the outputs is in trace_axes"),
        ({"trace_axes": "last"}, TypeError, "an axis in trace_axes must be an integer"),
    ],
)
def test_options(options, error, message):
    with pytest.raises(error, match=message):
        made(**options)


def test_calls():
    features = made()
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\)"):
        features(jnp.ones((2, 5)))
    with pytest.raises(TypeError, match="floating point inputs"):
        features(jnp.ones((2, 3), int))
    kept = made(trace_axes=())
    with pytest.raises(ValueError, match="all axes of the outputs traced"):
        kept.diagonals(X)
