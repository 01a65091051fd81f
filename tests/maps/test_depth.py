"""Compilation takes time in proportion to depth, whatever the method.

XLA's fusion copies chains of exact variances: without barriers between layers, it made the time
grow fourfold with every ReLU layer. Counted in seconds of the processor, so that other work on the
machine does not matter, and as ratios, so that its speed does not.
"""

import os
import time

import jax
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax

METHODS = {
    "random": ns.RandomFeatures(8),
    "leverage score": ns.LeverageScore(8),
    "nystroem": ns.Nystroem(8),
    "whole network": ns.Nystroem(8, scope="network"),
    "half residual": ns.Nystroem(8, residual=0.5),
    "poly sketch": ns.PolySketch(3, 8),
    "gegenbauer": ns.Gegenbauer(3, 8),
    "exact": ns.Exact(),
}


def dense(depth):
    return [stax.Dense(4, 1.3, 0.1), stax.Relu()] * depth


def convolutions(depth):
    """Of one position, whose products are those of dense layers."""
    return [*([stax.Conv(4, (1, 1), None, "VALID", 1.3, 0.1), stax.Relu()] * depth), stax.Flatten()]


def features(feature_map, x):
    return feature_map(x).ntk


def regression(feature_map, x):
    solution = ns.ridge(feature_map, x, x.reshape(len(x), -1)[:, :1], diag_reg=0.1)
    return solution.predict(x[:8]).sum() + feature_map.kernel_fn(x, None, "ntk").sum()


TABLE = {
    "features of dense layers": (dense, (4,), features),
    "regression and kernel of dense layers": (dense, (4,), regression),
    "features of 1x1 convolutions": (convolutions, (2, 2, 4), features),
}


def processor_seconds(name, method, depth):
    """A ReLU network of `depth` hidden layers, from the layers to what is made for 16 examples."""
    layers, shape, make = TABLE[name]
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)
    started = time.process_time()
    model = stax.serial(*layers(depth), stax.Dense(1))
    feature_map = ns.feature_map(model, x, METHODS[method], key=jax.random.key(0))
    assert np.isfinite(jax.block_until_ready(make(feature_map, x))).all()
    return time.process_time() - started


def rows():
    for name in TABLE:
        for method in METHODS:
            if name == "features of 1x1 convolutions" and method == "whole network":
                continue  # of vectors alone
            quick = name == "features of dense layers" and method == "nystroem"
            yield pytest.param(name, method, marks=() if quick else pytest.mark.slow)


@pytest.mark.default_flags
@pytest.mark.skipif(bool(os.environ["XLA_FLAGS"]), reason="it is XLA's fusion that is watched")
@pytest.mark.parametrize(("name", "method"), list(rows()))
def test_seconds_grow_linearly_with_depth(name, method):
    processor_seconds(name, method, 2)  # what is compiled once for all depths
    shallow = processor_seconds(name, method, 4)
    assert processor_seconds(name, method, 32) <= 1.25 * 32 / 4 * shallow
