"""Calibration: landmark features fitted to kernel values at other positions."""

import functools

import jax
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import _calibration
from ntk_sketch.methods._calibration import _transform

pytestmark = pytest.mark.usefixtures("float64")

KINDS = ("nngp", "ntk")


def model():
    conv = functools.partial(stax.Conv, 4, (3, 3), W_std=1.4, b_std=0.1, padding="SAME")
    return stax.serial(
        conv(),
        stax.Relu(),
        stax.AvgPool((2, 2), (2, 2)),
        conv(),
        stax.Relu(),
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )


def images(n, seed):
    """Sums of three random waves in each of two channels."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 8)
    k, phase = 4 * rng.normal(size=(n, 2, 3, 2)), rng.uniform(0, 6.28, (n, 2, 3))
    waves = np.einsum("ncwx,i->ncwi", k[..., :1], t)[..., None]
    waves = waves + np.einsum("ncwx,i->ncwi", k[..., 1:], t)[..., None, :]
    return np.moveaxis(np.cos(waves + phase[..., None, None]).sum(2), 1, -1)


@functools.cache
def truth():
    return jax.jit(lambda x: model()[2](x, None, KINDS))(images(16, 1))


@functools.cache
def errors(calibrate, residual):
    """Relative, on other images than the sample's: the mean over three keys, for both kernels."""
    net, x = model(), images(24, 0)
    found = []
    for seed in range(3):
        method = ns.Nystroem(16, residual=residual, sampling="uniform", calibrate=calibrate)
        feature_map = ns.feature_map(net, x, method, key=jax.random.key(seed))
        z = feature_map(images(16, 1))
        assert z.nngp.shape == (16, 16)
        assert z.ntk.shape == (16, 32)  # the last Dense adds the NNGP part
        found.append(
            [
                np.linalg.norm(getattr(z, kind) @ getattr(z, kind).T - getattr(truth(), kind))
                / np.linalg.norm(getattr(truth(), kind))
                for kind in KINDS
            ]
        )
    return np.mean(found, axis=0)


@pytest.mark.parametrize("residual", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
@pytest.mark.slow
def test_smaller_error(residual, record_property):
    plain, fitted = errors(False, residual), errors(True, residual)
    for kind, before, after in zip(KINDS, plain, fitted, strict=True):
        record_property(f"{kind} plain", float(before))
        record_property(f"{kind} calibrated", float(after))
    assert np.all(fitted < plain)


def test_is_the_default():
    assert ns.Nystroem(4).calibrate
    assert not ns.Nystroem(4, calibrate=False).calibrate


@pytest.mark.parametrize("n", [24, 76])
def test_unchanged_where_positions_are_few(n):
    """Four others for each of eight features are wanted on either side, and the map needs eight."""
    x = np.random.default_rng(0).normal(size=(n, 4))
    net = stax.serial(stax.Dense(3, b_std=0.1), stax.Relu(), stax.Dense(1))
    fitted, plain = (
        ns.feature_map(
            net, x, ns.Nystroem(8, sampling="uniform", calibrate=calibrate), key=jax.random.key(0)
        )(x)
        for calibrate in (True, False)
    )
    assert fitted.ntk.shape == plain.ntk.shape
    assert np.array_equal(fitted.ntk, plain.ntk) == (n == 24)


def test_halves_are_of_different_examples(monkeypatch):
    """Not only of different positions, which in one example are much alike."""
    inner, seen = _calibration._features_and_kernels, []

    def watched(expansion, dual, features, index):
        seen.append(index[0])
        return inner(expansion, dual, features, index)

    monkeypatch.setattr(_calibration, "_features_and_kernels", watched)
    net = stax.serial(stax.Conv(1, (2,), padding="SAME"), stax.Relu(), stax.GlobalAvgPool())
    x = np.random.default_rng(0).normal(size=(40, 6, 2))
    ns.feature_map(net, x, ns.Nystroem(8, sampling="uniform"), key=jax.random.key(0))
    ((first, second),) = (np.split(examples, 2) for examples in seen)
    assert not set(first) & set(second)


# ------------------------------------------------------------------ the fit itself


def test_fit_undoes_a_transformation():
    """Kernel values of features `z T` are fitted by `R` with `R Rᵀ = T Tᵀ`, up to the ridge."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500, 5))
    t = np.eye(5) + 0.3 * rng.normal(size=(5, 5))
    root = _transform(a, b, a @ t @ t.T @ b.T, ridge=1e-4)
    np.testing.assert_allclose(root, root.T, atol=1e-14)
    # Each side shrinks the correction, not the kernel, by about the ridge.
    change = np.linalg.norm(t @ t.T - np.eye(5))
    assert np.linalg.norm(root @ root - t @ t.T) < 1e-3 * change
    np.testing.assert_allclose(_transform(a, b, a @ b.T, ridge=1e-4), np.eye(5), atol=1e-12)


def test_the_fit_is_the_symmetric_part_of_the_minimiser():
    """Over all matrices. The minimiser over symmetric ones solves a Sylvester equation."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 4)) * [3, 1, 1, 1], rng.normal(size=(30, 4)) * [1, 1, 1, 3]
    missed = a @ (0.1 * rng.normal(size=(4, 4))) @ b.T
    every = np.linalg.pinv(a) @ missed @ np.linalg.pinv(b).T
    root = _transform(a, b, a @ b.T + missed, ridge=1e-12)
    np.testing.assert_allclose(root @ root - np.eye(4), (every + every.T) / 2, atol=1e-10)

    gram_a, gram_b, right = a.T @ a, b.T @ b, a.T @ missed @ b
    system = np.kron(gram_a, gram_b) + np.kron(gram_b, gram_a)
    symmetric = np.linalg.solve(system, (right + right.T).ravel()).reshape(4, 4)
    assert np.linalg.norm(symmetric - (every + every.T) / 2) > 0.1 * np.linalg.norm(symmetric)


def test_derivative_of_the_fit():
    """Of a root whose eigenvalues are apart."""
    rng = np.random.default_rng(0)
    a, b, change = (rng.normal(size=(30, 3)) for _ in range(3))
    kernel = a @ np.diag([1.0, 2.0, 5.0]) @ b.T

    def fitted(t):
        return _transform(a + t * change, b - t * change, kernel, ridge=1e-3)

    _, found = jax.jvp(fitted, (0.0,), (1.0,))
    np.testing.assert_allclose(found, (fitted(1e-5) - fitted(-1e-5)) / 2e-5, atol=1e-7)


def test_strong_regularisation_changes_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500, 5))
    np.testing.assert_allclose(_transform(a, b, 2 * a @ b.T, ridge=1e12), np.eye(5), atol=1e-12)


def test_negative_eigenvalues_become_zero():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500, 5))
    sign = np.diag([1.0, 1, 1, -1, -1])
    root = _transform(a, b, a @ sign @ b.T, ridge=1e-6)
    np.testing.assert_allclose(root @ root, np.diag([1.0, 1, 1, 0, 0]), atol=1e-5)


def test_directions_without_features():
    """A feature that is 0 everywhere stays as it is."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500, 5))
    a[:, 4] = b[:, 4] = 0.0
    root = _transform(a, b, 4 * a @ b.T, ridge=1e-4)
    assert np.isfinite(root).all()
    np.testing.assert_allclose(np.diag(root), [2, 2, 2, 2, 1], rtol=1e-3)
    assert np.array_equal(_transform(0 * a, 0 * b, 0 * a @ b.T, ridge=1e-4), np.eye(5))


# ------------------------------------------------------------------ order of the sample


def kinked():
    return stax.serial(stax.Dense(1, 1.5, 0.5), stax.Relu(), stax.Dense(1))


def blobs():
    """1,500 examples of three classes, sorted by class."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(3, 6))
    return np.concatenate([c + rng.normal(size=(500, 6)) for c in centres])


@functools.cache
def mean_error(order, calibrate=True):
    """Of the NTK on 200 examples of all classes, over twelve keys."""
    x = ORDERS[order](blobs())
    other = blobs()[::7][:200]
    exact = np.asarray(kinked()[2](other, None, "ntk"))
    method = ns.Nystroem(16, sampling="uniform", calibrate=calibrate)
    errors = []
    for seed in range(12):
        feature_map = ns.feature_map(kinked(), x, method, key=jax.random.key(seed), get="ntk")
        z = feature_map(other).ntk
        errors.append(np.linalg.norm(z @ z.T - exact) / np.linalg.norm(exact))
    return np.mean(errors)


ORDERS = {
    "shuffled": lambda x: np.random.default_rng(1).permutation(x),
    "by class": lambda x: x,
    "by one coordinate": lambda x: x[np.argsort(x[:, 0])],
    "many copies of one": lambda x: np.concatenate([np.repeat(x[:1], 3000, axis=0), x]),
    "each twice": lambda x: np.repeat(x, 2, axis=0),
}


@pytest.mark.parametrize(
    "order", others_slow([order for order in ORDERS if order != "shuffled"], "by class")
)
def test_order_of_the_sample(order, record_property):
    """The gain is that of a shuffled sample, in whatever order it comes."""
    shuffled, plain = mean_error("shuffled"), mean_error("shuffled", calibrate=False)
    found = mean_error(order)
    record_property("shuffled", float(shuffled))
    record_property("in order", float(found))
    record_property("not calibrated", float(plain))
    assert shuffled < 0.7 * plain
    assert found < 1.25 * shuffled
