"""`Nystroem` in float32: awkward samples, dependent landmarks, and coarser projections."""

import functools

import equinox as eqx
import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from entering import entering, expanded
from jax import numpy as jnp
from marks import crossed

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods._expansion import expansion
from ntk_sketch.methods._landmarks import landmarks_at, promoted
from ntk_sketch.methods._roots import LARGEST_NOISE, inverse_root
from ntk_sketch.methods._survey import surveyed
from ntk_sketch.numerics._precision import float64

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


@pytest.mark.default_flags
@pytest.mark.parametrize(
    ("residual", "bias"), [pytest.param(0.0, 0.1, marks=pytest.mark.slow), (0.5, None)]
)
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

    assert np.isfinite(jax.jit(jax.grad(value))(x)).all()


@pytest.mark.default_flags
@pytest.mark.parametrize("name", ["Relu", "Gelu"])
def test_diagonal_where_landmarks_are_dependent(name, record_property):
    """In float32, with a Gram matrix of numerically low rank, variances at landmarks stay."""
    conv = stax.Conv(4, (3, 3), b_std=0.1, padding="SAME")
    model = stax.serial(conv, NONLINEARITIES[name](), stax.GlobalAvgPool())
    [(dual, features)] = entering(model, awkward_images()[:6, :5, :5])
    usable = surveyed(dual, features).usable
    rng = np.random.default_rng(0)
    order = rng.permutation(usable)
    chosen, others = (np.unravel_index(part, (6, 5, 5)) for part in (order[:64], order[64:]))
    landmarks = landmarks_at(dual, features, chosen, others)
    both = eqx.filter_jit(expanded)(expansion(landmarks, dual), dual, features)
    for kind, z, gram in zip(("nngp", "ntk"), both, landmarks.gram, strict=True):
        # Where a cut at m eps of the largest eigenvalue would leave fewer.
        values = np.linalg.eigvalsh(gram)
        assert kind == "ntk" or values[0] < 64 * np.finfo(np.float32).eps * values[-1]
        diagonal = np.sum(np.asarray(z, float)[chosen] ** 2, axis=-1)
        exact = np.diag(gram)
        worst = np.max(np.abs(diagonal - exact) / exact)
        record_property(f"relative error, {kind}", float(worst))
        # Rounding of a kernel value, eps, over the root of an eigenvalue of m eps, in each of at
        # most m directions.
        assert worst < np.sqrt(64 * np.finfo(np.float32).eps)


def test_bfloat16_inputs():
    """Rounding eps of kernel values, over the root of the smallest eigenvalue kept, m eps."""
    x = awkward_images()[6:, 0].reshape(10, -1)
    model = stax.serial(stax.Dense(4, b_std=0.3), stax.Relu(), stax.Dense(1))
    exact = np.asarray(model[2](x, None, "ntk"))
    coarse = jnp.asarray(x, jnp.bfloat16)
    z = ns.feature_map(model, coarse, ns.Nystroem(10), key=KEY)(coarse).ntk.astype(np.float32)
    assert relative(z @ z.T, exact) < np.sqrt(10 * float(jnp.finfo(jnp.bfloat16).eps))


# ------------------------------------------------------------------ rank


def line(n):
    """Points on a line, far from 0: cosines within 1e-6 of one, and a kernel of small eigenvalues
    that a regression on oscillations needs.
    """
    return np.linspace(-31, 31, n)[:, None]


def relu_net(layers):
    parts = [stax.Dense(1, 1.5, 0.5), stax.Relu()] * layers
    return stax.serial(*parts, stax.Dense(1, 1.5, 0.5))


@pytest.mark.parametrize("name", ["ElementwiseNumerical", "Polynomial", "Gelu"])
def test_noise_is_that_of_the_operations_of_the_map(name):
    """Bit for bit, though landmarks are computed where JAX has 64 bits."""
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    [(dual, features)] = entering(stax.serial(stax.Dense(1), NONLINEARITIES[name]()), x)
    z = landmarks_at(dual, features, (np.arange(9),), (np.arange(9, 30),))

    @eqx.filter_jit
    def values(dual, x, z, q):
        vectors = features.nngp_vectors().at((np.arange(9, 30),))
        return dual(jnp.matmul(vectors, z, precision="highest"), x, q)[0]

    variances = features.variances.diagonal(features.variances.same)[9:30]
    found = values(dual, variances[:, None], z.z.nngp, z.q[None, :])
    np.testing.assert_array_equal(z.seen.nngp.applied, found)


@pytest.mark.default_flags
def test_noise_of_each_feature(record_property):
    """What the expansion says of its features is their error at positions never seen."""
    [(dual, features)] = entering(relu_net(1), line(600).astype(np.float32))
    order = np.random.default_rng(0).permutation(600)
    chosen, seen, new = order[:64], order[64:320], order[320:]
    made = expansion(landmarks_at(dual, features, (chosen,), (seen,)), dual)
    with float64():
        accurate = eqx.filter_jit(expanded)(promoted(made), promoted(dual), promoted(features))
    for roots, z, z64 in zip(
        (made.roots, made.roots_ntk),
        eqx.filter_jit(expanded)(made, dual, features),
        accurate,
        strict=True,
    ):
        assert 8 < len(roots.noise) < 64  # some are kept, and some are noise
        close, exact = (np.asarray(a, np.float64)[new] for a in (z, z64))
        noise = np.linalg.norm(close - exact, axis=0) / np.linalg.norm(exact, axis=0)
        record_property("largest", float(noise.max()))
        # Means of about 256 squares, most of which some few positions near a kink contribute.
        assert np.all(noise < 3 * LARGEST_NOISE)
        ratio = noise[roots.noise > 0.01] / roots.noise[roots.noise > 0.01]
        assert np.all((ratio > 1 / 3) & (ratio < 3))


@pytest.mark.default_flags
def test_wide_one_dimensional_inputs(record_property):
    """A regression on two sines in float32: its training error falls as the width grows, to less
    than a tenth of the variance. (NT's own kernel in float32 has negative eigenvalues here.)
    """
    x = line(400)
    y = np.sin(x) + np.sin(2.1 * x)

    def error(width):
        method, sample = ns.Nystroem(width), x.astype(np.float32)
        feature_map = ns.feature_map(relu_net(2), sample, method, key=KEY, get="ntk")
        z = np.asarray(feature_map(sample).ntk, np.float64)
        kernel = z @ z.T
        shift = 1e-5 * np.trace(kernel) / len(x) * np.eye(len(x))
        fitted = kernel @ np.linalg.solve(kernel + shift, y)
        return np.mean((fitted - y) ** 2) / np.mean(y**2)

    errors = [error(width) for width in (64, 128, 256, 400)]
    record_property("errors", [float(e) for e in errors])
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.5 * errors[1]
    # With 256 landmarks rounding is reached: it decides, from machine to machine, what 400 add.
    assert max(errors[2:]) < 0.1


@pytest.mark.default_flags
def test_exact_in_float32():
    """The diagonal too, on images of noise; no position is a landmark of others here."""
    x = np.random.default_rng(0).normal(size=(4, 7, 7, 1)).astype(np.float32)
    conv = functools.partial(stax.Conv, 8, (3, 3), W_std=2**0.5, b_std=0.1, padding="SAME")
    model = stax.serial(conv(), stax.Relu(), conv(), stax.Relu(), stax.Flatten(), stax.Dense(1))
    kernel = ns.feature_map(model, x, ns.Exact(), key=KEY).kernel_fn(x)
    with float64():
        wanted = model[2](x.astype(np.float64), None, ("nngp", "ntk"))
    for kind in ("nngp", "ntk"):
        close, exact = np.asarray(getattr(kernel, kind)), np.asarray(getattr(wanted, kind))
        assert np.max(np.abs(np.diag(close) / np.diag(exact) - 1)) < 1e-4
        assert relative(close, exact) < 1e-4


def test_exact_leaves_out_what_is_noise():
    [(dual, features)] = entering(relu_net(1), line(64).astype(np.float32))
    made = ns.Exact().expand(dual, features, key=KEY)
    for roots in (made.roots, made.roots_ntk):
        assert len(roots.noise) == roots.landmarks.shape[1] < 64
        assert roots.noise.max() <= LARGEST_NOISE


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


@pytest.mark.parametrize(
    ("kind", "method"), crossed(["dense", "conv"], PRECISE, row="dense", column="landmarks")
)
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


@pytest.mark.default_flags
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse_root_of_a_singular_matrix(dtype):
    """As many columns as the rank, and the pseudo-inverse."""
    a = np.random.default_rng(0).normal(size=(20, 5))
    root = inverse_root((a @ a.T).astype(dtype))
    assert root.shape == (20, 5)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(root @ root.T, np.linalg.pinv(a @ a.T), atol=100 * eps)


@pytest.mark.default_flags
def test_landmarks_miss_nothing_of_themselves():
    """What residual features say there is rounding, whose root is not: it is left out."""
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    net = stax.serial(stax.Dense(1, 1.5, 0.1), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(net, x, ns.Nystroem(12, residual=0.5), key=jax.random.key(0))
    landmarks = feature_map.is_landmark(x)
    assert landmarks.sum() == 6
    for kernel, name in zip(feature_map.kernel_fn(x), ("nngp", "ntk"), strict=True):
        exact = net[2](x, None, name)
        error = np.abs(np.asarray(kernel) - exact) / np.max(exact)
        assert np.mean(error[landmarks]) < 1e-6
        assert np.median(error[~landmarks][:, ~landmarks]) > 1e-3
