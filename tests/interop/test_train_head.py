"""Heads on features, trained by optax."""

import jax
import numpy as np
import optax
import pytest

pytest.importorskip("flax")
from flax import nnx

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.interop.flax import train_head
from ntk_sketch.interop.flax._head import Head
from ntk_sketch.interop.flax._head_data import Step
from ntk_sketch.interop.flax._losses import targets_of
from ntk_sketch.solvers import Checkpoint, HoldOut

KEY = jax.random.key(0)
N, K = 22, 3


@pytest.fixture(autouse=True)
def loose():
    """Flax and optax add axes and mix dtypes as they please."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2)).astype(np.float32)
    return x, np.eye(K, dtype=np.float32)[rng.integers(0, K, N)], rng.uniform(0.5, 2, N)


@pytest.fixture(scope="module")
def feature_map(data):
    model = stax.serial(stax.Dense(1, 1.3, 0.2), stax.Erf(), stax.Dense(1))
    return ns.feature_map(model, data[0], ns.Nystroem(6), key=KEY)


def batches(*arrays):
    return lambda: (tuple(a[i : i + 7] for a in arrays) for i in (0, 7, 14, 21))


def test_steps_are_those_of_the_formula(data, feature_map):
    """Stochastic gradients of a weighted softmax, in loops over batches of 4 in their own order."""
    x, y, weights = data
    z = np.asarray(feature_map(x).ntk, np.float64)
    scale = np.mean(z[:4] ** 2) ** -0.5
    kernel, bias, rate = np.zeros((z.shape[1], K)), np.zeros(K), 0.1
    for _ in range(2):
        total = 0.0
        for start in range(0, N, 4):
            rows = slice(start, start + 4)
            logits = scale * z[rows] @ kernel + bias
            shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            total -= np.sum(weights[rows] * np.sum(y[rows] * np.log(shares), axis=1))
            push = (shares - y[rows]) * (weights[rows] / weights[rows].sum())[:, None]
            kernel -= rate * scale * z[rows].T @ push
            bias -= rate * push.sum(0)
    how = {"key": KEY, "optimizer": optax.sgd(rate), "epochs": 2, "batch_size": 4}
    for targets in (y, y - 1 / K):  # centred, as ridge has them
        model, history = train_head(feature_map, batches(x, targets, weights), **how)
        np.testing.assert_allclose(model(x), scale * z @ kernel + bias, rtol=0, atol=2e-5)
        assert history[-1]["loss"] == pytest.approx(total / weights.sum(), rel=1e-5)
    assert not jax.tree.leaves(nnx.state(model.layers[0], nnx.Param))


class Interrupted:
    """Ctrl-C after so many examples."""

    def __init__(self, after):
        self.left = after

    def __call__(self, count):
        self.left -= count
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("streamed", "trainable"),
    [
        (False, False),
        (True, False),
        (True, True),
        pytest.param(False, True, marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_where_it_was_interrupted(data, feature_map, tmp_path, streamed, trainable):
    x, y, _ = data
    given = (batches(x, y),) if streamed else (x, y)
    path = tmp_path / "head.msgpack"
    how = {"key": KEY, "epochs": 3, "batch_size": 4, "trainable": trainable}
    how |= {"validation": (x[:5], y[:5]), "patience": 3}
    model, history = train_head(feature_map, *given, **how)
    with pytest.raises(KeyboardInterrupt) as error:
        train_head(feature_map, *given, **how, checkpoint=path, progress=Interrupted(N + 8))
    assert "Epochs before 2 and 2 steps" in error.value.__notes__[0]
    seen = []
    again, other = train_head(feature_map, *given, **how, checkpoint=path, progress=seen.append)
    assert (sum(seen), other) == (2 * N - 8, history)
    np.testing.assert_array_equal(again(x), model(x))
    finished, _ = train_head(feature_map, *given, **how, checkpoint=path, progress=seen.append)
    assert sum(seen) == 2 * N - 8
    np.testing.assert_array_equal(finished(x), model(x))
    with pytest.raises(ValueError, match="batch_size: 4 there, 5 here"):
        train_head(feature_map, *given, **how | {"batch_size": 5}, checkpoint=path)
    with pytest.raises(ValueError, match="of another optimizer"):
        train_head(feature_map, *given, **how, optimizer=optax.sgd(0.1), checkpoint=path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="another file, or damaged"):
        train_head(feature_map, *given, **how, checkpoint=Checkpoint(path, seconds=0))


def test_stops_and_returns_the_best_epoch(data, feature_map):
    """Labels of the validation are wrong: every epoch but the first is worse."""
    x, y, _ = data
    wrong = x[:8], np.roll(y[:8], 1, axis=1)
    how = {"key": KEY, "optimizer": optax.sgd(0.3), "validation": wrong, "keep_features": True}
    model, history = train_head(feature_map, x, y, patience=2, **how)
    losses = [of["validation_loss"] for of in history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 20
    logits = np.asarray(model(wrong[0]), np.float64)
    found = np.mean(np.log(np.exp(logits).sum(1)) - (logits * wrong[1]).sum(1))
    assert found == pytest.approx(losses[best], rel=1e-5)


def test_held_out_examples_are_not_trained_on(data, feature_map):
    x, y, _ = data
    seen = []
    how = {"key": KEY, "epochs": 1, "validation": HoldOut(0.25, key=KEY), "progress": seen.append}
    _, [losses] = train_head(feature_map, x, y, **how)
    assert sum(seen) == N - round(0.25 * N)
    assert losses["validation_loss"] > 0


def test_gradients_of_landmarks_and_roots(data):
    """Against central differences in float64, along a random direction for each array; at other
    examples than the landmarks, whose cosines with themselves are clipped."""
    with jax.enable_x64(True):
        x, y, weights = (a.astype(np.float64) for a in data)
        model = stax.serial(stax.Dense(1, 1.3, 0.2), stax.Erf(), stax.Dense(1))
        feature_map = ns.feature_map(model, x, ns.Nystroem(6), key=KEY)
        x = np.random.default_rng(2).normal(size=x.shape)
        head = Head(feature_map, "ntk", "softmax", None, trainable=True)
        step = Step(feature_map(x).ntk, y, weights, N, b"")
        params = head.start(step, K).params
        rng = np.random.default_rng(1)
        params["kernel"] = jax.numpy.asarray(rng.normal(size=params["kernel"].shape))
        inputs = head.made(step._replace(inputs=x))

        @jax.jit
        def loss(params):
            return head.sums(params, *inputs)[0]

        gradients = jax.jit(jax.grad(loss))(params)["map"]
        moved = 0
        for place, gradient in enumerate(gradients):
            direction = rng.normal(size=gradient.shape)
            h = 1e-5 * (1e-3 + np.abs(params["map"][place]).max())
            ends = []
            for sign in (1, -1):
                arrays = list(params["map"])
                arrays[place] = arrays[place] + sign * h * direction
                ends.append(float(loss(params | {"map": arrays})))
            found = float(np.sum(gradient * direction))
            # rounding of the loss over h, about 1e-15 / 1e-8; h² times third derivatives
            assert found == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-5)
            moved += found != 0
        assert moved > 2


def test_centred_rows_in_float32_are_probabilities_again():
    """Rounding makes some of them slightly negative."""
    shares = np.random.default_rng(5).dirichlet(np.full(5, 0.05), 20).astype(np.float32)
    found = targets_of("softmax", shares - shares.mean(axis=1, keepdims=True))
    assert found.min() < 0
    np.testing.assert_allclose(found, shares, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "'softmax', 'squared'"),
        ({"loss": lambda outputs, y: (outputs - y) ** 2}, "one number for each example"),
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"validation": 0.2}, "HoldOut"),
        ({"trainable": True, "keep_features": True}, "leave out one"),
        ({"y": np.full((N, K), 2.0)}, None),
        ({"y": -np.eye(K)[np.arange(N) % K]}, "one-hot rows or probabilities"),
        ({"optimizer": optax.sgd(1e30), "epochs": 3, "loss": "squared"}, "smaller learning rate"),
    ],
)
def test_what_is_refused(data, feature_map, change, message):
    x, y, _ = data
    how = {"x": x, "y": y, "key": KEY, "epochs": 1} | change
    if message is None:  # rows that are all alike say nothing, and are the same for every class
        assert train_head(feature_map, **how)[1][0]["loss"] == pytest.approx(np.log(K), rel=1e-5)
        return
    with pytest.raises((TypeError, ValueError), match=message):
        train_head(feature_map, **how)


def test_an_iterator_is_refused(data, feature_map):
    with pytest.raises(ValueError, match="can be read once only"):
        train_head(feature_map, iter([data[:2]]), key=KEY)
