"""Landmarks projected on principal directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods._expansion import LandmarkExpansion

KEY = jax.random.key(0)
KERNELS = ("nngp", "ntk")


def net(b_std=0.1):
    def conv():
        return stax.Conv(1, (3, 3), padding="SAME", b_std=b_std)

    return stax.serial(
        *(conv(), stax.Relu(), stax.AvgPool((2, 2), (2, 2)), conv(), stax.Relu()),
        *(stax.Flatten(), stax.Dense(1)),
    )


def images(n=24, dimensions=None, seed=0):
    """Of 10x10 pixels; in a space of so many dimensions if any."""
    rng = np.random.default_rng(seed)
    if dimensions is None:
        x = rng.normal(size=(n, 10, 10, 2))
        return (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 2
    basis = np.random.default_rng(7).normal(size=(dimensions, 1, 1, 2))
    return np.einsum("nhwd,dxyc->nhwc", rng.normal(size=(n, 10, 10, dimensions)), basis)


def made(x, rank=None, width=(16, 48), **options):
    method = ns.Nystroem(width, rank=rank, residual=0.0, **options)
    return ns.feature_map(net(), x, method, key=KEY)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("calibrate", [pytest.param(False, marks=pytest.mark.slow), True])
def test_all_directions_of_the_vectors_change_nothing(calibrate):
    """Patches of one channel twice span half of their space: the other half may go."""
    x = images(dimensions=1)
    options = {"calibrate": calibrate, "width": (32, 48)}
    whole, cut = made(x, **options), made(x, (10, None), **options)
    filters = [t.expansion.filters for t in _expansions(cut)]
    assert filters[0].shape == (19, 10)  # nine pixels, twice, and a bias
    for name in KERNELS:
        a, b = (getattr(m(x), name) for m in (whole, cut))
        np.testing.assert_allclose(a @ a.T, b @ b.T, rtol=1e-7, atol=1e-9)
    # and no part of a cost that is not saved
    assert made(x, (19, None), **options).fingerprint.arrays == whole.fingerprint.arrays


def _expansions(feature_map):
    def is_one(node):
        return hasattr(node, "expansion") and isinstance(node.expansion, LandmarkExpansion)

    return [t for t in jax.tree.leaves(feature_map.transform, is_leaf=is_one) if is_one(t)]


@pytest.mark.usefixtures("float64")
def test_features_are_those_of_projected_landmarks():
    """By the definition, for one ReLU and every example a landmark."""
    rng = np.random.default_rng(0)
    x, other = (rng.normal(size=(n, 20)) * np.arange(1, 21) ** -0.5 for n in (30, 12))
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    method = ns.Nystroem(30, rank=8, residual=0.0, calibrate=False)
    z = np.asarray(ns.feature_map(model, x, method, key=KEY)(other).nngp)

    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    u = np.linalg.svd(unit)[2][:8].T  # principal directions
    landmarks = x @ u @ u.T

    def relu(a, b, qa, qb):  # arc-cosine kernel of order one, halved, with norms of its own
        scale = np.sqrt(qa[:, None] * qb[None])
        c = np.clip(a @ b.T / 20 / scale, -1, 1)
        return scale * (np.sqrt(1 - c**2) + c * (np.pi - np.arccos(c))) / (2 * np.pi)

    q, q_other = (np.mean(a**2, axis=1) for a in (x, other))
    gram = relu(landmarks, landmarks, q, q)
    np.fill_diagonal(gram, q / 2)  # exact variances
    values = relu(other, landmarks, q_other, q)
    np.testing.assert_allclose(z @ z.T, values @ np.linalg.solve(gram, values.T), rtol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_error_falls_to_that_of_all_directions():
    x, other = images(), images(16, seed=1)
    exact = net()[2](other, None, KERNELS)

    def errors(rank):
        found = made(x, rank)(other)
        pairs = [(np.asarray(getattr(found, k)), getattr(exact, k)) for k in KERNELS]
        return np.array([np.linalg.norm(z @ z.T - k) / np.linalg.norm(k) for z, k in pairs])

    few, some, most, every = map(errors, (4, 16, 32, None))
    assert np.all(few > some)
    assert np.all(some > 0.95 * most)
    np.testing.assert_allclose(most, every, rtol=0.3)


@pytest.mark.usefixtures("float64")
def test_fewer_products_and_roots_in_the_basis():
    x = images()
    whole, cut = made(x).cost(x.shape).flops, made(x, (None, 16)).cost(x.shape).flops
    assert cut < whole
    (first, second) = (t.expansion for t in _expansions(made(x, (None, 16))))
    assert first.mixing is None
    assert second.mixing.shape == (16, 48)
    assert second.filters.shape == (9 * 16 + 1, 16)  # kernel values of 16 landmarks, and a bias
    assert second.width == 48


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("precision", [pytest.param("full", marks=pytest.mark.slow), "bfloat16"])
def test_the_kernel_is_positive_and_below_its_diagonal(precision):
    x = images()
    feature_map = made(x, 12, calibrate=False, precision=precision)
    z = feature_map(x)
    exact = net()[2](x, None, KERNELS)
    for kind in KERNELS:
        norms = np.sum(np.asarray(getattr(z, kind)) ** 2, axis=1)
        assert np.all(norms <= (1 + 1e-2) * np.diag(getattr(exact, kind)))


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_derivatives():
    """By the network's numbers and by inputs, where nothing is lost: those of all directions."""
    x = images(dimensions=1)

    def total(W_std, x, rank):
        def conv():
            return stax.Conv(1, (3, 3), W_std=W_std, padding="SAME", b_std=0.1)

        model = stax.serial(conv(), stax.Relu(), stax.Flatten(), stax.Dense(1))
        method = ns.Nystroem(32, residual=0.0, rank=rank, calibrate=False)
        z = ns.feature_map(model, images(dimensions=1), method, key=KEY)(x).ntk
        assert z is not None
        return jnp.sum((z[:4] @ z[4:].T) ** 2)

    for argument in (0, 1):
        one, other = (jax.grad(total, argument)(1.3, jnp.asarray(x), rank) for rank in (None, 10))
        scale = np.abs(one).max()
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6 * scale)


def test_a_schedule_is_one_for_each():
    x = images().astype(np.float32)
    one, each = made(x, 16), made(x, (16, 16))
    assert one.fingerprint.arrays == each.fingerprint.arrays
    with pytest.raises(ValueError, match="nonlinearities"):
        made(x, (16, 16, 16))


@pytest.mark.parametrize("rank", [0, -1, 1.5, "all", (4, 0)])
def test_ranks_that_are_none(rank):
    with pytest.raises((TypeError, ValueError), match="rank"):
        ns.Nystroem(8, rank=rank)


def test_residual_features_need_all_directions():
    with pytest.raises(ValueError, match="leave out one of the two"):
        ns.Nystroem(8, rank=4, residual=0.5)
    with pytest.raises(ValueError, match="landmarks are examples there"):
        ns.Nystroem(8, rank=4, scope="network")
    x = images().astype(np.float32)  # and before a Flatten there are none by themselves
    method = ns.Nystroem(32, rank=12)
    for node in _expansions(ns.feature_map(net(), x, method, key=KEY)):
        assert node.expansion.function is None
