"""Pending roots of landmark Gram matrices change no number and save products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import _roots

KEY = jax.random.key(0)
METHODS = {
    "landmarks": ns.Nystroem((6, 8), residual=0.0),
    "not fitted": ns.Nystroem((6, 8), residual=0.0, calibrate=False),
    "half residual": ns.Nystroem((6, 8), residual=0.5),
    "residual, not fitted": ns.Nystroem((6, 8), residual=0.5, calibrate=False),
    "low rank": ns.Nystroem((24, 8), residual=0.0, rcond=0.2),
}


def net():
    conv = stax.Conv(1, (3, 3), padding="SAME", b_std=0.1)
    pool = stax.AvgPool((2, 2), (2, 2))
    branches = stax.parallel(conv, stax.serial(conv, stax.LayerNorm()))
    return stax.serial(
        *(conv, stax.Relu(), pool, stax.FanOut(2), branches, stax.FanInSum(), stax.Relu()),
        *(pool, stax.Flatten(), stax.Dense(1)),
    )


def images():
    return np.random.default_rng(0).normal(size=(12, 8, 8, 2))


def at_once(monkeypatch):
    """Every root applied where it arises."""
    monkeypatch.setattr(_roots, "Rooted", _Formed)
    jax.clear_caches()


class _Formed:
    def __new__(cls, values, root):
        return jnp.matmul(values, root, precision="highest")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", others_slow(METHODS, "landmarks"))
def test_the_same_features(name, monkeypatch):
    """But for the order of sums: kernels of a pair agree to what roots magnify of rounding."""
    x = images()

    def kernels():
        made = ns.feature_map(net(), x, METHODS[name], key=KEY)
        return made.kernel_fn(x), made.cost(x.shape).flops

    waiting, flops = kernels()
    with monkeypatch.context() as patch:
        at_once(patch)
        applied, more = kernels()
    jax.clear_caches()
    for found, right in zip(waiting, applied, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-7, atol=1e-9)
    assert flops <= more
    assert flops < more or "residual" in name  # where random functions need the features formed
