"""`kernel_fn` of every linear and branching layer against its definition, and none forgotten.

A network that is linear in its weights, f(x) = J(x) w with w ~ N(0, 1) (the 'ntk'
parameterization), has NNGP = NTK = J(x) J(x')^T at *every* width, so a finite layer is an exact
oracle for these. Layers without weights keep the inner products of their inputs.
"""

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import others_slow
from neural_tangents import stax

# Sums of at most a thousand products of order 1 in float64.
RTOL, ATOL = 1e-11, 1e-12

WEIGHTING = np.array([1.0, -1.0, 0.5])
KEY = jax.random.key(0)
ADJACENCY = np.array([[1.0, 0.5, 0, 0], [0.3, 1, 0.2, 0], [0, 0.4, 1, 0.7], [0.9, 0, 0.6, 1]])


def images(n, *spatial, channels=2, seed=1):
    return np.random.default_rng(seed).normal(size=(n, *spatial, channels))


def per_pair(kernel, name="nngp"):
    """(n1, n2, h, h', w, w', ...) -> (n1, n2, h, w, ..., h', w', ...).

    Only the `Kernel` object says whether the order of the spatial axes is reversed in its arrays.
    """
    array = getattr(kernel, name)
    firsts = list(range(2, array.ndim, 2))
    if kernel.is_reversed:
        firsts = firsts[::-1]
    return np.transpose(array, (0, 1, *firsts, *(i + 1 for i in firsts)))


def products(j1, j2):
    """<j1[i, s, :], j2[k, t, :]> as (i, k, *s, *t)."""
    s, t = string.ascii_lowercase[: j1.ndim - 2], string.ascii_uppercase[: j2.ndim - 2]
    return np.einsum(f"y{s}p,z{t}p->yz{s}{t}", j1, j2)


# One output channel, so that the Jacobian is that of one output.
WEIGHTS = {
    "Dense": (lambda: stax.Dense(1, W_std=1.3, b_std=0.4), (3,)),
    "Conv-SAME": (lambda: stax.Conv(1, (3, 3), padding="SAME", W_std=1.3, b_std=0.4), (4, 5)),
    "Conv-VALID-strides": (lambda: stax.Conv(1, (2, 3), strides=(2, 1), W_std=1.3), (5, 4)),
    "Conv-CIRCULAR": (lambda: stax.Conv(1, (3, 2), padding="CIRCULAR", b_std=0.2), (4, 3)),
    "Conv-1d": (lambda: stax.Conv(1, (3,), padding="SAME"), (6,)),
    "Conv-3d": (lambda: stax.Conv(1, (2, 1, 2)), (3, 2, 3)),
    "ConvLocal": (lambda: stax.ConvLocal(1, (3, 2), padding="SAME", W_std=1.2, b_std=0.3), (4, 3)),
    "ConvTranspose": (lambda: stax.ConvTranspose(1, (3,), strides=(2,), W_std=1.2), (4,)),
    "Conv-AvgPool": (
        lambda: stax.serial(stax.Conv(1, (2, 2)), stax.AvgPool((2, 2), (1, 2))),
        (5, 5),
    ),
    "parallel": (
        lambda: stax.serial(
            stax.FanOut(2),
            stax.parallel(stax.Conv(1, (3, 3), padding="SAME"), stax.Conv(1, (1, 1), b_std=0.5)),
            stax.FanInSum(),
        ),
        (3, 4),
    ),
}


@pytest.mark.parametrize(
    "name",
    others_slow(WEIGHTS, "Dense", "Conv-CIRCULAR", "ConvLocal"),
)
def test_layers_with_weights(name):
    make, spatial = WEIGHTS[name]
    init_fn, apply_fn, kernel_fn = make()[:3]
    x1, x2 = images(3, *spatial), images(2, *spatial, seed=2)
    _, params = init_fn(KEY, x1.shape)
    # Weights at which the Jacobian of a network linear in them is taken do not matter.
    leaves, tree = jax.tree_util.tree_flatten(params)
    sizes = [leaf.size for leaf in leaves]

    def outputs(flat, x):
        parts = jnp.split(flat, np.cumsum(sizes)[:-1])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return apply_fn(tree.unflatten(shaped), x)[..., 0]

    j1, j2 = (jax.jit(jax.jacobian(outputs))(jnp.zeros(sum(sizes)), x) for x in (x1, x2))
    got = kernel_fn(x1, x2)
    expected = products(np.asarray(j1), np.asarray(j2))
    for get in ("nngp", "ntk"):
        if got.diagonal_spatial:  # unshared weights: positions are independent
            same = np.eye(12).reshape(4, 3, 4, 3)
            np.testing.assert_allclose(expected * (1 - same), 0, atol=ATOL)
            np.testing.assert_allclose(
                getattr(got, get), np.einsum("nmhwhw->nmhw", expected), RTOL, ATOL
            )
        else:
            np.testing.assert_allclose(per_pair(got, get), expected, RTOL, ATOL)


WEIGHTLESS = {
    "Identity": (stax.Identity, (3, 4)),
    "AvgPool-VALID": (lambda: stax.AvgPool((2, 3), strides=(2, 1)), (4, 5)),
    "AvgPool-SAME": (lambda: stax.AvgPool((3, 2), padding="SAME"), (4, 5)),
    "AvgPool-edges": (lambda: stax.AvgPool((3, 3), None, "SAME", normalize_edges=True), (4, 5)),
    "AvgPool-CIRCULAR": (lambda: stax.AvgPool((3, 2), padding="CIRCULAR"), (4, 3)),
    "SumPool": (lambda: stax.SumPool((2, 2), strides=(1, 2)), (3, 4)),
    "GlobalAvgPool": (stax.GlobalAvgPool, (3, 4)),
    "GlobalSumPool": (stax.GlobalSumPool, (3, 4)),
    "Flatten": (stax.Flatten, (3, 4)),
    "ImageResize": (lambda: stax.ImageResize((-1, 5, 2, -1), "linear"), (3, 4)),
    "Index": (lambda: stax.Index(idx=(slice(None), slice(1, 3), -1)), (3, 4)),
    "Slice": (lambda: stax.Index(idx=stax.Slice[:, ::2, 1:]), (3, 4)),
    "DotGeneral": (
        lambda: stax.DotGeneral(rhs=WEIGHTING, dimension_numbers=(((1,), (0,)), ((), ()))),
        (3, 2),
    ),
    "DotGeneral-scalar": (lambda: stax.DotGeneral(lhs=2.0), (3,)),
}


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_layers_without_weights(name):
    make, spatial = WEIGHTLESS[name]
    layer = make()
    x1, x2 = images(3, *spatial), images(2, *spatial, seed=2)
    z1, z2 = (np.asarray(layer[1]((), x)) for x in (x1, x2))
    expected = products(z1, z2) / z1.shape[-1]
    np.testing.assert_allclose(per_pair(layer[2](x1, x2)), expected, RTOL, ATOL)


@pytest.mark.parametrize("implementation", ["DENSE", "SPARSE"])
def test_aggregate(implementation):
    """z_t = sum_s x_s A_st; the sparse form lists the edges (s, t) of weight 1."""
    x1, x2 = images(2, 4), images(3, 4, seed=2)
    edges = np.array([[0, 1], [1, 2], [3, 0]])
    if implementation == "DENSE":
        matrix = one = ADJACENCY
    else:
        matrix, one = np.zeros((4, 4)), edges
        matrix[edges[:, 0], edges[:, 1]] = 1
    layer = stax.Aggregate(aggregate_axis=1, implementation=implementation)
    pattern1, pattern2 = (jnp.repeat(jnp.asarray(one)[None], len(x), 0) for x in (x1, x2))
    z1, z2 = (np.einsum("nsc,st->ntc", x, matrix) for x in (x1, x2))
    got = layer[2](x1, x2, "nngp", pattern=(pattern1, pattern2))
    np.testing.assert_allclose(got, products(z1, z2) / 2, RTOL, ATOL)
    np.testing.assert_allclose(layer[1]((), x1, pattern=pattern1), z1, RTOL, ATOL)


def relu_kernels(c, q1, q2):
    """Arc-cosine kernels of degree 1 and 0, halved (Cho & Saul, 2009)."""
    norms = np.sqrt(q1 * q2)
    angle = np.arccos(np.clip(c / norms, -1, 1))
    k1 = norms * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return k1, (np.pi - angle) / (2 * np.pi)


def conv_same(kernel, width, W_std, b_std):
    """W^2 mean over the window of K(s + d, t + d) + b^2, in loops; zero outside the image."""
    n_positions, reach = kernel.shape[2], width // 2
    out = np.full_like(kernel, b_std**2)
    for s in range(n_positions):
        for t in range(n_positions):
            for d in range(-reach, reach + 1):
                if 0 <= s + d < n_positions and 0 <= t + d < n_positions:
                    out[:, :, s, t] += W_std**2 / width * kernel[:, :, s + d, t + d]
    return out


def test_convolutional_ntk():
    """Conv, Relu, Conv, GlobalAvgPool, Dense: the recursion of Arora et al. (2019), section 4."""
    x = images(3, 5)
    covariance = np.einsum("nsc,mtc->nmst", x, x) / 2
    k1 = conv_same(covariance, 3, 1.3, 0.2)
    q = np.einsum("nnss->ns", k1)
    phi, dphi = relu_kernels(k1, q[:, None, :, None], q[None, :, None, :])
    k2 = conv_same(phi, 3, 1.1, 0.1)
    theta2 = k2 + conv_same(phi * 0 + dphi * k1, 3, 1.1, 0.0)
    nngp = k2.mean((2, 3))
    model = stax.serial(
        stax.Conv(1, (3,), padding="SAME", W_std=1.3, b_std=0.2),
        stax.Relu(),
        stax.Conv(1, (3,), padding="SAME", W_std=1.1, b_std=0.1),
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )
    got = model[2](x, None, ("nngp", "ntk"))
    np.testing.assert_allclose(got.nngp, nngp, RTOL)
    # NT keeps cosines away from 1 for a finite gradient: sqrt(eps) in the angle of x with itself.
    np.testing.assert_allclose(got.ntk, nngp + theta2.mean((2, 3)), 1e-7)


@pytest.mark.parametrize("make", [stax.Dense, stax.Conv, stax.ConvLocal, stax.ConvTranspose])
def test_standard_parameterization(make):
    """The same distribution of outputs; gradients with respect to weights not divided by fan-in.

    One layer, f = sum_i w_i x_i + b with w_i ~ N(0, W^2 / fan_in), b ~ N(0, b^2):
    NTK = <x, x'> + 1. 'ntk': NTK = NNGP = W^2 <x, x'> / fan_in + b^2.
    """
    window = {} if make is stax.Dense else {"filter_shape": (3,)}
    x1, x2 = (images(2, *(() if make is stax.Dense else (3,)), seed=seed) for seed in (1, 2))
    std = {"W_std": 1.3, "b_std": 0.4}
    layers = {p: make(1, **window, **std, parameterization=p) for p in ("ntk", "standard")}
    head = [] if make is stax.Dense else [stax.Flatten()]
    kernels = {p: stax.serial(layer, *head)[2](x1, x2) for p, layer in layers.items()}
    np.testing.assert_allclose(kernels["standard"].nngp, kernels["ntk"].nngp, RTOL)
    fan_in = 2 if make is stax.Dense else 6
    inner = (kernels["ntk"].nngp - 0.4**2) / 1.3**2 * fan_in
    np.testing.assert_allclose(kernels["standard"].ntk, inner + 1, RTOL)


def hidden(x1, x2=None):
    """NNGP and NTK after Dense, Relu, Dense, from closed forms, and the network."""
    x2 = x1 if x2 is None else x2
    q1, q2 = (np.sum(x**2, -1) / x.shape[-1] for x in (x1, x2))
    c = x1 @ x2.T / x1.shape[-1]
    nngp, slope = relu_kernels(c, q1[:, None], q2[None])
    return nngp, nngp + slope * c


BLOCK = (stax.Dense(1), stax.Relu(), stax.Dense(1))
X1, X2 = images(4, channels=3)[:, :], images(3, channels=3, seed=2)


def test_branches():
    """Independent branches with the same kernel: sums, weighted means and products of kernels."""
    nngp, ntk = hidden(X1, X2)
    other = stax.serial(stax.Dense(1, W_std=2.0))
    linear = 4 * X1 @ X2.T / 3

    def branches(fan_in, *heads):
        parallel = stax.parallel(stax.serial(*BLOCK), other)
        with pytest.warns(UserWarning, match="independent inputs"):
            return stax.serial(stax.FanOut(2), parallel, fan_in, *heads)[2](X1, X2)

    total = branches(stax.FanInSum())
    product = branches(stax.FanInProd())
    # Both branches have one channel.
    mean = branches(stax.FanInConcat(), stax.Dense(1, W_std=1.5))
    np.testing.assert_allclose(total.nngp, nngp + linear, RTOL)
    np.testing.assert_allclose(total.ntk, ntk + linear, RTOL)
    np.testing.assert_allclose(product.nngp, nngp * linear, RTOL)
    np.testing.assert_allclose(product.ntk, ntk * linear + nngp * linear, RTOL)
    np.testing.assert_allclose(mean.nngp, 1.5**2 * (nngp + linear) / 2, RTOL)
    expected = 1.5**2 * (nngp + linear + ntk + linear) / 2
    np.testing.assert_allclose(mean.ntk, expected, RTOL)


def test_repeat():
    block = stax.serial(stax.Dense(3, W_std=1.2), stax.Erf())
    got = stax.repeat(block, 3)[2](X1, X2)
    expected = stax.serial(block, block, block)[2](X1, X2)
    np.testing.assert_allclose(got.nngp, expected.nngp, RTOL)
    np.testing.assert_allclose(got.ntk, expected.ntk, RTOL)


def test_layer_norm():
    """K(x, x') / sqrt(K(x, x) K(x', x')); the NTK is divided likewise."""
    nngp, ntk = hidden(X1, X2)
    q1, q2 = (np.diag(hidden(x)[0]) for x in (X1, X2))
    norms = np.sqrt(np.outer(q1, q2))
    got = stax.serial(*BLOCK, stax.LayerNorm())[2](X1, X2)
    # `eps` of the layer, 1e-12, is added to variances of order 0.1.
    np.testing.assert_allclose(got.nngp, nngp / norms, rtol=1e-10)
    np.testing.assert_allclose(got.ntk, ntk / norms, rtol=1e-10)


def test_dropout():
    """Independent masks, kept with probability `rate`: second moments grow by 1/rate."""
    model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dropout(0.6))
    nngp, _ = hidden(X1)
    scale = np.where(np.eye(len(X1)), 1 / 0.6, 1.0)
    np.testing.assert_allclose(model[2](X1, None, "nngp"), nngp * scale, RTOL)
    np.testing.assert_allclose(model[2](X1, X2, "nngp"), hidden(X1, X2)[0], RTOL)
    test = stax.serial(stax.Dense(1), stax.Relu(), stax.Dropout(0.6, mode="test"))
    np.testing.assert_allclose(test[2](X1, None, "nngp"), nngp, RTOL)
    # 4 standard errors of a binomial fraction.
    ones, rate = jnp.ones((100, 100)), 0.6
    z = np.asarray(stax.Dropout(rate)[1]((), ones, rng=KEY))
    kept = np.mean(z != 0)
    assert abs(kept - rate) < 4 * (rate * (1 - rate) / z.size) ** 0.5
    np.testing.assert_allclose(z[z != 0], 1 / rate, RTOL)


@pytest.mark.parametrize("mechanism", ["SOFTMAX", "IDENTITY", "ABS", "RELU"])
def test_attention_with_linear_scaling(mechanism):
    """Hron et al. (2020): the weights G = zeta(K(x_s, x_t)) of an example become deterministic.

    K' = W^2 G K G'^T + b^2,  Theta' = 2 (K' - b^2) + W^2 G Theta G'^T + b^2.
    """
    x1, x2 = images(2, 4), images(3, 4, seed=2)
    zeta = {
        "SOFTMAX": lambda g: np.exp(g) / np.exp(g).sum(-1, keepdims=True),
        "IDENTITY": lambda g: g,
        "ABS": np.abs,
        "RELU": lambda g: np.maximum(g, 0),
    }[mechanism]
    weights1, weights2 = (zeta(1.2 * 0.7 * np.einsum("nsc,ntc->nst", x, x) / 2) for x in (x1, x2))
    covariance = np.einsum("nsc,mtc->nmst", x1, x2) / 2
    weighed = 1.69 * 0.81 * np.einsum("nas,nmst,mbt->nmab", weights1, covariance, weights2)
    layer = stax.GlobalSelfAttention(
        n_chan_out=4,
        n_chan_key=4,
        n_chan_val=4,
        n_heads=2,
        attention_mechanism=mechanism,
        W_query_std=1.2,
        W_key_std=0.7,
        W_value_std=1.3,
        W_out_std=0.9,
        b_std=0.3,
    )
    got = layer[2](x1, x2)
    np.testing.assert_allclose(got.nngp, weighed + 0.09, RTOL)
    # The inputs themselves have no NTK.
    np.testing.assert_allclose(got.ntk, 2 * weighed + 0.09, RTOL)


def test_attention_with_identity():
    """Square-root scaling: K'_ab = W^2 <K, K>_st K_ab + b^2 (Hron et al., 2020, theorem 3)."""
    x1, x2 = images(2, 4), images(3, 4, seed=2)
    covariance = np.einsum("nsc,mtc->nmst", x1, x2) / 2
    layer = stax.GlobalSelfAttention(
        4, 4, 4, 2, linear_scaling=False, attention_mechanism="IDENTITY", b_std=0.3
    )
    energy = np.sum(covariance**2, (2, 3), keepdims=True)
    np.testing.assert_allclose(layer[2](x1, x2, "nngp"), energy * covariance + 0.09, RTOL)


def test_positional_embedding():
    """SUM: the attention weights see K + R, R = exp(-|s - t|^2) here, the values K alone."""
    x = images(2, 4)
    place = np.arange(4)
    decay = np.exp(-((place[:, None] - place[None]) ** 2))
    covariance = np.einsum("nsc,mtc->nmst", x, x) / 2
    weights = np.einsum("nnst->nst", covariance) + decay
    layer = stax.GlobalSelfAttention(
        4,
        4,
        4,
        2,
        attention_mechanism="IDENTITY",
        pos_emb_type="SUM",
        pos_emb_decay_fn=lambda d: jnp.exp(-d),
    )
    expected = np.einsum("nas,nmst,mbt->nmab", weights, covariance, weights)
    np.testing.assert_allclose(layer[2](x, None, "nngp"), expected, RTOL)


def test_masking():
    """A sequence whose tail is masked has the kernel of the shorter sequence."""
    model = stax.serial(stax.Dense(1, b_std=0.3), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))
    x1, x2 = images(2, 5), images(3, 5, seed=2)
    padded = np.concatenate([x1, np.full((2, 3, 2), 100.0)], 1)
    got = model[2](padded, x2, ("nngp", "ntk"), mask_constant=100.0)
    expected = model[2](x1, x2, ("nngp", "ntk"))
    np.testing.assert_allclose(got.nngp, expected.nngp, RTOL)
    np.testing.assert_allclose(got.ntk, expected.ntk, RTOL)


def test_custom_layer():
    """`layer`, `requires`, `supports_masking` and `Diagonal` make a layer of a user's triple."""

    @stax.layer
    @stax.supports_masking(remask_kernel=False)
    def Double():
        @stax.requires(diagonal_spatial=stax.Diagonal(input=stax.Bool.YES, output=stax.Bool.YES))
        def kernel_fn(k, **kwargs):
            return k * 2.0  # the kernel of twice the function: four times as large

        return lambda rng, shape: (shape, ()), lambda params, x, **kwargs: 2 * x, kernel_fn

    got = stax.serial(*BLOCK, Double())[2](X1, X2)
    nngp, ntk = hidden(X1, X2)
    np.testing.assert_allclose(got.nngp, 4 * nngp, RTOL)
    np.testing.assert_allclose(got.ntk, 4 * ntk, RTOL)
    np.testing.assert_array_equal(Double()[1]((), X1), 2 * X1)


def test_unmask():
    """`MaskedArray`s pass through a function wrapped by `unmask_fn` as their values."""
    masked = stax.MaskedArray(jnp.ones((2, 3)), jnp.array([[True], [False]]))
    seen = stax.unmask_fn(lambda params, x: x)((), masked)
    assert not isinstance(seen, stax.MaskedArray)


def test_every_public_name_is_covered(request):
    """A name that NT exports and no test of this folder mentions fails here."""
    text = "".join(path.read_text() for path in request.path.parent.glob("test_*.py"))
    names = {n for n in vars(stax) if not n.startswith("_") and f"stax.{n}" not in text}
    # Enumerations, of which NT's layers take the members' names.
    strings = {
        "AggregateImplementation": ["DENSE", "SPARSE"],
        "AttentionMechanism": ["SOFTMAX", "IDENTITY", "ABS", "RELU"],
        "Padding": ["CIRCULAR", "SAME", "VALID"],
        "PositionalEmbedding": ["NONE", "SUM", "CONCAT"],
    }
    for name, members in strings.items():
        assert set(getattr(stax, name).__members__) == set(members)
    assert names == set(strings)
