"""Maps that preprocess their examples, and maps averaged over transforms of them."""

import itertools
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.maps import mirrored
from ntk_sketch.streaming import stream

KEY = jax.random.key(0)


class Scaling(eqx.Module):
    """Two channels from one: the example scaled, and its square."""

    scale: jax.Array

    def __call__(self, x):
        return jnp.concatenate([self.scale * x, x**2], axis=-1)


def turned(x):
    return x[:, ::-1]


def model():
    return stax.serial(
        stax.Conv(1, (3, 3), padding="SAME", b_std=0.1),
        stax.Relu(),
        stax.AvgPool((2, 2), (2, 2)),
        stax.Conv(1, (3, 3), padding="SAME"),
        stax.Relu(),
        stax.Flatten(),
        stax.Dense(1),
    )


def images(n=6, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(n, 4, 4, 1)).astype(dtype)


def scaling(dtype=np.float32):
    return Scaling(np.asarray(1.5, dtype))


def made(method=None, **options):
    method = ns.Nystroem(12, residual=0.0) if method is None else method
    return ns.feature_map(model(), images(), method, key=KEY, **options)


def test_preprocessing_is_part_of_the_map():
    """Features, kernels and diagonals of the examples are those of the inputs made of them."""
    x, ready = images(), np.asarray(scaling()(images()))
    whole = made(preprocess=scaling())
    plain = ns.feature_map(model(), ready, ns.Nystroem(12, residual=0.0), key=KEY)
    assert whole.input_shape == (4, 4, 1)
    np.testing.assert_allclose(whole(x).ntk, plain(ready).ntk, rtol=1e-4, atol=1e-5)
    for found, right in zip(whole.diagonals(x), plain.diagonals(ready), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5)
    np.testing.assert_allclose(
        whole.exact_kernel_fn(x, None, "ntk"), plain.exact_kernel_fn(ready, None, "ntk"), rtol=1e-5
    )
    np.testing.assert_array_equal(whole.is_landmark(x), plain.is_landmark(ready))
    assert whole.is_landmark(x).any()
    assert not whole.is_landmark(x + 1).any()


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_averaged_features_have_the_averaged_kernel():
    """Landmarks at every position of a sample that is closed under the transforms: exact."""
    x = images(3, np.float64)
    sample = np.concatenate([x, x[:, :, ::-1], x[:, ::-1], x[:, ::-1, ::-1]])
    plain = ns.feature_map(model(), sample, ns.Exact(), key=KEY)
    both = plain.averaged([mirrored, turned, lambda x: mirrored(turned(x))])
    found, kernel_fn = both.kernel_fn(x), plain.exact_kernel_fn
    views = np.split(sample, 4)
    for name in ("nngp", "ntk"):
        pairs = [kernel_fn(a, b, name) for a, b in itertools.product(views, views)]
        np.testing.assert_allclose(getattr(found, name), np.mean(pairs, axis=0), rtol=1e-8)
    exact = both.exact_kernel_fn(x, None, ("nngp", "ntk"))
    np.testing.assert_allclose(found.ntk, exact.ntk, rtol=1e-8)
    np.testing.assert_allclose(both(x).ntk, both(turned(x)).ntk, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_averaging_is_augmentation():
    """Regression with the averaged kernel is that on all transforms of all examples, at twice the
    absolute regulariser: solved here as an augmented kernel regression.
    """
    x, y = images(5, np.float64), np.random.default_rng(1).normal(size=(5, 1))
    twice, targets = np.concatenate([x, mirrored(x)]), np.concatenate([y, y])
    plain = ns.feature_map(model(), twice, ns.Exact(), key=KEY, get="ntk")
    gram = plain.exact_kernel_fn(twice, None, "ntk") + 2 * 1e-2 * np.eye(10)
    solution = ns.ridge(plain.averaged(mirrored), x, y, diag_reg=1e-2, diag_reg_absolute_scale=True)
    expected = plain.exact_kernel_fn(x, twice, "ntk") @ np.linalg.solve(gram, targets)
    np.testing.assert_allclose(solution.predict(x), np.asarray(expected), rtol=1e-6)


def test_averaged_maps_are_maps():
    """They stream, choose batches, count their cost, are written down and told apart."""
    plain = made(preprocess=scaling())
    both, x = plain.averaged(mirrored), images(5)
    whole = both(x).ntk
    np.testing.assert_allclose(
        whole, (plain(x).ntk + plain(mirrored(x)).ntk) / 2, rtol=1e-4, atol=1e-5
    )
    parts = [np.asarray(z) for _, _, z in stream(both, x, batch_size=2)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)
    assert both.n_features == plain.n_features
    assert both.batch_size() <= plain.batch_size()
    assert both.cost(x.shape).flops == 2 * plain.cost(x.shape).flops
    assert both.fingerprint != plain.fingerprint
    for other in (
        pickle.loads(pickle.dumps(both)),
        ns.FeatureMap.from_specification(both.specification, both.arrays),
    ):
        np.testing.assert_array_equal(other(x).ntk, whole)
        assert other.fingerprint == both.fingerprint


def test_a_map_without_data():
    shape = jax.ShapeDtypeStruct((1, 4, 4, 1), "float32")
    options = {"key": KEY, "preprocess": scaling()}
    found = ns.feature_map(model(), shape, ns.RandomFeatures(8), **options)
    assert found(images()).ntk.shape == (6, found.n_features["ntk"])


def test_a_pooled_net_averages_before_the_last_root():
    """The second view costs no second root."""
    net = stax.serial(stax.Conv(1, (1, 1)), stax.Relu(), stax.GlobalAvgPool())
    plain = ns.feature_map(net, images(), ns.Nystroem(12, residual=0.0), key=KEY, get="nngp")
    both, shape = plain.averaged(mirrored), (2, 4, 4, 1)
    root = 2 * 2 * 12 * plain.n_features["nngp"]
    assert both.cost(shape).flops == 2 * plain.cost(shape).flops - root


def test_refusals():
    with pytest.raises(ValueError, match=r"the transform <lambda> makes \(2, 4, 3, 1\).*keeps its"):
        made().averaged(lambda x: x[:, :, 1:])
    with pytest.raises(ValueError, match="give all of them in one call"):
        made().averaged(mirrored).averaged(turned)
    with pytest.raises(NotImplementedError, match="Use exact_kernel_fn"):
        made().averaged(mirrored).diagonals(images())
    with pytest.raises(TypeError, match=r"preprocess is a function of a batch.*got 3"):
        made(preprocess=3)
    with pytest.raises(ValueError, match=r"preprocess makes \(\) of examples .*one input"):
        made(preprocess=jnp.sum)
    with pytest.raises(ValueError, match=r"preprocess makes \(5, 4, 4, 1\) of examples"):
        made(preprocess=lambda x: x[1:])
