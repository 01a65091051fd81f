"""`Nystroem`: exact at full width, errors, schedules and rates."""

import functools
import re

import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES, NONLINEARITIES
from marks import others_slow

import ntk_sketch as ns
from ntk_sketch import stax
from ntk_sketch.methods import _nystroem
from ntk_sketch.stax import _sample

KEY = jax.random.key(0)


def relative(close, exact):
    return np.linalg.norm(np.asarray(close) - exact) / np.linalg.norm(exact)


def exact_kernel(model, x1, x2=None, **options):
    return jax.jit(lambda a, b: model[2](a, b, ("nngp", "ntk"), **options))(x1, x2)


LAYERS = (
    stax.Dense(5, 1.2, 0.3),
    stax.Relu(),
    stax.Dense(4, 0.9, 0.1),
    stax.Gelu(),
    stax.Dense(1),
)


def dense_net():
    return stax.serial(*LAYERS)


def conv_net():
    return stax.serial(
        stax.Conv(4, (3, 2), strides=(2, 1), W_std=1.4, b_std=0.2, padding="SAME"),
        stax.Relu(),
        stax.AvgPool((2, 2)),
        stax.Conv(4, (2, 2), b_std=0.1, padding="SAME"),
        stax.Gelu(),
        stax.GlobalAvgPool(),
        stax.Dense(3, b_std=0.3),
        stax.Erf(),
        stax.Dense(1),
    )


def images(n, seed=1, dtype=None):
    return np.random.default_rng(seed).normal(size=(n, 5, 4, 2)).astype(dtype or float)


# ------------------------------------------------------------------ exact at full width

# A constant has one value only: all positions are the same one afterwards.
FULL = {"Monomial(0)": (6, 1)}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name", others_slow(NONLINEARITIES, "Relu", "Sign", "Hermite", "Monomial(0)")
)
def test_all_positions_are_landmarks(name):
    """Then there is nothing left for random features, and the kernel on the sample is exact."""
    make, shape, across, options = ARCHITECTURES[f"dense {name}"]
    model = make()
    x = jax.random.normal(jax.random.key(1), (6, *shape))
    rows, columns = (x[:3], x[3:]) if across else (x, None)
    kernel = exact_kernel(model, rows, columns, **dict(options))
    feature_map = ns.feature_map(model, x, ns.Nystroem(FULL.get(name, 6), residual=0.5), key=KEY)
    close = feature_map.kernel_fn(x)
    for kind in ("nngp", "ntk"):
        gram, exact = np.asarray(getattr(close, kind)), np.asarray(getattr(kernel, kind))
        gram = gram[:3, 3:] if across else gram
        if not exact.any():  # Θ of a net whose nonlinearities have no derivative
            assert not gram.any()
        else:
            assert relative(gram, exact) < 1e-6


@pytest.mark.usefixtures("float64")
def test_all_positions_behind_convolutions_and_pools():
    model, x = conv_net(), images(3)
    kernel = exact_kernel(model, x)
    features = {}
    for residual in (0.0, 0.5):
        # 3 x 4 positions with a stride, 2 x 3 behind the pool, 1 behind the global pool.
        method = ns.Nystroem((3 * 12, 3 * 6, 3), residual=residual)
        feature_map = ns.feature_map(model, x, method, key=KEY)
        close = feature_map.kernel_fn(x)
        features[residual] = feature_map(x)
        for kind in ("nngp", "ntk"):
            assert relative(getattr(close, kind), getattr(kernel, kind)) < 1e-6
    for kind in ("nngp", "ntk"):
        assert np.array_equal(*(getattr(z, kind) for z in features.values()))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", others_slow(["Relu", "Gelu", "Erf", "Sin"], "Gelu"))
def test_all_positions_of_branches_and_layer_norm(name):
    """The number of features differs by branch, and their variances go through everything."""
    act = NONLINEARITIES[name]
    branch = stax.serial(act(), stax.Conv(4, (2, 2), b_std=0.1, padding="SAME"))
    model = stax.serial(
        stax.Conv(4, (3, 2), strides=(2, 1), W_std=1.4, b_std=0.2),
        stax.FanOut(2),
        stax.parallel(branch, stax.Identity()),
        stax.FanInSum(),
        stax.LayerNorm(axis=(1, 2, 3), eps=0.01),
        act(),
        stax.Flatten(),
    )
    x = images(2)
    positions = 2 * 2 * 3  # in both nonlinearities
    feature_map = ns.feature_map(model, x, ns.Nystroem(positions), key=KEY)
    close, kernel = feature_map.kernel_fn(x), exact_kernel(model, x)
    for kind in ("nngp", "ntk"):
        assert relative(getattr(close, kind), np.asarray(getattr(kernel, kind))) < 1e-6


# ------------------------------------------------------------------ errors


class TestErrors:
    def test_no_positions(self):
        for x in (np.zeros((4, 5), np.float32), np.full((4, 5), 1e-30, np.float32)):
            with pytest.raises(ValueError, match=r"at Relu\(\): all positions .* variance 0"):
                ns.feature_map(stax.serial(stax.Dense(1), stax.Relu()), x, ns.Nystroem(2), key=KEY)

    @pytest.mark.parametrize("residual", [-0.1, 1, 1.0, 1.5, float("nan"), True, (0.5, 1.0), "0.5"])
    def test_residual(self, residual):
        with pytest.raises(ValueError, match=r"residual is a share.*0 <= residual < 1.*got"):
            ns.Nystroem(4, residual=residual)

    @pytest.mark.parametrize("rcond", [-0.1, 1, float("nan"), "0.1"])
    def test_rcond(self, rcond):
        with pytest.raises(ValueError, match=r"rcond is a share, 0 <= rcond < 1, or None; got"):
            ns.Nystroem(4, rcond=rcond)

    def test_sampling(self):
        with pytest.raises(ValueError, match=r"sampling must be one of leverage, .*got 'best'"):
            ns.Nystroem(4, sampling="best")  # pyright: ignore[reportArgumentType]

    @pytest.mark.parametrize("precision", ["float16", "float32"])
    def test_precision(self, precision):
        """float32 would mean full precision whatever the dtype."""
        with pytest.raises(
            ValueError, match=rf"precision must be one of full, .*got '{precision}'"
        ):
            ns.Nystroem(4, precision=precision)

    @pytest.mark.parametrize(
        ("width", "error"), [(0, ValueError), ((4, -1), ValueError), (1.5, TypeError)]
    )
    def test_width(self, width, error):
        with pytest.raises(error, match="width must be a positive integer"):
            ns.Nystroem(width)

    def test_arrays_are_schedules(self):
        """Of NumPy or JAX, as lists are."""
        wide = ns.Nystroem(np.array([4, 8]), residual=jax.numpy.array([0.5, 0.0]))
        assert (wide.width.entries, wide.residual.entries) == ((4, 8), (0.5, 0.0))
        assert ns.Nystroem(np.array(4)).width.one == 4
        assert "width=(4, 8)" in repr(wide)
        with pytest.raises(
            TypeError, match=r"width must be a positive integer, got 4\.0 of type float"
        ):
            ns.Nystroem(np.array([4, 1.5]))

    def test_empty_schedule(self):
        with pytest.raises(ValueError, match="width is an empty schedule"):
            ns.Nystroem(())

    def test_schedule_of_another_length(self):
        with pytest.raises(ValueError, match=r"has 2 entries for 3 nonlinearities"):
            ns.feature_map(conv_net(), images(3), ns.Nystroem((4, 4)), key=KEY)
        with pytest.raises(ValueError, match=r"has 2 entries for 1 nonlinearities"):
            stax.with_method(stax.Relu(), ns.Nystroem((4, 4)))

    def test_shapes_are_not_enough(self):
        shapes = jax.ShapeDtypeStruct((4, 6), np.float32)
        with pytest.raises(TypeError, match=r"^Nystroem at Relu\(\) takes.*Pass example inputs"):
            ns.feature_map(dense_net(), shapes, ns.Nystroem(3), key=KEY)


# ------------------------------------------------------------------ widths that are not reached


class TestWidths:
    @pytest.mark.parametrize("residual", [0.0, 0.5])
    def test_more_landmarks_than_positions(self, residual):
        """All of them, of which two are equal; as if the width had been their number."""
        x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
        x[5] = x[0]
        with pytest.warns(UserWarning, match="Fewer features") as caught:
            wide = ns.feature_map(dense_net(), x, ns.Nystroem(9, residual=residual), key=KEY)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        message = str(caught[0].message)
        assert re.search(r"Relu\(\), the 1st of 2: width 9 asked for, 5 used", message)
        assert re.search(r"Gelu\(\), the 2nd of 2: width 9 asked for, 5 used", message)
        assert "larger sample" in message
        full = ns.feature_map(dense_net(), x, ns.Nystroem(5, residual=residual), key=KEY)
        assert np.array_equal(wide(x).ntk, full(x).ntk)

    def test_only_layers_that_are_too_wide(self):
        """Behind a pool positions are fewer; the schedule says who asked for too much."""
        with pytest.warns(UserWarning, match="Fewer features") as caught:
            ns.feature_map(conv_net(), images(3), ns.Nystroem((8, 19, 3)), key=KEY)
        message = str(caught[0].message)
        assert re.search(r"Gelu\(\), the 2nd of 3: width 19 asked for, 18 used", message)
        assert "Relu" not in message
        assert "Erf" not in message

    def test_branches(self):
        inner = stax.serial(stax.Relu(), stax.Dense(3), stax.Gelu(), stax.Dense(3))
        branched = branches(stax.serial(stax.Relu(), stax.Dense(3)), inner)
        model = stax.serial(stax.Dense(3), stax.Relu(), stax.Dense(3), branched)
        x = np.random.default_rng(0).normal(size=(6, 4))
        with pytest.warns(UserWarning, match=r"Gelu\(\), the 4th of 4: width 7 asked for, 6 used"):
            ns.feature_map(model, x, ns.Nystroem((2, 2, 2, 7)), key=KEY)

    def test_quiet_where_nothing_is_lost(self, recwarn):
        """All positions, and early layers that have more of them than landmarks."""
        ns.feature_map(conv_net(), images(20), ns.Nystroem((16, 32, 20)), key=KEY)
        ns.feature_map(conv_net(), images(3).astype(np.float32), ns.Exact(), key=KEY)
        assert not [w for w in recwarn if "Fewer features" in str(w.message)]

    def test_rounding(self):
        """A kernel so smooth that most of its features are rounding in float32, not in float64."""
        x = np.linspace(-1, 1, 200)[:, None].astype(np.float32)
        model = stax.serial(stax.Dense(1, 1.0, 0.5), stax.Erf())
        with pytest.warns(UserWarning, match=r"width 64 asked for, \d+ NNGP and \d+ NTK.* float32"):
            ns.feature_map(model, x, ns.Nystroem(64), key=KEY)

    @pytest.mark.parametrize(("shift", "scale"), [(1e4, 1.0), (0.0, 1e-5)])
    def test_examples_that_are_not_standardised(self, shift, scale):
        """Beside the bias they hardly differ."""
        x = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
        layers = (stax.Dense(1, 1.4, 0.1), stax.Relu()) * 2
        with pytest.warns(
            UserWarning, match=r"(?s)width 64 asked for, \d used.*standardise the examples"
        ):
            ns.feature_map(stax.serial(*layers), scale * x + shift, ns.Nystroem(64), key=KEY)


@pytest.mark.usefixtures("float64")
def test_own_centres():
    """`Nystroem(len(index))` of `x[index]`: the Nyström approximation from these landmarks."""
    x, other = smooth_sample()
    index = np.array([3, 14, 15, 92, 65, 35])
    model = stax.serial(stax.Dense(5, 1.2, 0.3), stax.Relu(), stax.Dense(1))
    feature_map = ns.feature_map(model, x[index], ns.Nystroem(len(index)), key=KEY)
    for kind in ("nngp", "ntk"):

        def kernel(a, b, kind=kind):
            return np.asarray(getattr(exact_kernel(model, a, b), kind))

        z, at_centres = getattr(feature_map(other), kind), getattr(feature_map(x[index]), kind)
        assert relative(z @ at_centres.T, kernel(other, x[index])) < 1e-8
    cross, inner = kernel_of(model, other, x[index]), kernel_of(model, x[index], x[index])
    z = feature_map(other).nngp
    assert relative(z @ z.T, cross @ np.linalg.solve(inner, cross.T)) < 1e-8


def kernel_of(model, a, b):
    return np.asarray(exact_kernel(model, a, b).nngp)


# ------------------------------------------------------------------ schedules


def widths(feature_map):
    """Numbers of landmarks, in the order of the model."""
    found = []
    jax.tree.map(
        lambda node: found.append(len(node.q)) if hasattr(node, "q") else None,
        feature_map.transform,
        is_leaf=lambda node: hasattr(node, "roots"),
    )
    return found


def relu(method=None):
    layer = stax.serial(stax.Relu(), stax.Dense(3, 1.1, 0.1))
    return layer if method is None else stax.with_method(layer, method)


def branches(*layers):
    return stax.serial(stax.FanOut(len(layers)), stax.parallel(*layers), stax.FanInSum())


# (layers behind a Dense layer, method, landmarks of each nonlinearity)
SCHEDULES = {
    "one width": ([relu(), relu()], ns.Nystroem(7), [7, 7]),
    "schedule": ([relu(), relu()], ns.Nystroem((8, 16)), [8, 16]),
    "list": ([relu(), relu()], ns.Nystroem([8, 16]), [8, 16]),
    "residual": ([relu(), relu()], ns.Nystroem((8, 16), residual=0.25), [6, 12]),
    "residual schedule": ([relu(), relu()], ns.Nystroem((8, 16), residual=[0.5, None]), [4, 16]),
    "residual schedule alone": ([relu(), relu()], ns.Nystroem(8, residual=(0, 0.25)), [8, 6]),
    "own method": (
        [relu(), relu(ns.Nystroem(11)), relu()],
        ns.Nystroem((8, 16)),
        [8, 11, 16],
    ),
    "own schedule": (
        [relu(), stax.with_method(stax.serial(relu(), relu()), ns.Nystroem((5, 6))), relu()],
        ns.Nystroem((8, 16)),
        [8, 5, 6, 16],
    ),
    "own schedule of one": ([relu(ns.Nystroem((11,))), relu()], ns.Nystroem((16,)), [11, 16]),
    "branches": (
        [branches(relu(), stax.serial(relu(), relu())), relu()],
        ns.Nystroem((4, 5, 6, 13)),
        [4, 5, 6, 13],
    ),
    "blocks without any": (
        [
            stax.serial(stax.serial(stax.Identity()), stax.Identity()),
            relu(),
            *(stax.FanOut(2), stax.parallel(stax.Identity(), stax.serial(stax.Identity()))),
            *(stax.FanInSum(), relu()),
        ],
        ns.Nystroem((5, 13)),
        [5, 13],
    ),
    "repeat": ([stax.repeat(relu(), 3), relu()], ns.Nystroem((4, 5, 6, 13)), [4, 5, 6, 13]),
}


# Nonlinearities that the method itself is for, where others have their own.
SPLITS = {"own method": 2, "own schedule": 2, "own schedule of one": 1}


@pytest.mark.parametrize(
    "name",
    others_slow(SCHEDULES, "own schedule", "branches"),
)
def test_schedules(name):
    layers, method, expected = SCHEDULES[name]
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    feature_map = ns.feature_map(
        stax.serial(stax.Dense(3, b_std=0.1), *layers), x, method, key=KEY, get="nngp"
    )
    assert widths(feature_map) == expected
    # Features of the last nonlinearity, and the constant one of the bias behind it.
    last = method.split([1] * SPLITS.get(name, len(expected)))[-1]
    assert jax.eval_shape(feature_map, x).nngp.shape == (20, last.width.one + 1)


# ------------------------------------------------------------------ rates and keys


@functools.cache
def smooth_sample():
    """Inputs on a curved surface; and other ones from it."""
    t = np.random.default_rng(0).uniform(-1, 1, size=(140, 3))
    grid = np.random.default_rng(1).normal(size=(3, 12))
    x = np.cos(t @ grid) + t @ grid[:, ::-1]
    return x[:100], x[100:]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("residual", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_error_falls_with_width(residual):
    x, other = smooth_sample()
    model = dense_net()
    kernel = exact_kernel(model, other)
    errors = []
    for width in (4, 16, 64):
        maps = [
            ns.feature_map(model, x, ns.Nystroem(width, residual=residual), key=jax.random.key(k))
            for k in range(3)
        ]
        close = [feature_map.kernel_fn(other) for feature_map in maps]
        errors.append(
            [
                np.mean([relative(getattr(k, kind), getattr(kernel, kind)) for k in close])
                for kind in ("nngp", "ntk")
            ]
        )
    errors = np.array(errors)
    # At least like width^(-1/2), the rate of random features.
    assert np.all(errors[1:] < errors[:-1] / 2)


def test_keys():
    x, _ = smooth_sample()
    x = x.astype(np.float32)
    first, again, other = (
        ns.feature_map(dense_net(), x, ns.Nystroem(8, residual=0.5), key=jax.random.key(k))(x)
        for k in (0, 0, 1)
    )
    for kind in ("nngp", "ntk"):
        a, b, c = (np.asarray(getattr(z, kind)) for z in (first, again, other))
        assert np.array_equal(a, b)
        assert not np.allclose(a @ a.T, c @ c.T)


def test_a_large_sample_in_parts_is_the_same_sample(monkeypatch):
    model = stax.serial(
        stax.Conv(1, (3,), b_std=0.1), stax.Relu(), stax.Conv(1, (2,)), stax.Relu(), stax.Flatten()
    )
    x = np.random.default_rng(0).normal(size=(7, 6, 2))
    whole = ns.feature_map(model, x, ns.Nystroem(5), key=jax.random.key(0))(x)
    monkeypatch.setattr(_sample, "_PART_BYTES", 800)
    parts = ns.feature_map(model, x, ns.Nystroem(5), key=jax.random.key(0))(x)
    for kind in ("nngp", "ntk"):
        np.testing.assert_allclose(
            getattr(parts, kind), getattr(whole, kind), rtol=1e-8, atol=1e-10
        )


def test_examples_of_the_landmarks():
    """Which examples of the sample they come from, in order, each once."""
    x, _ = smooth_sample()
    feature_map = ns.feature_map(dense_net(), x, ns.Nystroem(8), key=KEY)
    found = []
    jax.tree.map(
        lambda node: found.append(node) if hasattr(node, "roots") else None,
        feature_map.transform,
        is_leaf=lambda node: hasattr(node, "roots"),
    )
    first, _ = found
    examples = np.asarray(first.examples)
    assert np.array_equal(examples, np.unique(examples))
    # The landmarks of the first nonlinearity are those examples, behind a Dense layer.
    entering = np.concatenate([1.2 * x / 12**0.5, np.full((100, 1), 0.3)], axis=1)
    landmarks = np.asarray(first.filters).T
    distance = np.linalg.norm(landmarks[:, None] - entering[examples], axis=-1)
    assert landmarks.shape == (8, 13)
    np.testing.assert_allclose(np.sort(distance, axis=1)[:, 0], 0, atol=1e-5)
    assert set(np.argmin(distance, axis=1)) == set(range(8))


@pytest.mark.usefixtures("float64")
def test_landmarks_with_themselves_have_exact_variances(monkeypatch):
    """Behind features that lost energy, too: their own norms are smaller."""
    found = []

    def watched(*args):
        found.append(landmarks_at(*args))
        return found[-1]

    landmarks_at = _nystroem.landmarks_at
    monkeypatch.setattr(_nystroem, "landmarks_at", watched)
    x = np.random.default_rng(0).normal(size=(30, 6))
    method = ns.Nystroem((3, 12), residual=0, calibrate=False)
    feature_map = ns.feature_map(dense_net(), x, method, key=KEY)
    _, last = found
    upto = ns.feature_map(stax.serial(*LAYERS[:-1]), x[last.examples], method, key=KEY)
    exact = upto.diagonals(x[last.examples])[0]
    np.testing.assert_allclose(np.sort(np.diag(last.gram.nngp)), np.sort(exact), rtol=1e-12)
    own = np.sum(np.square(last.z.nngp), axis=0)
    assert np.sum(own < 0.999 * last.q) > 6  # but where they are landmarks of the layer before
    assert feature_map.n_features["nngp"] == 12


def test_a_kernel_that_is_zero_is_not_rounding(recwarn):
    """`Sign` has no derivative, and so no NTK features to lose."""
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    model = stax.serial(stax.Dense(1), stax.Sign(), stax.Dense(1))
    feature_map = ns.feature_map(model, x, ns.Nystroem(64), key=KEY)
    assert feature_map.n_features["nngp"] == 64
    assert not [w for w in recwarn if "Fewer features" in str(w.message)]
