"""ImageResize: the repaired exact kernel, and what is refused."""

import functools

import jax
import numpy as np
import pytest
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.stax._resize import Weights, _matrix, _sources, resized

KEY = jax.random.key(0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("convolutions", range(4))
def test_exact_kernel_behind_convolutions(convolutions):
    """NT stores spatial axes in reverse behind an odd number of convolutions: with other sizes
    along each axis its ImageResize resized the wrong one. Against a linear map's own features.
    """
    layers = [stax.Conv(1, (2, 3), padding="SAME", W_std=1.3)] * convolutions
    resize = stax.ImageResize((-1, 2, 5, -1), "linear")
    model = stax.serial(*layers, resize, stax.Flatten())
    x = np.random.default_rng(0).normal(size=(3, 6, 4, 2))
    z = ns.feature_map(model, x[:1], ns.Exact(), key=KEY, get="nngp")(x).nngp
    np.testing.assert_allclose(model[2](x, None, "nngp"), z @ z.T, rtol=1e-12, atol=1e-14)


def test_weights_are_one_program(caplog):
    """Also while JAX traces: operation by operation 25 were compiled for each axis."""

    def traced(x):
        with jax.log_compiles():
            return x + _matrix.__wrapped__(7, 3, "linear", True).sum().astype(x.dtype)

    jax.jit(traced).lower(np.float32(0))
    compiled = [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert len(compiled) == 1


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("shape", "out", "sparse"),
    [
        ((40, 2), (-1, 100, -1), True),
        ((40, 2), (-1, 15, -1), True),
        ((6, 5, 2), (-1, 9, 4, -1), False),
    ],
)
def test_variances_by_the_smaller_way(shape, out, sparse, monkeypatch):
    """Term by term along one axis, by matrices along two. Variances decide what `Exact` divides by:
    both ways the kernel is the same.
    """
    resize = stax.ImageResize(out, "linear")
    model = stax.serial(resize, stax.Conv(1, (3,) * (len(shape) - 1)), stax.Relu(), stax.Flatten())
    x = np.random.default_rng(0).normal(size=(3, *shape))
    offsets = ((-1, 0, 1),) * (len(shape) - 1)
    assert (resize.rule.weights.sources(shape[:-1], offsets) is not None) == sparse

    def diagonal():
        jax.clear_caches()
        return ns.feature_map(model, x[:1], ns.RandomFeatures(4), key=KEY).diagonals(x)

    found = diagonal()
    monkeypatch.setattr(
        Weights, "sources", lambda self, space, out: None if sparse else _sources(self, space)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), found, diagonal())


def test_axes_that_stay_have_no_matrix():
    """8,192² numbers of an identity."""
    rule = stax.ImageResize((-1, -1, 2, -1), "linear").rule
    assert rule.weights.matrices((8192, 4))[0] is None
    shape, out = (1, 8192, 4, 1), ((0, 1), (-1, 0, 1))
    assert rule.covariances(out, shape, method=ns.RandomFeatures(4)).shared < 2**10


def test_memory_along_a_long_axis():
    """The matrix of the layer alone is not linear in positions. Weights of pairs, in a matrix
    product, would take 60 times as many numbers.
    """
    rule, out = stax.ImageResize((-1, 2048, -1), "linear").rule, ((0, 1, 2),)
    shape, method = (1, 1024, 3), ns.RandomFeatures(4)
    assert rule.needs(out, shape, method=method) == ((0, 1, 2),)
    pairs = 4 * 3 * 2048
    assert rule.covariances(out, shape, method=method) == (0, pairs, 6 * pairs)
    assert rule.covariances(None, shape, method=method) == (0, 0, 0)
    once = functools.partial(resized, matrices=rule.weights.matrices((1024,)))
    program = jax.jit(once).lower(np.ones((8, 1024, 3), np.float32)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2 * 4 * 1024 * 2048


@pytest.mark.parametrize(
    "name",
    others_slow(
        ["triangle", "LINEAR", "bilinear", jax.image.ResizeMethod.LINEAR],
        jax.image.ResizeMethod.LINEAR,
    ),
)
def test_names_of_the_method(name):
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32)

    def features(method):
        resize = stax.ImageResize((-1, 3, 2, -1), method)
        model = stax.serial(stax.Conv(1, (2, 2)), stax.Relu(), resize, stax.Dense(1), stax.Relu())
        model = stax.serial(model, stax.Flatten())
        return ns.feature_map(model, x, ns.Nystroem(4), key=KEY, get="nngp")(x).nngp

    np.testing.assert_array_equal(features(name), features("linear"))


def test_refusals():
    x = np.ones((3, 5, 4, 2), np.float32)

    def made(*args, **kwargs):
        model = stax.serial(stax.ImageResize(*args, **kwargs), stax.Flatten())
        return ns.feature_map(model, x, ns.Exact(), key=KEY)

    with pytest.raises(NotImplementedError, match=r"Only \"linear\".*cubic|CUBIC"):
        made((-1, 3, 3, -1), "cubic")
    with pytest.raises(NotImplementedError, match=r"resizes the batch axis\. Give -1 there"):
        made((3, 3, 3, -1), "linear")
    with pytest.raises(ValueError, match="Resizing the channel axis"):
        made((-1, 3, 3, 4), "linear")
