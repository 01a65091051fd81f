"""The package passes JAX's own checks (`jax_enable_checks`)."""

import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES, NONLINEARITIES, conv
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax

METHODS = {
    "random": ns.RandomFeatures(8),
    "leverage": ns.LeverageScore(8),
    "nystroem": ns.Nystroem(8),
    "poly sketch": ns.PolySketch(degree=3, width=8),
    "gegenbauer": ns.Gegenbauer(degree=3, width=8),
}


@pytest.fixture(autouse=True)
def checks():
    with jax.enable_checks(True):
        yield


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_exact_kernels(name):
    architecture = ARCHITECTURES[f"dense {name}"]
    options = dict(architecture.nt_options)
    x = jax.ShapeDtypeStruct((2, *architecture.shape), np.float32)
    kernel_fn = architecture.model()[2]
    shapes = jax.eval_shape(lambda x: kernel_fn(x, None, ("nngp", "ntk"), **options), x)
    assert shapes.ntk.shape == (2, 2)


@pytest.mark.parametrize("name", others_slow(METHODS, "nystroem"))
def test_regression(name):
    block = stax.serial(conv((3,)), stax.Relu())
    model = stax.serial(block, stax.AvgPool((2,), (2,)), block, stax.Flatten(), stax.Dense(1))
    x = np.random.default_rng(0).normal(size=(20, 6, 2)).astype(np.float32)
    made = ns.feature_map(model, x, METHODS[name], key=jax.random.key(0))
    y = x[:, 0, 0] - x[:, 0, 0].mean()
    assert np.isfinite(ns.ridge(made, x, y, select="gcv", diag_reg=[0.1, 1.0]).predict(x)).all()
