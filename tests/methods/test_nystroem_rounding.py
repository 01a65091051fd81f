"""`Nystroem` in float32: awkward samples, dependent landmarks, and coarser projections."""

import functools

import equinox as eqx
import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from entering import entering
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods._landmarks import expansion, landmarks_at
from ntk_sketch.methods._sampling import usable_positions

pytestmark = pytest.mark.filterwarnings("ignore")

KEY = jax.random.key(0)


def relative(close, exact):
    return np.linalg.norm(np.asarray(close) - exact) / np.linalg.norm(exact)


# ------------------------------------------------------------------ rounding


def awkward_images():
    """Duplicates, constants, zeros and multiples among smooth images."""
    t = np.linspace(0, 1, 8)
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(16, 2, 3))
    x = np.stack([np.cos(t[:, None, None] * 3 * w[0] + t[:, None] * 3 * w[1]) for w in waves])
    x[1] = x[0]
    x[2] = 2 * x[0]
    x[3] = 0.0
    x[4] = 1.0
    x[5] = -1.0
    return x.astype(np.float32)


@pytest.mark.parametrize(("residual", "bias"), [(0.0, 0.1), (0.5, None)])
def test_awkward_images_in_float32(residual, bias):
    conv = functools.partial(stax.Conv, 4, (3, 3), W_std=1.4, b_std=bias, padding="SAME")
    model = stax.serial(
        conv(), stax.Relu(), stax.AvgPool((2, 2), (2, 2)), conv(), stax.Relu(), stax.GlobalAvgPool()
    )
    x = awkward_images()
    feature_map = ns.feature_map(model, x, ns.Nystroem((32, 16), residual=residual), key=KEY)
    z = feature_map(x)
    assert z.nngp.dtype == z.ntk.dtype == np.float32
    assert np.isfinite(z.nngp).all()
    assert np.isfinite(z.ntk).all()
    # Duplicates have the same features, row by row the same sums.
    assert relative(z.ntk[1], np.asarray(z.ntk[0])) < 100 * np.finfo(np.float32).eps
    weights = np.random.default_rng(0).normal(size=z.ntk.shape).astype(np.float32)

    def value(x):
        z = feature_map(x)
        return jnp.sum(z.ntk * weights) + jnp.sum(z.nngp**2)

    assert np.isfinite(jax.grad(value)(x)).all()


@pytest.mark.parametrize("name", ["Relu", "Gelu"])
def test_diagonal_where_landmarks_are_dependent(name, record_property):
    """In float32, with a Gram matrix of numerically low rank, variances at landmarks stay."""
    conv = stax.Conv(4, (3, 3), b_std=0.1, padding="SAME")
    model = stax.serial(conv, NONLINEARITIES[name](), stax.GlobalAvgPool())
    [(dual, features)] = entering(model, awkward_images()[:6, :5, :5])
    usable = usable_positions(features)
    rng = np.random.default_rng(0)
    chosen = np.unravel_index(rng.permutation(usable)[:64], (6, 5, 5))
    landmarks = landmarks_at(dual, features, chosen)
    both = eqx.filter_jit(expansion(landmarks, dual))(features)
    for kind, z, gram in zip(
        ("nngp", "ntk"), both, (landmarks.gram, landmarks.gram_ntk), strict=True
    ):
        assert kind == "ntk" or z.shape[-1] < 64  # eigenvalues are cut off
        diagonal = np.sum(np.asarray(z, float)[chosen] ** 2, axis=-1)
        exact = np.diag(gram)
        worst = np.max(np.abs(diagonal - exact) / exact)
        record_property(f"relative error, {kind}", float(worst))
        # Rounding of a kernel value, eps, over the root of the smallest eigenvalue kept, m eps, in
        # each of at most m directions.
        assert worst < np.sqrt(64 * np.finfo(np.float32).eps)


def test_bfloat16_inputs():
    """Rounding eps of kernel values, over the root of the smallest eigenvalue kept, m eps."""
    x = awkward_images()[6:, 0].reshape(10, -1)
    model = stax.serial(stax.Dense(4, b_std=0.3), stax.Relu(), stax.Dense(1))
    exact = np.asarray(model[2](x, None, "ntk"))
    coarse = jnp.asarray(x, jnp.bfloat16)
    z = ns.feature_map(model, coarse, ns.Nystroem(10), key=KEY)(coarse).ntk.astype(np.float32)
    assert relative(z @ z.T, exact) < np.sqrt(10 * float(jnp.finfo(jnp.bfloat16).eps))


# ------------------------------------------------------------------ precision


def smooth_net(kind):
    if kind == "dense":
        return stax.serial(
            stax.Dense(5, 1.2, 0.3), stax.Gelu(), stax.Dense(4, 0.9, 0.1), stax.Erf()
        )
    return stax.serial(
        stax.Conv(4, (3, 3), W_std=1.4, b_std=0.1),
        stax.Gelu(),
        stax.Conv(4, (2, 2), strides=(1, 2), b_std=0.1, padding="SAME"),
        stax.Erf(),
        stax.GlobalAvgPool(),
    )


PRECISE = {
    "landmarks": lambda precision: ns.Nystroem(6, precision=precision, calibrate=False),
    "landmarks and random": lambda precision: ns.Nystroem(
        6, residual=0.5, precision=precision, calibrate=False
    ),
    "random": lambda precision: ns.RandomFeatures(32, precision=precision),
}


@pytest.mark.parametrize("method", PRECISE)
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_precision(kind, method, record_property):
    """Of projections alone: features are float32, off by the rounding of two operands a layer."""
    shape = (8,) if kind == "dense" else (5, 4, 2)
    x, other = np.random.default_rng(0).normal(size=(2, 12, *shape)).astype(np.float32)
    model = smooth_net(kind)
    z = {}
    for precision in ("full", "tensorfloat32", "bfloat16"):
        made = PRECISE[method](precision)
        z[precision] = ns.feature_map(model, x, made, key=KEY)(other)
    deviation = {}
    for precision, unit in (("tensorfloat32", 2.0**-11), ("bfloat16", 2.0**-8)):
        for name in ("nngp", "ntk"):
            close, exact = getattr(z[precision], name), np.asarray(getattr(z["full"], name))
            assert close.dtype == np.float32
            deviation[precision, name] = relative(close @ close.T, exact @ exact.T) / unit
            record_property(f"{precision} {name}", float(deviation[precision, name]))
    for value in deviation.values():
        # Two operands in each of two projections, of one or both factors of the kernel's value,
        # and this twice in a Gram matrix: 16 units if all roundings were largest and added up.
        assert 0 < value < 16
    for name in ("nngp", "ntk"):  # these units are 8 times as large
        assert 8 * deviation["bfloat16", name] > deviation["tensorfloat32", name]
