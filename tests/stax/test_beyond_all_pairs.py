"""Covariances of different positions estimated from features: their error against exact ones."""

import math

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import Method

POSITIONS, BATCH = 400, 6


def first():
    return stax.serial(stax.Dense(1), stax.Relu())


def last():
    return stax.serial(stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))


def attention(**options):
    return stax.GlobalSelfAttention(1, 1, 1, 1, b_std=0.1, **options)


NETS = {
    "attention": lambda: stax.serial(first(), attention(linear_scaling=True), last()),
    "quadratic attention": lambda: stax.serial(
        first(), attention(linear_scaling=False, attention_mechanism="IDENTITY"), last()
    ),
    "aggregate": lambda: stax.serial(first(), stax.Aggregate(), stax.Dense(1, b_std=0.1), last()),
    "pool": lambda: stax.serial(
        *(stax.Conv(1, (3,)), stax.Relu(), stax.GlobalAvgPool()),
        *(stax.Dense(1, b_std=0.1), stax.Relu(), stax.Dense(1)),
    ),
}


@pytest.fixture(scope="module")
def data():
    """Random walks, and graphs with four edges a vertex."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * BATCH, POSITIONS, 8)).cumsum(1).astype(np.float32)
    graphs = rng.uniform(size=(4 * BATCH, POSITIONS, POSITIONS)) < 4 / POSITIONS
    graphs = graphs / np.maximum(graphs.sum(1, keepdims=True), 1)
    return x / np.linalg.norm(x, axis=-1, keepdims=True), graphs.astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [ns.Nystroem(256), ns.RandomFeatures(256)], ids=["Nystroem", "RandomFeatures"]
)
@pytest.mark.parametrize("name", NETS)
def test_estimated_terms_add_little(name, method, data, monkeypatch, record_property):
    x, graphs = data
    model, own, other, sample = NETS[name](), x[:BATCH], x[BATCH : 2 * BATCH], x[2 * BATCH :]

    def pattern(*rows):
        if name != "aggregate":
            return {}
        found = tuple(graphs[row] for row in rows)
        return {"pattern": found if len(found) > 1 else found[0]}

    here, there = slice(BATCH), slice(BATCH, 2 * BATCH)
    with jax.numpy_dtype_promotion("standard"):  # of NT
        right = np.asarray(model[2](own, other, "ntk", **pattern(here, there)))
    errors = []
    for limit in (256, math.inf):
        monkeypatch.setattr(Method, "max_positions_all_pairs", limit)
        options = pattern(slice(2 * BATCH, None))
        made = ns.feature_map(model, sample, method, key=jax.random.key(0), **options)
        z = [
            np.asarray(made(rows, **pattern(where)).ntk)
            for rows, where in ((own, here), (other, there))
        ]
        errors.append(float(np.linalg.norm(z[0] @ z[1].T - right) / np.linalg.norm(right)))
    record_property("estimated and exact", errors)
    # Sketches of cubic kernels err more than what they are made of.
    assert errors[1] < (0.6 if name == "quadratic attention" else 0.2)
    # Attention with landmarks, whose features err alike at all positions, is the one above 1.1.
    assert errors[0] < (2 if name == "attention" else 1.1) * errors[1]
