"""Layers of a user, written and registered exactly as ours are."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest

import ntk_sketch as ns
from ntk_sketch import stax

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def assert_exact(model, x):
    """Under `Exact()`, the Gram is the model's own kernel, to 1e-8 in relative Frobenius norm."""
    close = ns.feature_map(model, x, ns.Exact(), key=KEY).kernel_fn(x)
    exact = model[2](x, None, ("nngp", "ntk"))
    for name in ("nngp", "ntk"):
        a, b = np.asarray(getattr(close, name)), np.asarray(getattr(exact, name))
        assert np.linalg.norm(a - b) < 1e-8 * np.linalg.norm(b)


# ------------------------------------------------------------------ a linear layer: scaling


@nt.stax.layer
def Scale(by=2.0):
    """`x` times a constant."""

    def init_fn(rng, input_shape):
        return input_shape, ()

    def apply_fn(params, x, **kwargs):
        return by * x

    def kernel_fn(k, **kwargs):
        return k * by

    return init_fn, apply_fn, kernel_fn


class ScaleRule(stax.Rule):
    """`K' = by² K`; `needs` is inherited: variances of the output are those of the input."""

    def __init__(self, by):
        self.by = by

    def fit(self, features, *, method, offsets, key):
        return ScaleTransform(self.by, offsets)


class ScaleTransform(eqx.Module):
    by: float
    offsets: tuple | None = eqx.field(static=True)

    def __call__(self, features, **kwargs):
        features = features.concrete().map(lambda block: self.by * block)
        if self.offsets is None:
            return features.replace(variances=None)
        variances = features.variances.select(self.offsets)
        return features.replace(variances=variances.linear(lambda k: self.by**2 * k, self.offsets))


def net_with(layer):
    return stax.serial(
        stax.Conv(4, (3,), W_std=1.3, b_std=0.2),
        layer,
        stax.Relu(),
        stax.AvgPool((2,)),
        stax.Conv(4, (2,), b_std=0.1),
        layer,
        stax.Erf(),
        stax.Flatten(),
        stax.Dense(1),
    )


def test_layer_from_a_triple_and_a_rule():
    layer = stax.layer(Scale(1.7), ScaleRule(1.7))
    assert isinstance(layer, stax.Layer)
    assert layer.name == "Scale"
    assert_exact(net_with(layer), inputs(3, 8, 2))


def test_registered_constructor():
    MyScale = stax.register(Scale, lambda layer, by: ScaleRule(by))
    assert MyScale.__doc__ == Scale.__doc__
    assert MyScale(by=0.5).name == "Scale(by=0.5)"
    assert MyScale(0.5).rule.by == MyScale(by=0.5).rule.by == 0.5
    assert MyScale().rule.by == 2.0  # defaults are filled in
    x = inputs(3, 8, 2)
    assert_exact(net_with(MyScale(by=0.7)), x)
    # The layer scales the kernel: not a layer that happens to do nothing.
    ours, without = (
        net_with(layer)[2](x, None, "ntk") for layer in (MyScale(0.7), stax.Identity())
    )
    assert not np.allclose(ours, without, rtol=0.1)


def test_random_features_of_a_users_layer():
    """Scaling by 2 is exact in floating point: the same draw as with weights twice as large."""
    scaled = stax.serial(stax.Dense(4), stax.layer(Scale(2.0), ScaleRule(2.0)), stax.Relu())
    plain = stax.serial(stax.Dense(4, W_std=2.0), stax.Identity(), stax.Relu())
    x = inputs(5, 3)
    maps = [ns.feature_map(m, x, ns.RandomFeatures(8), key=KEY) for m in (scaled, plain)]
    a, b = (m(x) for m in maps)
    # Ways to sum three products differ.
    np.testing.assert_allclose(a.nngp, b.nngp, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(maps[0].kernel_fn(x), maps[1].kernel_fn(x), rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------ one that moves positions


@nt.stax.layer
def Reverse():
    """Reverses the order of positions (n, space, channels)."""

    def init_fn(rng, input_shape):
        return input_shape, ()

    def apply_fn(params, x, **kwargs):
        return x[:, ::-1]

    def kernel_fn(k, **kwargs):
        # (n1, n2, space, space), and (n, space, space) within one example.
        def flip(mat, axes):
            return None if mat is None or mat.ndim == 0 else jnp.flip(mat, axes)

        return k.replace(
            nngp=flip(k.nngp, (2, 3)),
            ntk=flip(k.ntk, (2, 3)),
            cov1=flip(k.cov1, (1, 2)),
            cov2=flip(k.cov2, (1, 2)),
        )

    return init_fn, apply_fn, nt.stax.requires(diagonal_spatial=nt.stax.Diagonal())(kernel_fn)


class ReverseRule(stax.Rule):
    """`K'(s, t) = K(S - 1 - s, S - 1 - t)`, so that the offset δ of the output is -δ of the
    input.
    """

    def needs(self, offsets, shape, *, method):
        return None if offsets is None else (tuple(sorted(-o for o in offsets[0])),)

    def fit(self, features, *, method, offsets, key):
        return ReverseTransform(offsets)


class ReverseTransform(eqx.Module):
    offsets: tuple | None = eqx.field(static=True)

    def __call__(self, features, **kwargs):
        features = features.concrete().map(lambda block: block[:, ::-1])
        variances = None
        if self.offsets is not None:
            mirrored = (tuple(-o for o in self.offsets[0]),)
            variances = features.variances.select(mirrored)
            variances = variances.linear(lambda k: k[..., ::-1], self.offsets)
        return features.replace(variances=variances)


def test_layer_that_moves_positions():
    """Between padded convolutions and overlapping pools order matters, to features and to
    variances.
    """
    model = stax.serial(
        stax.Conv(4, (3,), W_std=1.3, b_std=0.2),
        stax.Relu(),
        stax.layer(Reverse(), ReverseRule()),
        stax.AvgPool((3,), (2,)),
        stax.Conv(4, (2,), padding="SAME", b_std=0.1),
        stax.Relu(),
        stax.Flatten(),
        stax.Dense(1),
    )
    assert_exact(model, inputs(3, 10, 2))


# ------------------------------------------------------------------ the same by rules of ours

LinearScale = stax.register(Scale, stax.linear)


def test_linear_layers_of_others():
    """Theirs as they are: what they do to channels is what they do to features."""
    model = stax.serial(
        stax.Conv(4, (3,), W_std=1.3, b_std=0.2),
        stax.Relu(),
        stax.layer(Reverse(), stax.linear(Reverse())),
        stax.AvgPool((3,), (2,)),
        LinearScale(0.7),
        stax.Conv(4, (2,), padding="SAME", b_std=0.1),
        stax.Relu(),
        stax.Flatten(),
        stax.Dense(1),
    )
    assert_exact(model, inputs(3, 9, 2))
    vectors = stax.serial(stax.Dense(3, 1.2), LinearScale(0.7), stax.Gelu(), stax.Dense(1))
    x, method = inputs(5, 3), ns.Nystroem(5, scope="network")
    close = ns.feature_map(vectors, x, method, key=KEY).kernel_fn(x, None, "ntk")
    np.testing.assert_allclose(close, vectors[2](x, None, "ntk"), rtol=1e-8)


def Difference(a, b):
    """Differences of neighbours with weights."""

    def apply_fn(params, x, **kwargs):
        return a * x[:, 1:] - b * x[:, :-1]

    def init_fn(rng, shape):
        return (shape[0], shape[1] - 1, *shape[2:]), ()

    return init_fn, apply_fn, lambda kernel, **kwargs: kernel  # whose numbers nobody asks for


def test_weights_of_several_numbers():
    """None of which cancels another while sources are looked for."""
    layer = stax.register(Difference, stax.linear)(0.7, 0.4)
    model = stax.serial(stax.Conv(4, (3,)), layer, stax.Relu(), stax.Flatten(), stax.Dense(1))
    x = inputs(3, 9, 2)
    feature_map = ns.feature_map(model, x, ns.Exact(), key=KEY)
    patches = np.stack([x[:, i : i + 7] for i in range(3)], axis=-1).reshape(3, 7, -1)
    moved = 0.7 * patches[:, 1:] - 0.4 * patches[:, :-1]  # with a 1 x 1 convolution behind
    plain = stax.serial(stax.Conv(4, (1,)), stax.Relu(), stax.Flatten(), stax.Dense(1))
    np.testing.assert_allclose(
        feature_map.kernel_fn(x, None, "nngp"), plain[2](moved, None, "nngp"), rtol=1e-8
    )


def test_gradient_with_respect_to_a_linear_layers_number():
    """The factor of a layer is one of the model's hyperparameters, in its variances too."""

    def value(by):
        model = stax.serial(stax.Dense(3), LinearScale(by), stax.Gelu(), stax.Dense(1))
        return ns.feature_map(model, x, ns.RandomFeatures(4), key=KEY).diagonals(x)[1].sum()

    x, step = inputs(4, 3), 1e-5
    slope = (value(0.7 + step) - value(0.7 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(value)(0.7), slope, rtol=1e-7)


@pytest.mark.parametrize(
    "apply",
    [jnp.square, jnp.sign, lambda x: jnp.cumsum(x, 0), lambda x: jnp.cumsum(x[..., ::-1], -1)],
)
def test_what_is_not_linear_in_positions(apply):
    """Of inputs, of examples one by one, or of channels alike."""
    triple = (lambda rng, shape: (shape, ()), lambda params, x, **_: apply(x), Scale()[2])
    model = stax.serial(stax.Dense(3), stax.layer(triple, stax.linear(triple)))
    with pytest.raises(ValueError, match=r"stax.linear is linear .* channels alike.*stax.Weights"):
        ns.feature_map(model, inputs(3, 4, 2), ns.RandomFeatures(2), key=KEY)


def dilated(x):
    """Windows of three positions, one of two apart, with zeros at the end."""
    padded = jnp.pad(x, ((0, 0), (0, 4), (0, 0)))
    return jnp.concatenate([padded[:, i : i + x.shape[1]] for i in (0, 2, 4)], axis=-1)


@nt.stax.layer
def Dilated(out_chan, W_std=1.0, b_std=0.0):
    """A dilated convolution of (n, space, channels)."""

    def init_fn(rng, shape):
        return (*shape[:-1], out_chan), jax.random.normal(rng, (3 * shape[-1], out_chan))

    def apply_fn(w, x, **kwargs):
        return W_std * dilated(x) @ w / len(w) ** 0.5

    def conv(mat, batch_ndim, bias):
        if mat is None or mat.ndim == 0:
            return mat
        pads = ((0, 0),) * batch_ndim + ((0, 4),) * 2
        padded, size = jnp.pad(mat, pads), mat.shape[-1]
        taps = [padded[..., i : i + size, i : i + size] for i in (0, 2, 4)]
        return W_std**2 * sum(taps) / 3 + bias

    def kernel_fn(k, **kwargs):
        nngp = conv(k.nngp, 2, b_std**2)
        return k.replace(
            nngp=nngp,
            ntk=nngp + conv(k.ntk, 2, 0.0),
            cov1=conv(k.cov1, 1, b_std**2),
            cov2=conv(k.cov2, 1, b_std**2),
            is_gaussian=True,
            is_input=False,
        )

    return init_fn, apply_fn, nt.stax.requires(diagonal_spatial=nt.stax.Diagonal())(kernel_fn)


def test_a_layer_with_weights_behind_patches():
    def rule(layer, out_chan, W_std, b_std):
        return stax.Weights(layer, out_chan, W_std, b_std, operator=stax.Patches(dilated, 3))

    Mine = stax.register(Dilated, rule)
    model = stax.serial(
        Mine(3, 1.3, 0.2),
        stax.Relu(),
        stax.AvgPool((2,)),
        Mine(3, 1.1, 0.1),
        stax.Relu(),
        stax.Flatten(),
        stax.Dense(1),
    )
    assert_exact(model, inputs(3, 6, 2))
    wrong = stax.serial(
        stax.register(Dilated, lambda l, *_: stax.Weights(l, 1, operator=stax.Patches(dilated, 2)))(
            1
        ),
        stax.Relu(),
    )
    with pytest.raises(ValueError, match=r"Patches\(dilated, 2\): the function makes \(1, 6, 3\)"):
        ns.feature_map(wrong, inputs(3, 6, 2), ns.RandomFeatures(2), key=KEY)


# ------------------------------------------------------------------ a nonlinearity


@nt.stax.layer
def Quadratic(a=0.5):
    """`x² + a`: `k_σ = 2c² + q q' + a (q + q') + a²`, `k_σ' = 4c`."""

    def init_fn(rng, input_shape):
        return input_shape, ()

    def apply_fn(params, x, **kwargs):
        return x**2 + a

    def kernel_fn(k, **kwargs):
        q, r = k.cov1[:, None], (k.cov1 if k.cov2 is None else k.cov2)[None]
        nngp = 2 * k.nngp**2 + q * r + a * (q + r) + a**2

        def square(q):
            return None if q is None else 3 * q**2 + 2 * a * q + a**2

        return k.replace(
            nngp=nngp,
            ntk=None if k.ntk is None else 4 * k.nngp * k.ntk,
            cov1=square(k.cov1),
            cov2=square(k.cov2),
            is_gaussian=False,
        )

    return init_fn, apply_fn, kernel_fn


Registered = stax.register(Quadratic, stax.nonlinearity)


def quadratic_net(layer):
    return stax.serial(stax.Dense(4, 1.2, 0.3), layer, stax.Dense(4, 0.8, 0.1), layer)


def test_nonlinearity_is_exact():
    assert_exact(quadratic_net(Registered(0.3)), inputs(6, 4))
    # The kernel itself is right: NT's own polynomial is the same function.
    x = inputs(6, 4)
    ours, theirs = (
        quadratic_net(layer)[2](x, None, "ntk")
        for layer in (Registered(0.3), stax.Polynomial([0.3, 0.0, 1.0]))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_nonlinearity_has_random_features():
    """The function itself at the same random projections as NT's layer for it."""
    x = inputs(5, 4)
    ours, theirs = (
        ns.feature_map(quadratic_net(layer), x, ns.RandomFeatures(8), key=KEY)(x)
        for layer in (Registered(0.3), stax.Polynomial([0.3, 0.0, 1.0]))
    )
    # Kernels enter through normalisation alone; the rest is rounding of two polynomials.
    np.testing.assert_allclose(ours.nngp, theirs.nngp, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.ntk, theirs.ntk, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------ methods layer by layer


def test_widths_by_layer():
    model = stax.serial(
        stax.Dense(4),
        stax.with_method(stax.Relu(), ns.RandomFeatures(8)),
        stax.Dense(4),
        stax.with_method(
            stax.serial(stax.Relu(), stax.Dense(3), stax.Erf()), ns.RandomFeatures(32)
        ),
    )
    x = inputs(5, 3)
    feature_map = ns.feature_map(model, x, ns.RandomFeatures(99), key=KEY)
    z = feature_map(x)
    assert z.nngp.shape == z.ntk.shape == (5, 32)
    shapes = {np.shape(leaf) for leaf in jax.tree.leaves(feature_map)}
    assert {(3, 8), (8, 32), (32, 32)} <= shapes
    assert not [shape for shape in shapes if 99 in shape]


def test_layer_with_a_method_is_the_same_layer():
    layer = stax.with_method(stax.Relu(), ns.RandomFeatures(8))
    assert isinstance(layer, stax.Layer)
    assert layer.name == "Relu()"
    x = inputs(5, 3)
    ours, plain = (
        stax.serial(stax.Dense(3), relu)[2](x, None, "ntk") for relu in (layer, stax.Relu())
    )
    assert np.array_equal(ours, plain)


def test_exact_layers_in_a_random_model():
    """Overridden everywhere by `Exact()`: exact, whatever the model's method. Once: a mixture."""
    x = inputs(6, 4)

    def model(method):
        return stax.serial(
            stax.Dense(4, b_std=0.1),
            stax.with_method(stax.Gelu(), ns.Exact()),
            stax.Dense(4),
            stax.with_method(stax.Erf(), method),
            stax.Dense(2),
        )

    exact = model(ns.Exact())[2](x, None, ("nngp", "ntk"))
    close = ns.feature_map(model(ns.Exact()), x, ns.RandomFeatures(4), key=KEY).kernel_fn(x)
    for name in ("nngp", "ntk"):
        np.testing.assert_allclose(getattr(close, name), getattr(exact, name), rtol=1e-8)

    mixed = ns.feature_map(model(ns.RandomFeatures(16)), x, ns.RandomFeatures(4), key=KEY)
    z = mixed(x)
    assert z.nngp.shape == (6, 16)
    # `normalize` gives the exact diagonal, from exact variances.
    np.testing.assert_allclose(jnp.sum(z.nngp**2, axis=-1), jnp.diag(exact.nngp), rtol=1e-10)

    with pytest.raises(TypeError, match=r"Exact at .* takes its sample from the data"):
        ns.feature_map(
            model(ns.RandomFeatures(16)),
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            ns.RandomFeatures(4),
            key=KEY,
        )


@pytest.mark.parametrize("wrong", ["RandomFeatures", ns.RandomFeatures, 256, None])
def test_with_method_wants_a_method(wrong):
    with pytest.raises(TypeError, match=r"needs a method such as RandomFeatures\(256\), got"):
        stax.with_method(stax.Relu(), wrong)


# ------------------------------------------------------------------ what is not a layer of ours


def test_plain_triples_work_and_have_no_features():
    x = inputs(3, 4)
    model = stax.serial(stax.Dense(3), nt.stax.Relu(), stax.Dense(2))
    plain = nt.stax.serial(nt.stax.Dense(3), nt.stax.Relu(), nt.stax.Dense(2))
    assert np.array_equal(model[2](x, None, "ntk"), plain[2](x, None, "ntk"))
    with pytest.raises(NotImplementedError, match=r"Relu.* has no feature rule.*stax.layer"):
        ns.feature_map(model, x, ns.RandomFeatures(4), key=KEY)
    nested = stax.serial(stax.FanOut(2), stax.parallel(stax.Dense(3), nt.stax.Dense(3)))
    model = stax.serial(nested, stax.FanInSum())
    with pytest.raises(NotImplementedError, match=r"Dense.* has no feature rule"):
        ns.feature_map(model, x, ns.RandomFeatures(4), key=KEY)


def test_functions_that_hold_arrays_of_numpy():
    """JAX 0.10 cannot compile some in two dtypes. Then the error says what works."""
    c, x = np.array([0.1, 0.2, 0.3, 0.4]), inputs(6, 3).astype(np.float32)

    def features(function, method):
        model = stax.serial(stax.Dense(1), stax.ElementwiseNumerical(function, 5), stax.Dense(1))
        return ns.feature_map(model, x, method, key=KEY)(x).ntk

    with jax.numpy_dtype_promotion("standard"):
        for method in (ns.RandomFeatures(4), ns.PolySketch(2, 4)):
            z = features(lambda u: jnp.polyval(jnp.asarray(c), jnp.tanh(u)), method)
            with explained_or_nothing() as refused:
                same = features(lambda u: jnp.polyval(c, jnp.tanh(u)), method)
            if not refused:
                np.testing.assert_allclose(same, z, rtol=1e-5)


@contextlib.contextmanager
def explained_or_nothing():
    refused = []
    try:
        yield refused
    except ValueError as error:
        refused += [note for note in error.__notes__ if "Write jnp.asarray(c) inside" in note]
        if not refused:
            raise


def test_hermite_polynomials_in_two_precisions():
    x = inputs(6, 3).astype(np.float32)
    model = stax.serial(stax.Dense(1), stax.LayerNorm(), stax.Hermite(2), stax.Dense(1))
    for method in (ns.RandomFeatures(4), ns.PolySketch(2, 4)):
        assert np.isfinite(ns.feature_map(model, x, method, key=KEY)(x).ntk).all()
