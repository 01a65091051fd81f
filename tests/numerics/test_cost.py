"""FLOPs and bytes counted by hand."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.numerics._cost import Cost, product_cost

KEY = jax.random.key(0)


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def products(*sizes):
    """Of matrices (n, d) and (d, m), given as (n, d, m)."""
    flops = sum(2 * n * d * m for n, d, m in sizes)
    return Cost(flops, 4 * sum(n * d + d * m + n * m for n, d, m in sizes))


# ------------------------------------------------------------------ single functions


def test_batched_matrix_product():
    cost = product_cost(
        lambda a, b: jnp.einsum("gij,gjk->gik", a, b), zeros(5, 2, 3), zeros(5, 3, 4)
    )
    assert cost == Cost(5 * 2 * 2 * 3 * 4, 4 * 5 * (2 * 3 + 3 * 4 + 2 * 4))


def test_convolution_in_groups():
    """Each of 6 output channels sums 3 taps of 2 of the 4 input channels."""

    def convolve(x, filters):
        return lax.conv_general_dilated(
            x,
            filters,
            (2,),
            "VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=2,
        )

    cost = product_cost(convolve, zeros(5, 9, 4), zeros(3, 2, 6))
    assert cost == Cost(2 * (5 * 4 * 6) * 3 * 2, 4 * (5 * 9 * 4 + 3 * 2 * 6 + 5 * 4 * 6))


def test_elementwise_work_and_sums_are_free():
    assert product_cost(lambda x: jnp.sum(jnp.sin(x) * x), zeros(7, 7)) == (0, 0)


@jax.custom_jvp
def squared(a):
    return a @ a


squared.defjvp(lambda primals, tangents: (squared(*primals), tangents[0] @ primals[0]))


@pytest.mark.parametrize(
    ("fn", "times"),
    [
        (jax.jit(lambda a: a @ a), 1),
        (squared, 1),
        (jax.jit(lambda a: jax.jit(squared)(a) + a @ a), 2),
        (lambda a: lax.scan(lambda b, _: (b @ a, None), a, length=3)[0], 3),
        (lambda a: lax.while_loop(lambda b: b[0, 0] < 1, lambda b: b @ a, a), 1),
        (lambda a: lax.cond(a[0, 0] > 0, lambda: a @ a @ a, lambda: a @ a), 2),
    ],
    ids=["jit", "custom_jvp", "nested", "scan", "while", "cond"],
)
def test_inside_of_other_equations(fn, times):
    assert product_cost(fn, zeros(8, 8)) == products(*[(8, 8, 8)] * times)


# ------------------------------------------------------------------ feature maps


@pytest.mark.parametrize("normalize", [False, True])
def test_dense(normalize):
    """φ (6, then m) meets `W` and, as a block of ψ, `S` at once; ψ's own block meets `S`."""
    n, m = 5, 16
    model = stax.serial(stax.Dense(3), stax.Relu(), stax.Dense(3, b_std=0.1), stax.Relu())
    method = ns.RandomFeatures(m, normalize=normalize)
    feature_map = ns.feature_map(model, zeros(1, 6), method, key=KEY)
    cost = feature_map.cost((n, 6), np.float32)
    assert cost == products((n, 6, 2 * m), (n, m, 2 * m), (n, m, m))
    assert all(type(number) is int for number in cost)

    nngp = ns.feature_map(model, zeros(1, 6), method, key=KEY, get="nngp")
    assert nngp.cost((n, 6), np.float32) == products((n, 6, m), (n, m, m))


def convolutional(method=None, **options):
    method = ns.RandomFeatures(8) if method is None else method
    model = stax.serial(
        stax.Conv(1, (3, 3), padding="SAME"),
        stax.Relu(),
        stax.AvgPool((2, 2), (2, 2)),
        stax.Conv(1, (2, 2), b_std=0.2),
        stax.Gelu(),
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )
    return ns.feature_map(model, zeros(1, 6, 4, 3), method, key=KEY, **options)


def test_convolution():
    """6x4 positions with 3x3 taps; then 3x2 positions, of which 2x2 taps leave 2x1."""
    n, m = 5, 8
    inputs, outputs, pooled, last = n * 6 * 4, n * 6 * 4, n * 3 * 2, n * 2 * 1
    flops = 2 * outputs * 9 * 3 * (2 * m)
    flops += 2 * last * 4 * m * (2 * m) + 2 * last * 4 * m * m
    numbers = inputs * 3 + 9 * 3 * 2 * m + outputs * 2 * m
    numbers += pooled * m + 4 * m * 2 * m + last * 2 * m
    numbers += pooled * m + 4 * m * m + last * m
    assert convolutional().cost((n, 6, 4, 3), np.float32) == Cost(flops, 4 * numbers)


def test_linear_in_examples():
    """But for the filters, which are read once however many examples there are."""
    costs = [convolutional().cost((n, 6, 4, 3)) for n in (1, 2, 3, 64)]
    assert [cost.flops for cost in costs] == [n * costs[0].flops for n in (1, 2, 3, 64)]
    step = costs[1].bytes - costs[0].bytes
    assert costs[3].bytes - costs[0].bytes == 63 * step
    filters = 4 * (9 * 3 * 16 + 4 * 8 * 16 + 4 * 8 * 8)
    assert costs[0].bytes - step == filters


def test_bytes_follow_the_dtypes():
    shape = (2, 6, 4, 3)
    single = convolutional().cost(shape, np.float32)
    half = convolutional(ns.RandomFeatures(8, precision="bfloat16")).cost(shape, np.float32)
    assert half.flops == single.flops
    assert single.bytes / 2 < half.bytes < single.bytes  # results stay in float32


@pytest.mark.usefixtures("float64")
def test_dtype_of_the_inputs():
    shape = (2, 6, 4, 3)
    feature_map = convolutional()
    single, double = (feature_map.cost(shape, dtype) for dtype in (np.float32, np.float64))
    assert double == (single.flops, 2 * single.bytes)
    assert feature_map.cost(shape) == double


def test_roots_are_counted():
    """Every example of the sample is a landmark; both kernels have a root of their own."""
    x = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    model = stax.serial(stax.Dense(3), stax.Relu())
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY)
    n, landmarks, z = 5, len(x), feature_map(x)
    projections = (n, 6, 2 * landmarks)
    roots = [(n, landmarks, features.shape[1]) for features in (z.nngp, z.ntk)]
    assert feature_map.cost((n, 6), np.float32) == products(projections, *roots)


@pytest.mark.parametrize("shape", [(2, 6, 4), (6, 4, 3), (2, 6, 4, 1), (), (2, 4, 6, 3)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"this model and feature map need \(n, 6, 4, 3\)"):
        convolutional().cost(shape)


def test_other_wrong_inputs():
    with pytest.raises(ValueError, match="x is empty"):
        convolutional().cost((0, 6, 4, 3))
    with pytest.raises(TypeError, match=r"such as x\.shape; got 5"):
        convolutional().cost(5)
    with pytest.raises(TypeError, match="x has dtype uint8"):
        convolutional().cost((2, 6, 4, 3), np.uint8)
