"""Where positions are flattened, half of the default width is residual features."""

import jax
import numpy as np
import pytest
from architectures import conv
from marks import others_slow
from sklearn.datasets import load_digits

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import _calibration
from ntk_sketch.methods._expansion import LandmarkExpansion

KEY = jax.random.key(0)
RELU, FLATTEN, POOL = stax.Relu(), stax.Flatten(), stax.AvgPool((2,), (2,))
BLOCK = stax.serial(conv((3,)), RELU)
BRANCH = stax.serial(RELU, conv((3,)))
OWN = stax.with_method(RELU, ns.Nystroem(8))

MODELS = {
    "pooled": (stax.serial(BLOCK, BLOCK, stax.GlobalAvgPool(), stax.Dense(1)), [False, False]),
    "flattened": (stax.serial(BLOCK, BLOCK, FLATTEN, stax.Dense(1)), [False, True]),
    "pool, then flattened": (stax.serial(BLOCK, BLOCK, POOL, FLATTEN), [False, False]),
    "pool between": (stax.serial(BLOCK, POOL, BLOCK, FLATTEN), [False, True]),
    "dense head": (
        stax.serial(BLOCK, FLATTEN, stax.Dense(1), RELU, stax.Dense(1)),
        [True, False],
    ),
    "dense after it": (stax.serial(BLOCK, conv((2,)), stax.Dense(1), FLATTEN), [True]),
    "flattened first": (stax.serial(FLATTEN, stax.Dense(1), RELU, stax.Dense(1)), [False]),
    "nested": (
        stax.serial(stax.serial(BLOCK, stax.serial(BLOCK, BLOCK)), stax.serial(FLATTEN)),
        [False, False, True],
    ),
    "branches": (
        stax.serial(
            conv((3,)),
            stax.FanOut(2),
            stax.parallel(BRANCH, stax.serial(BRANCH, BRANCH)),
            stax.FanInSum(),
            FLATTEN,
        ),
        [True, False, True],
    ),
    "a branch that passes by": (
        stax.serial(
            BLOCK,
            conv((3,)),
            stax.FanOut(2),
            stax.parallel(stax.Identity(), BRANCH),
            stax.FanInSum(),
            FLATTEN,
        ),
        [True, True],
    ),
    "nested pool": (stax.serial(BLOCK, stax.serial(POOL, FLATTEN)), [False]),
    "one position": (stax.serial(conv((6,), padding="VALID"), RELU, FLATTEN), [False]),
    "own method": (stax.serial(BLOCK, conv((3,)), OWN, FLATTEN), [False, True]),
    "own method, pooled": (stax.serial(BLOCK, conv((3,)), OWN, POOL, FLATTEN), [False, False]),
    "without a function": (stax.serial(conv((3,)), stax.ExpNormalized(), FLATTEN), [False]),
}


def residual(feature_map):
    """Which nonlinearities have residual features."""

    def is_expansion(node):
        return isinstance(node, LandmarkExpansion)

    nodes = jax.tree.leaves(feature_map.transform, is_leaf=is_expansion)
    return [node.function is not None for node in nodes if is_expansion(node)]


#: The other rows run by hand: every rule of where is in one of these.
KEPT = ("pool between", "a branch that passes by", "own method")


@pytest.mark.parametrize("name", others_slow(MODELS, *KEPT))
def test_where(name):
    model, wanted = MODELS[name]
    x = np.random.default_rng(0).normal(size=(12, 6, 2)).astype(np.float32)
    assert residual(ns.feature_map(model, x, ns.Nystroem(8), key=KEY)) == wanted


def test_not_where_the_share_is_given():
    model, _ = MODELS["flattened"]
    x = np.random.default_rng(0).normal(size=(12, 6, 2)).astype(np.float32)
    for share, wanted in ((0, [False, False]), ((0.5, 0.0), [True, False]), (0.5, [True, True])):
        made = ns.feature_map(model, x, ns.Nystroem(8, residual=share), key=KEY)
        assert residual(made) == wanted
    made = ns.feature_map(model, x, ns.Nystroem(8, residual=(0.5, None)), key=KEY)
    assert residual(made) == [True, True]


@pytest.mark.slow
def test_smaller_error_than_of_random_features():
    """On images, whose positions landmarks describe well but not wholly."""
    images = load_digits().images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    model = stax.serial(conv((3, 3)), RELU, conv((3, 3)), RELU, FLATTEN, stax.Dense(1))
    x, errors = images[-12:], {}
    exact = model[2](x, None, ("nngp", "ntk"))
    for name, method in {
        "default": ns.Nystroem(32),
        "landmarks": ns.Nystroem(32, residual=0),
        "random": ns.RandomFeatures(32),
    }.items():
        made = ns.feature_map(model, images[:100], method, key=KEY)
        pairs = zip(made.kernel_fn(x), exact, strict=True)
        errors[name] = np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])
    assert np.all(errors["default"] < errors["random"])
    assert np.all(errors["default"] < 0.75 * errors["landmarks"])


@pytest.mark.slow
def test_calibration_keeps_residual_features(monkeypatch):
    """It would suppress them as noise, with the ridge that landmarks alone have."""
    images = load_digits().images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    wide = {"W_std": 2**0.5, "b_std": None}
    block = stax.serial(conv((3, 3), **wide), RELU)
    model = stax.serial(block, stax.AvgPool((2, 2), (2, 2)), block, FLATTEN, stax.Dense(1))
    x, exact = images[-20:], model[2](images[-20:], None, "ntk")
    errors = []
    for ridge in (_calibration._RIDGE_RANDOM, _calibration._RIDGE):
        monkeypatch.setattr(_calibration, "_RIDGE_RANDOM", ridge)
        made = ns.feature_map(model, images[:200], ns.Nystroem(32), key=KEY)
        errors.append(np.linalg.norm(made.kernel_fn(x, None, "ntk") - exact))
    assert errors[0] < 0.75 * errors[1]
