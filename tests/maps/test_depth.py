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
from marks import others_slow

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


def processor_seconds(method, depth):
    """A dense ReLU network of `depth` hidden layers, from the layers to features of 16 examples."""
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    started = time.process_time()
    layers = [stax.Dense(4, 1.3, 0.1), stax.Relu()] * depth
    feature_map = ns.feature_map(
        stax.serial(*layers, stax.Dense(1)), x, METHODS[method], key=jax.random.key(0)
    )
    features = jax.block_until_ready(feature_map(x).ntk)
    assert np.isfinite(features).all()
    return time.process_time() - started


@pytest.mark.default_flags
@pytest.mark.skipif(bool(os.environ["XLA_FLAGS"]), reason="it is XLA's fusion that is watched")
@pytest.mark.parametrize("method", others_slow(METHODS, "nystroem"))
def test_seconds_grow_linearly_with_depth(method):
    processor_seconds(method, 2)  # what is compiled once for all depths
    shallow = processor_seconds(method, 4)
    assert processor_seconds(method, 32) <= 1.25 * 32 / 4 * shallow
