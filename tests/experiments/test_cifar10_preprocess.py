"""Preprocessing against a naive float64 oracle written from the definitions."""

import numpy as np
import pytest

from experiments._common._preprocess import BATCH, Steps, fit


def photographs(count, seed=0, shape=(4, 4, 3)):
    """Random images with correlated pixels and unlike channels."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((int(np.prod(shape)),) * 2)
    x = rng.standard_normal((count, mix.shape[0])) @ mix
    x = x.reshape(count, *shape) * [10, 15, 25] + [100, 120, 140]
    return np.clip(x, 0, 255).astype(np.uint8)


def oracle(train, test, steps):
    train, test = ([image.astype(np.float64) for image in part] for part in (train, test))
    if steps.standardise:
        for channel in range(3):
            values = np.array([image[..., channel] for image in train])
            mean, std = values.mean(), values.std()
            for image in train + test:
                image[..., channel] = (image[..., channel] - mean) / std
    if steps.layer_norm:
        for image in train + test:
            image -= image.mean()
            image /= np.sqrt((image**2).sum())
    if steps.zca_reg is None:
        return np.array(test)
    second = sum(np.outer(image, image) for image in train) / len(train)
    s, u = np.linalg.eigh(second)
    whiten = u @ np.diag((s + steps.zca_reg * np.mean(s)) ** -0.5) @ u.T
    return np.array([(image.ravel() @ whiten).reshape(image.shape) for image in test])


@pytest.mark.parametrize(
    "steps",
    [
        Steps(),
        Steps(zca_reg=1e-3),
        Steps(zca_reg=None),
        Steps(standardise=False),
        Steps(layer_norm=False, zca_reg=0.5),
        Steps(standardise=False, layer_norm=False, zca_reg=None),
    ],
)
def test_agrees_with_the_definition(steps):
    train, test = photographs(300), photographs(20, seed=1)
    out = fit(train, steps)(test)
    assert out.dtype == np.float32
    assert out.shape == test.shape
    expected = oracle(train, test, steps)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())


def test_batches_do_not_matter():
    train = photographs(BATCH + 300, shape=(2, 2, 3))
    expected = oracle(train, train[-5:], Steps())
    np.testing.assert_allclose(fit(train, Steps())(train)[-5:], expected, rtol=1e-4, atol=1e-5)


def test_zca_without_regularisation_whitens():
    train = photographs(500)
    rows = fit(train, Steps(layer_norm=False, zca_reg=0.0))(train).reshape(500, -1)
    second = rows.T.astype(np.float64) @ rows / 500
    np.testing.assert_allclose(second, np.eye(48), atol=1e-4)


@pytest.mark.parametrize("images", [1, 10, 47])
def test_fewer_images_than_pixels(images):
    train, test = photographs(images), photographs(4, 1)
    out = fit(train, Steps())(test)
    expected = oracle(train, test, Steps())
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())


def test_directions_without_variance_are_left_out():
    train = photographs(10)
    steps = Steps(zca_reg=0.0)
    rows = fit(train, steps)(train).reshape(10, -1).astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T / 10, np.eye(10), atol=1e-5)
    assert np.isfinite(fit(train, steps)(photographs(4, 1))).all()


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("steps", [Steps(), Steps(standardise=False), Steps(zca_reg=0.0)])
def test_constant_images_stay_finite(value, steps):
    train = photographs(30)
    train[3] = value
    flat = np.full((2, 4, 4, 3), value, np.uint8)
    for images in (train, flat):
        assert np.isfinite(fit(train, steps)(images)).all()
        assert np.isfinite(fit(flat, steps)(images)).all()


def test_no_images():
    with pytest.raises(ValueError, match="at least one training image"):
        fit(np.empty((0, 4, 4, 3), np.uint8), Steps())
