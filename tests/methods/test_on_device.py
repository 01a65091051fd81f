"""Landmark matrices that are decomposed on a device give the same features as by LAPACK.

The device is this CPU, on which the same programs run as on a GPU.
"""

import jax
import numpy as np
import pytest
import scipy.linalg
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods._calibration import _transform
from ntk_sketch.methods._roots import fitted_roots
from ntk_sketch.numerics import _linalg

X = np.random.default_rng(0).normal(size=(40, 6, 2)).astype(np.float32)
WINDOW = {"filter_shape": (2,), "dimension_numbers": ("NHC", "HIO", "NHC")}
CONVOLUTIONAL = stax.serial(
    stax.Conv(1, **WINDOW), stax.Relu(), stax.Conv(1, **WINDOW), stax.Relu(), stax.Flatten()
)
DENSE = stax.serial(stax.Flatten(), stax.Dense(1, b_std=0.1), stax.Relu(), stax.Dense(1))
MAPS = {
    "calibrated, rank": (CONVOLUTIONAL, ns.Nystroem((8, 6), rank=(None, 3))),
    "residual": (DENSE, ns.Nystroem(8, residual=0.5, calibrate=False)),
}


@pytest.fixture
def on_device(monkeypatch):
    """From here on matrices stay with XLA: LAPACK is not there."""

    def begin():
        def refused(*args, **kwargs):
            raise AssertionError("a decomposition on the host")

        monkeypatch.setattr(_linalg, "PLATFORMS", ("cpu",))
        monkeypatch.setattr(scipy.linalg, "eigh", refused)
        for name in ("eigh", "eigvalsh", "inv", "solve"):
            monkeypatch.setattr(np.linalg, name, refused)

    return begin


@pytest.mark.parametrize("name", others_slow(MAPS, "residual"))
def test_features(name, on_device):
    """The same landmarks, and the same kernel of what they become."""

    def features():
        model, method = MAPS[name]
        made = ns.feature_map(model, X, method, key=jax.random.key(0))
        return jax.tree.map(np.asarray, made(X[:8]))

    host = features()
    on_device()
    device = features()
    for z, other in [(device.nngp, host.nngp), (device.ntk, host.ntk)]:
        assert z.shape == other.shape
        kernel = other @ other.T
        np.testing.assert_allclose(z @ z.T, kernel, atol=1e-5 * np.abs(kernel).max())


def test_derivatives(on_device):
    """Of roots, projections and their calibration, with respect to the matrices."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 9)).astype(np.float32)
    a, b = jax.device_put(list(rng.normal(size=(2, 20, 5)).astype(np.float32)))
    values = rng.normal(size=(5, 2)).astype(np.float32)

    def total(gram, kernel):
        roots = fitted_roots(_linalg.in_float64(gram), np.float32, values, traced=gram)
        plain = fitted_roots(_linalg.in_float64(gram), np.float32, traced=gram)
        plain = plain.then(_transform(a, b, kernel, ridge=0.1))
        return (plain.landmarks @ plain.landmarks.T).sum() + roots.projection.sum()

    def found():
        matrices = jax.device_put((x @ x.T, a @ b.T))
        return jax.value_and_grad(total, argnums=(0, 1))(*matrices)

    host = found()
    on_device()
    for one, other in zip(jax.tree.leaves(found()), jax.tree.leaves(host), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
