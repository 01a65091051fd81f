"""Residual features: their covariance is the residual kernel, and kernels are unbiased."""

import functools

import equinox as eqx
import jax
import numpy as np
import pytest
from architectures import NONLINEARITIES
from entering import entering, expanded
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods._directions import residual_directions
from ntk_sketch.methods._expansion import expansion
from ntk_sketch.methods._landmarks import landmarks_at
from ntk_sketch.methods._roots import inverse_root

pytestmark = pytest.mark.usefixtures("float64")

KEYS, LANDMARKS, HELD_OUT, WIDTH = 256, 4, 3, 6
EPS = float(np.finfo(float).eps)


def model(name):
    return stax.serial(stax.Dense(5, 1.0, 0.2), NONLINEARITIES[name]())


def points():
    return np.random.default_rng(3).normal(size=(LANDMARKS + HELD_OUT, 4))


@functools.cache
def features_at(name, index):
    """What enters the nonlinearity at `points()`, and landmarks there."""
    [(dual, features)] = entering(model(name), points())
    return dual, features, landmarks_at(dual, features, (np.array(index),))


@functools.cache
def drawn(name, index):
    """Features (keys, points, p) of both kernels, with the same landmarks under all keys."""
    dual, features, landmarks = features_at(name, index)
    rng, sizes = np.random.default_rng(5), (len(landmarks.z.nngp), len(landmarks.z.ntk))
    drawn = [residual_directions(*sizes, WIDTH, rng) for _ in range(KEYS)]
    apply = eqx.filter_jit(lambda made, features: expanded(made, dual, features))
    maps = [apply(expansion(landmarks, dual, *ws), features) for ws in drawn]
    return [np.array(z) for z in zip(*maps, strict=True)]


def gram(z):
    return np.einsum("kip,kjp->kij", z, z)


def deviations(draws, truth):
    """From the mean over keys, in standard errors (of at least rounding)."""
    standard_error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    return np.abs(draws.mean(0) - truth) / np.maximum(standard_error, 1e-12)


@pytest.mark.parametrize("name", others_slow(["Relu", "Gelu", "Sin"], "Relu"))
def test_unbiased(name, record_property):
    """At points that are no landmarks, of which there are fewer than dimensions."""
    kernel = model(name)[2](points(), None, ("nngp", "ntk"))
    for kind, z in zip(("nngp", "ntk"), drawn(name, tuple(range(LANDMARKS))), strict=True):
        truth = np.asarray(getattr(kernel, kind))
        worst = deviations(gram(z)[:, LANDMARKS:, LANDMARKS:], truth[LANDMARKS:, LANDMARKS:])
        record_property(f"{kind} deviations", float(worst.max()))
        assert worst.max() < 4
        # With landmarks the kernel is exact under every key: the residual is 0 there. Rounding is
        # that of the roots of a well-conditioned matrix.
        np.testing.assert_allclose(
            gram(z)[:, :, :LANDMARKS],
            np.broadcast_to(truth[:, :LANDMARKS], (KEYS, *truth[:, :LANDMARKS].shape)),
            atol=1e-9 * np.abs(truth).max(),
        )


@pytest.mark.slow
def test_unbiased_as_a_method():
    """Landmarks change with the key, too; and only without calibration is nothing rescaled."""
    net, x = model("Gelu"), points()
    held_out = np.random.default_rng(4).normal(size=(4, 4))
    method = ns.Nystroem(WIDTH, residual=0.7, calibrate=False)
    grams = []
    for key in jax.random.split(jax.random.key(7), 64):
        feature_map = ns.feature_map(net, x, method, key=key)
        z = feature_map(held_out)
        grams.append([np.asarray(z.nngp @ z.nngp.T), np.asarray(z.ntk @ z.ntk.T)])
    kernel = net[2](held_out, None, ("nngp", "ntk"))
    for draws, kind in zip(np.swapaxes(grams, 0, 1), ("nngp", "ntk"), strict=True):
        assert deviations(draws, np.asarray(getattr(kernel, kind))).max() < 4
    assert not rescales(feature_map)
    calibrated = ns.feature_map(net, x, ns.Nystroem(WIDTH, residual=0.7), key=jax.random.key(0))
    assert rescales(calibrated)


def rescales(feature_map):
    """Whether what its only nonlinearity's landmarks miss is given its exact norm."""
    [found] = [
        node.normalize
        for node in jax.tree.leaves(feature_map, is_leaf=lambda node: hasattr(node, "normalize"))
        if hasattr(node, "normalize")
    ]
    return found


TWICE = (0, 1, 1, 2, 0, 3)


@pytest.mark.parametrize(
    ("name", "index"),
    [("Relu", (0, 1, 2, 3)), ("Relu", TWICE), ("Sin", TWICE)],
)
def test_covariance(name, index, record_property):
    """`k - k B k`, of the residual features alone; with landmarks twice too."""
    _, _, landmarks = features_at(name, index)
    kernel = model(name)[2](points(), None, ("nngp", "ntk"))
    both = zip(("nngp", "ntk"), drawn(name, index), landmarks.gram, strict=True)
    for kind, z, at_landmarks in both:
        k = np.asarray(getattr(kernel, kind))
        root = inverse_root(at_landmarks)
        assert root.shape[1] == LANDMARKS  # copies are no directions of their own
        assert z.shape[-1] == LANDMARKS + WIDTH
        cross = k[:, list(index)] @ root
        left = k - cross @ cross.T
        worst = deviations(gram(z[..., LANDMARKS:]), left)[LANDMARKS:, LANDMARKS:]
        record_property(f"{kind} deviations", float(worst.max()))
        assert worst.max() < 4


@pytest.mark.parametrize("name", ["Relu", "Gelu", "Sin"])
@pytest.mark.parametrize("copies", [1, 3])
def test_projection_of_a_pseudo_inverse(name, copies):
    """`B K B = B`, so that (I - K B) K (I - K B)ᵀ = K - K B K between any points."""
    dual, features, landmarks = features_at(name, tuple(range(LANDMARKS)) * copies)
    index = np.tile(np.arange(LANDMARKS), copies)
    everywhere = landmarks_at(dual, features, (np.arange(LANDMARKS + HELD_OUT),))
    for k_zz, k in (
        (landmarks.gram.nngp, everywhere.gram.nngp),
        (landmarks.gram.ntk, everywhere.gram.ntk),
    ):
        k_zz, k = np.asarray(k_zz), np.asarray(k)
        root = inverse_root(k_zz)
        assert root.shape == (LANDMARKS * copies, LANDMARKS)
        b = root @ root.T
        kept = np.linalg.eigvalsh(k_zz)[-LANDMARKS:]
        # Rounding of the eigenvectors and of three products, times the condition number.
        rounding = 10 * len(k_zz) * EPS * kept[-1] / kept[0]
        assert np.linalg.norm(b @ k_zz @ b - b) <= rounding * np.linalg.norm(b)
        missed = np.eye(len(k)) - _embedded(k[:, index] @ b, index, len(k))
        expected = k - k[:, index] @ b @ k[index]
        error = np.linalg.norm(missed @ k @ missed.T - expected)
        assert np.isfinite(error)
        assert error <= rounding * np.linalg.norm(k)


def _embedded(columns, index, size):
    """Weights on landmarks as weights on all points: landmarks that are one point add up."""
    out = np.zeros((len(columns), size))
    for column, at in zip(columns.T, index, strict=True):
        out[:, at] += column
    return out


def test_kernel_without_a_network():
    """Landmarks alone need no network; random functions do."""
    net = stax.serial(stax.Dense(3), stax.ExpNormalized(), stax.Dense(1))
    key = jax.random.key(0)
    assert ns.feature_map(net, points(), ns.Nystroem(4, residual=0), key=key)(points()).ntk.any()
    with pytest.raises(NotImplementedError, match=r"has no finite network.*without residual"):
        ns.feature_map(net, points(), ns.Nystroem(4, residual=0.5), key=key)


def test_share_of_the_width():
    """`floor(residual · width)` random features, the rest landmarks; none of them by default, or
    if all positions can be landmarks.
    """
    x = np.random.default_rng(0).normal(size=(30, 4))
    shares = ((None, 10, 0), (0.0, 7, 0), (0.5, 7, 3), (0.9, 10, 9), (0.05, 10, 0), (0.5, 30, 0))
    for residual, width, count in shares:
        feature_map = ns.feature_map(
            model("Relu"), x, ns.Nystroem(width, residual=residual), key=jax.random.key(0)
        )
        made = feature_map.transform
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(made)]
        assert (width - count,) in shapes  # the variances of landmarks
        assert feature_map(x).nngp.shape == (30, width)


def test_exact_norms():
    """Rescaled, every feature vector has the kernel's diagonal, landmarks or not."""
    dual, features, landmarks = features_at("Gelu", tuple(range(LANDMARKS)))
    sizes = len(landmarks.z.nngp), len(landmarks.z.ntk)
    w, s = residual_directions(*sizes, WIDTH, np.random.default_rng(0))
    kernel = model("Gelu")[2](points(), None, ("nngp", "ntk"))
    plain = expanded(expansion(landmarks, dual, w, s), dual, features)
    rescaled = expanded(expansion(landmarks, dual, w, s, normalize=True), dual, features)
    for kind, before, after in zip(("nngp", "ntk"), plain, rescaled, strict=True):
        diagonal = np.diag(getattr(kernel, kind))
        np.testing.assert_allclose(np.sum(np.square(after), axis=-1), diagonal, rtol=1e-9)
        assert not np.allclose(np.sum(np.square(before), axis=-1), diagonal, rtol=1e-2)
        # Each position's random features keep their direction.
        before, after = (np.asarray(z)[LANDMARKS:, LANDMARKS:] for z in (before, after))
        ratio = after / before
        np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones_like(ratio), rtol=1e-9)


def test_exact_norms_with_dropout():
    """What features estimate is the kernel of two passes, whose masks are independent."""
    x = np.random.default_rng(0).normal(size=(12, 4))
    first = stax.with_method(stax.Erf(), ns.Exact())
    dense = stax.Dense(5, 1.0, 0.2)
    net = stax.serial(dense, first, stax.Dropout(0.6), dense, stax.Gelu())
    feature_map = ns.feature_map(net, x, ns.Nystroem(8, residual=0.5), key=jax.random.key(0))
    z = feature_map(x)
    for features, diagonal in zip((z.nngp, z.ntk), feature_map.diagonals(x), strict=True):
        np.testing.assert_allclose(np.sum(np.square(features), axis=-1), diagonal, rtol=1e-9)
